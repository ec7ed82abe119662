"""Evaluation: the numbers of a plain loop, on any number of processes, saved with what they mean."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

import fewshotseg as fs
from _folders import make_classwise, make_folder
from _processes import run_together
from _training import MODEL, TINY, run_share, trained
from fewshotseg.cli import evaluate, main
from fewshotseg.data import (
    PROTOCOLS,
    ClasswiseSource,
    EpisodeDataset,
    SyntheticSource,
    episodes_hash,
    hsnet_eval,
    pascal5i,
    pfenet_eval,
)
from fewshotseg.models import load_model, read_model, save_model
from fewshotseg.results import EvaluationResult
from fewshotseg.training.benchmark import BENCHMARKS

SHORT = ["--device", "cpu", "--episodes", "25", "--seeds", "0", "1", "--shots", "1"]
NOVEL = pascal5i(0).novel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    options = ["--iterations", 6, "--lr", 0.01, "--model", *MODEL, "self_contrast_weight=1"]
    return trained(tmp_path_factory.mktemp("run"), *options)


def results_of(out, *arguments):
    """Evaluate; the results by number of shots."""
    assert main(["evaluate", *map(str, arguments), "--out", str(out)]) == 0
    results = [EvaluationResult.load(path) for path in sorted(out.glob("*.json"))]
    return {result.shots: result for result in results}


@pytest.fixture(scope="module")
def results(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    results_of(out, checkpoint, *SHORT)
    (path,) = out.iterdir()
    return path


def test_numbers_are_those_of_the_library(checkpoint, results):
    result = EvaluationResult.load(results)
    model = load_model(checkpoint)
    source = SyntheticSource(30, num_classes=20, size=48, seed=1)
    for seed, report, digest in zip((0, 1), result.reports, result.episodes_hashes, strict=True):
        episodes = EpisodeDataset(source, NOVEL, length=25, seed=seed, transform=pfenet_eval(49))
        metric = fs.FewShotIoU(NOVEL, class_names={class_id: source.class_names[class_id] for class_id in NOVEL})
        assert report == fs.evaluate(model, episodes, metric, scoring="original").to_dict()
        assert 0 < report["miou"] < 1
        assert digest == episodes_hash(episodes.specs)


def test_data_of_another_domain(checkpoint, tmp_path):
    root = make_classwise(tmp_path / "deepglobe", "123456")
    where = ["--benchmark", "deepglobe", "--data", root, "--size", "49", "--episodes", "20", "--seeds", "3"]
    result = results_of(tmp_path / "out", checkpoint, "--device", "cpu", *where)[1]
    episodes = EpisodeDataset(ClasswiseSource(root), range(1, 7), length=20, seed=3, transform=hsnet_eval(49))
    report = fs.evaluate(load_model(checkpoint), episodes, fs.FewShotIoU(range(1, 7)))
    assert result.protocol == "patnet-deepglobe with train_size 49, test_size 49, episodes 20, seeds (3,)"
    assert result.reports[0]["miou"] == report.miou
    assert result.reports[0]["by_size"][">10%"]["episodes"] == report.by_size[">10%"].episodes > 0


def test_what_can_only_be_tested_on_cannot_be_trained_on(capsys):
    with pytest.raises(SystemExit):
        main(["train", "deepglobe", "--data", "somewhere"])
    assert "invalid choice: 'deepglobe'" in capsys.readouterr().err


@pytest.fixture
def from_a_fifth(checkpoint):
    """The mIoU when foreground is what has a probability of at least 0.2, counted independently."""

    class FromAFifth(fs.FewShotIoU):
        def update(self, prediction, target, class_ids):
            super().update(prediction.softmax(dim=1)[:, 1] >= 0.2, target, class_ids)

    episodes = EpisodeDataset(SyntheticSource(30, num_classes=20, size=48, seed=1), NOVEL, length=25,
                              transform=pfenet_eval(49))  # fmt: skip
    return fs.evaluate(load_model(checkpoint), episodes, FromAFifth(NOVEL), scoring="original").miou


def test_another_threshold(checkpoint, results, from_a_fifth, tmp_path):
    result = results_of(tmp_path, checkpoint, *SHORT, "--threshold", "0.2")[1]
    assert [path.name for path in tmp_path.iterdir()] == [f"last-{result.protocol_hash}-fold0-1shot-from0.2.json"]
    assert result.model["threshold"] == 0.2
    assert result.reports[0]["miou"] == pytest.approx(from_a_fifth, abs=1e-4)
    assert result.mious != EvaluationResult.load(results).mious


def test_the_threshold_of_the_model_holds_where_none_is_given(checkpoint, from_a_fifth, tmp_path):
    main(["export", str(checkpoint), str(tmp_path / "mine.pth"), "--format", "model", "--threshold", "0.2"])
    where = ["--benchmark", "synthetic", "--images", "90", "--size", "49"]
    result = results_of(tmp_path / "out", tmp_path / "mine.pth", *SHORT, *where)[1]
    assert result.model["threshold"] == 0.2
    assert result.model["protocol"].startswith("synthetic with train_size 49")
    assert result.reports[0]["miou"] == pytest.approx(from_a_fifth, abs=1e-4)


def test_mixed_precision(checkpoint, results, tmp_path):
    result = results_of(tmp_path, checkpoint, *SHORT, "--amp", "bfloat16")[1]
    assert [path.name for path in tmp_path.iterdir()] == [f"last-{result.protocol_hash}-fold0-1shot-bfloat16.json"]
    exact = EvaluationResult.load(results)
    assert result.mious != exact.mious
    assert result.mious == pytest.approx(exact.mious, abs=0.1)


def test_a_result_says_what_it_is(checkpoint, results):
    result = EvaluationResult.load(results)
    assert (result.method, result.fold, result.shots, result.seeds) == ("SCNet", 0, 1, (0, 1))
    assert result.protocol == "synthetic with train_size 49, test_size 49 with episodes 25, seeds (0, 1)"
    assert results.name == f"last-{result.protocol_hash}-fold0-1shot.json"
    assert result.model["recipe"]["model"]["num_prototypes"] == 3
    assert result.model["iteration"] == 6
    assert result.model["trained under"].startswith("synthetic with train_size 49, test_size 49 (")
    assert list(result.reports[0]["per_class"]) == [SyntheticSource(1).class_names[class_id] for class_id in NOVEL]


def test_two_processes_with_uneven_shares_give_exactly_the_numbers_of_one(checkpoint, results, tmp_path):
    arguments = ["evaluate", str(checkpoint), *SHORT, "--out", str(tmp_path / "out")]
    run_together(run_share, 2, str(tmp_path / "store"), arguments)
    (path,) = (tmp_path / "out").iterdir()
    one, two = (json.loads(each.read_text()) for each in (results, path))
    assert one.pop("date") <= two.pop("date")
    assert one == two


def test_folds_make_a_table(results, tmp_path, capsys):
    content = json.loads(results.read_text())
    paths = [tmp_path / f"{fold}.json" for fold in range(4)]
    for fold, path in enumerate(paths):
        path.write_text(json.dumps({**content, "fold": fold}))
    assert main(["evaluate", "--table", *map(str, paths)]) == 0
    header, _, row, _, how = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "| method | shots | Fold-0 | Fold-1 | Fold-2 | Fold-3 | Mean |"
    assert len(set(row.replace(" ", "").split("|")[3:8])) == 1
    assert content["protocol_hash"] in how


def test_five_shots_and_another_name(checkpoint, tmp_path, capsys):
    how = ["--shots", 1, 5, "--images", 200, "--method", "ours", "--batch", 4]
    found = results_of(tmp_path, checkpoint, *SHORT[:-2], *how)
    assert list(found) == [1, 5]
    assert {result.method for result in found.values()} == {"ours"}
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[1:3] for row in rows if row[1:2] == ["ours"]] == [["ours", "1"], ["ours", "5"]]


def test_episodes_that_cannot_be_drawn_are_said_before_any_are_measured(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "score", lambda *_, **__: pytest.fail("measured"))
    assert main(["evaluate", str(checkpoint), *SHORT, "--shots", "1", "30", "--out", str(tmp_path / "out")]) == 2
    assert "class_ids must be classes with at least 31 images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_done_is_saved_when_the_rest_fails(checkpoint, tmp_path, monkeypatch, capsys):
    score, calls = evaluate.score, []

    def full_after_two_seeds(*arguments, **settings):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device", "somewhere")
        return score(*arguments, **settings)

    monkeypatch.setattr(evaluate, "score", full_after_two_seeds)
    shots = ["--shots", "1", "2", "--images", "200"]
    assert main(["evaluate", str(checkpoint), *SHORT, *shots, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "fewshotseg evaluate: somewhere: No space left on device\n"
    (path,) = tmp_path.iterdir()
    assert EvaluationResult.load(path).shots == 1


def test_results_lie_beside_the_checkpoint(checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "mine.pth")
    assert main(["evaluate", str(tmp_path / "mine.pth"), *SHORT]) == 0
    assert len([*tmp_path.glob("mine-*-fold0-1shot.json")]) == 1


def test_checkpoints_from_elsewhere(tmp_path):
    torch.manual_seed(0)
    other = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0, 0.5))
    fs.save_weights(other, tmp_path / "theirs.pth")
    where = ["--benchmark", "synthetic", *TINY[1:5], "--backbone", "mobilenet_v2", "--model", *MODEL]
    result = results_of(tmp_path / "out", tmp_path / "theirs.pth", *SHORT, *where, "--episodes", "15")[1]
    assert result.method == "PFENet"
    assert result.model["weights"] == "theirs.pth"
    assert result.model["model"]["hidden_channels"] == 8
    assert result.model["model"]["image_size"] == 49
    assert result.reports[0]["episodes"] == 15


def test_other_folders_may_be_another_fold(tmp_path, capsys):
    items = {f"{c}{n}": [c] for c in (1, 2, 3, 4) for n in range(3)}
    small = ("--size", 33, "--backbone", "tiny", "--pretrain", 1, "--iterations", 1, "--model", "hidden_channels=8")
    own, other = make_folder(tmp_path / "own", items), make_folder(tmp_path / "other", {"a": [7], "b": [7], "c": [7]})
    run = tmp_path / "run"
    assert main(["train", "folders", "--data", str(own), "--out", str(run), *map(str, small)]) == 0
    capsys.readouterr()
    for data, fold in ((own, 1), (other, 0)):
        assert main(["evaluate", str(run / "last.pth"), *SHORT, "--data", str(data), "--fold", str(fold)]) == 2
    wrong, empty = capsys.readouterr().err.splitlines()
    assert "fold must be 0, as the model was trained on classes of other folds, got 1" in wrong
    assert "fold must be 3 to test on a class that was not trained on" in empty
    result = results_of(tmp_path / "out", run / "last.pth", *SHORT, "--data", other, "--fold", 3)[1]
    assert list(result.reports[0]["per_class"]) == ["7"]


def test_an_own_protocol_is_told_from_others():
    assert BENCHMARKS["synthetic"].hash() not in {protocol.hash() for protocol in PROTOCOLS.values()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", "1"], "fold must be 0, as the model was trained on classes of other folds, got 1"),
        (["--protocol", "pfenet-pascal"], "protocol must be one of synthetic's, got pfenet-pascal"),
        (["--model", "num_prototypes=0"], "model must not be given without backbone"),
        (["--device", "gpu"], "device must be one that this machine has"),
        (["--backbone", "resnet50s"], "benchmark must be given"),
        (["--backbone", "mobilenet_v2", "--benchmark", "synthetic"], "must be of a model with backbone"),
        (["--shots", "0"], "shots must be at least 1, got 0"),
        (["--threshold", "0"], "threshold must be"),
        (["--batch", "0"], "batch must be at least 1, got 0"),
        (["--benchmark", "synthetic", "--images", "0"], "images must be at least 1, got 0"),
        (["--benchmark", "coco"], "data must be one folder for coco, got 0"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_done_is_said_in_one_sentence(options, message, checkpoint, tmp_path, capsys):
    assert main(["evaluate", str(checkpoint), *SHORT, "--out", str(tmp_path / "out"), *options]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("fewshotseg evaluate: ")
    assert message in said
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_or_something_else(checkpoint, tmp_path, capsys):
    (tmp_path / "text.pth").write_text("no checkpoint")
    save_model(load_model(checkpoint), tmp_path / "shared.pth", origin={"note": "of somebody"})
    content = torch.load(checkpoint, weights_only=True)
    content["origin"]["iteration"] = 7
    torch.save(content, tmp_path / "changed.pth")
    for arguments, message in {
        ("missing.pth",): "missing.pth",
        ("text.pth",): "needs --backbone and --benchmark",
        ("changed.pth",): "it is damaged or cut off",
        ("shared.pth",): "benchmark must be given for",
        ("--table", "text.pth"): "text.pth must be a result",
        ("nothing",): "name must be a file",
        (): "either a checkpoint or --table must be given",
    }.items():
        words = [str(tmp_path / word) if word.endswith(".pth") else word for word in arguments]
        assert main(["evaluate", *words]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert message in said


def test_a_checkpoint_without_its_settings_of_data_is_refused(checkpoint, tmp_path, capsys):
    origin = {**read_model(checkpoint).origin, "data": {"benchmark": "synthetic"}}
    save_model(load_model(checkpoint), tmp_path / "odd.pth", origin=origin)
    assert main(["evaluate", str(tmp_path / "odd.pth")]) == 2
    assert "data must be the settings of a training run" in capsys.readouterr().err


def test_a_model_whose_record_holds_texts_is_no_training_run(checkpoint, tmp_path, capsys):
    """As that of scnet-lite0 is."""
    origin = {"data": "photographs", "recipe": {"lr": 0.1}, "protocol": "folders", "iteration": 3}
    save_model(load_model(checkpoint), tmp_path / "shared.pth", origin=origin)
    where = ["--benchmark", "synthetic", "--images", "90", "--size", "49"]
    result = results_of(tmp_path / "out", tmp_path / "shared.pth", *SHORT, *where)[1]
    assert result.model["data"] == "photographs"


def test_no_result_of_another_model_is_replaced(checkpoint, tmp_path, capsys):
    """Checkpoints of several runs are all called last.pth."""
    out = tmp_path / "out"
    origin = {"note": "the same for all"}
    where = ["--benchmark", "synthetic", "--images", "90", "--size", "49", "--out", out, *SHORT]
    models = [load_model(checkpoint), load_model(checkpoint), load_model(checkpoint)]
    models[1].config = replace(models[1].config, density_weight=0.5)
    with torch.no_grad():
        next(iter(models[2].head.parameters())).mul_(1.5)
    for number, model in enumerate(models):
        place = tmp_path / str(number) / "last.pth"
        place.parent.mkdir()
        save_model(model, place, origin=origin)
        for _ in range(2):  # the result of the same model is replaced
            assert main(["evaluate", str(place), *map(str, where)]) == 0
        assert len([*out.iterdir()]) == number + 1
    assert main(["evaluate", str(place), *map(str, where), "--method", "ours"]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 4
    assert len([name for name in names if re.fullmatch(r"last-\w+-fold0-1shot-[0-9a-f]{8}\.json", name)]) == 3
    assert names[-1].endswith("-fold0-1shot.json")
    assert f"saved {out / names[0]}\n" in capsys.readouterr().out


def test_a_file_of_somebody_else_is_kept(checkpoint, results, tmp_path):
    (tmp_path / results.name).write_text("my notes")
    assert main(["evaluate", str(checkpoint), *SHORT, "--out", str(tmp_path)]) == 0
    assert (tmp_path / results.name).read_text() == "my notes"
    assert len([*tmp_path.iterdir()]) == 2


def test_a_file_as_folder_is_refused_before_any_work(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "open_subject", lambda *_: pytest.fail("opened"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["evaluate", str(checkpoint), *SHORT, "--out", "file"]) == 2
    assert capsys.readouterr().err == "fewshotseg evaluate: out must be a folder, but file is a file\n"


def test_the_training_free_model(tmp_path, capsys):
    how = ["--benchmark", "synthetic", "--fold", "1", "--size", "49", "--images", "90", *SHORT, "--backbone", "tiny"]
    (result,) = results_of(tmp_path / "a", "prototypes", *how).values()
    assert result.method == "training-free, density"
    assert (result.model["model"]["backbone"], result.model["threshold"]) == ("tiny", 0.3)
    (other,) = results_of(tmp_path / "b", "prototypes", *how, "--model", "score=cosine").values()
    assert other.method == "training-free, cosine"
    assert other.episodes_hashes == result.episodes_hashes
    assert other.reports != result.reports
    capsys.readouterr()
    for arguments, message in (
        (["prototypes"], "benchmark must be given for prototypes"),
        (["prototypes", *how, "--model", "hidden_channels=8"], "model must name fields of PrototypeConfig"),
        (["scnet-lite0", "--backbone-weights", "package"], "backbone_weights must go with the model prototypes"),
    ):
        assert main(["evaluate", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_training_free_model_from_a_file(tmp_path):
    torch.manual_seed(0)
    model = fs.build_prototype_segmenter("tiny")
    save_model(model, tmp_path / "mine.pth")
    how = ["--benchmark", "synthetic", "--fold", "1", "--size", "49", "--images", "90", *SHORT]
    (result,) = results_of(tmp_path / "out", tmp_path / "mine.pth", *how).values()
    assert result.method == "training-free, density"
    assert result.reports[0]["episodes"] == 25
