"""Evaluation: the numbers of a plain loop, on any number of processes, saved with what they mean."""

import json

import evaluate
import pytest
import torch

import fewshotseg as fs
from _processes import run_together
from _training import MODEL, TINY, run_share, training
from fewshotseg.data import PROTOCOLS, EpisodeDataset, SyntheticSource, episodes_hash, pascal5i, pfenet_eval
from fewshotseg.results import EvaluationResult
from fewshotseg.training import loop as train
from fewshotseg.training.benchmark import SYNTHETIC

SHORT = ["--device", "cpu", "--episodes", "25", "--seeds", "0", "1", "--shots", "1"]
NOVEL = pascal5i(0).novel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    options = ["--iterations", 6, "--lr", 0.01, "--model", *MODEL, "self_contrast_weight=1"]
    return train.main(training(out, *options)).checkpoint


@pytest.fixture(scope="module")
def results(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    evaluate.main([str(checkpoint), *SHORT, "--out", str(out)])
    (path,) = out.iterdir()
    return path


def test_numbers_are_those_of_the_library(checkpoint, results):
    result = EvaluationResult.load(results)
    model, _ = train.load_model(checkpoint)
    source = SyntheticSource(30, num_classes=20, size=48, seed=1)
    for seed, report, digest in zip((0, 1), result.reports, result.episodes_hashes, strict=True):
        episodes = EpisodeDataset(source, NOVEL, length=25, seed=seed, transform=pfenet_eval(49))
        metric = fs.FewShotIoU(NOVEL, class_names={class_id: source.class_names[class_id] for class_id in NOVEL})
        assert report == fs.evaluate(model, episodes, metric, scoring="original").to_dict()
        assert 0 < report["miou"] < 1
        assert digest == episodes_hash(episodes.specs)


def test_another_threshold(checkpoint, tmp_path):
    (result,) = evaluate.main([str(checkpoint), *SHORT, "--threshold", "0.2", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [f"last-{result.protocol_hash}-fold0-1shot-from0.2.json"]
    assert result.model["threshold"] == 0.2
    model, _ = train.load_model(checkpoint)
    episodes = EpisodeDataset(SyntheticSource(30, num_classes=20, size=48, seed=1), NOVEL, length=25,
                              transform=pfenet_eval(49))  # fmt: skip

    class FromAFifth(fs.FewShotIoU):
        def update(self, prediction, target, class_ids):
            super().update(prediction.softmax(dim=1)[:, 1] > 0.2, target, class_ids)

    expected = fs.evaluate(model, episodes, FromAFifth(NOVEL), scoring="original")
    assert result.reports[0]["miou"] == pytest.approx(expected.miou, abs=1e-4)


def test_mixed_precision(checkpoint, results, tmp_path):
    (result,) = evaluate.main([str(checkpoint), *SHORT, "--amp", "bfloat16", "--out", str(tmp_path)])
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
    arguments = [str(checkpoint), *SHORT, "--out", str(tmp_path / "out")]
    run_together(run_share, 2, str(tmp_path / "store"), "evaluate", arguments)
    (path,) = (tmp_path / "out").iterdir()
    one, two = (json.loads(each.read_text()) for each in (results, path))
    assert one.pop("date") <= two.pop("date")
    assert one == two


def test_folds_make_a_table(results, tmp_path, capsys):
    content = json.loads(results.read_text())
    paths = [tmp_path / f"{fold}.json" for fold in range(4)]
    for fold, path in enumerate(paths):
        path.write_text(json.dumps({**content, "fold": fold}))
    evaluate.main(["--table", *map(str, paths)])
    header, _, row, _, how = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "| method | shots | Fold-0 | Fold-1 | Fold-2 | Fold-3 | Mean |"
    assert len(set(row.replace(" ", "").split("|")[3:8])) == 1
    assert content["protocol_hash"] in how


def test_five_shots_and_another_name(checkpoint, tmp_path, capsys):
    shots = ["--shots", "1", "5", "--images", "200", "--out", str(tmp_path), "--method", "ours", "--batch", "4"]
    one, five = evaluate.main([str(checkpoint), *SHORT[:-2], *shots])
    assert (one.shots, five.shots, one.method) == (1, 5, "ours")
    assert len(list(tmp_path.iterdir())) == 2
    assert "|   ours |     5 |" in capsys.readouterr().out


def test_checkpoints_from_elsewhere(tmp_path):
    torch.manual_seed(0)
    other = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0, 0.5))
    fs.save_weights(other, tmp_path / "theirs.pth")
    where = ["--benchmark", "synthetic", *TINY[1:5], "--backbone", "mobilenet_v2", "--model", *MODEL]
    (result,) = evaluate.main(
        [str(tmp_path / "theirs.pth"), *SHORT, *where, "--episodes", "15", "--out", str(tmp_path)]
    )
    assert result.method == "PFENet"
    assert result.model["weights"] == "theirs.pth"
    assert result.model["model"]["hidden_channels"] == 8
    assert result.reports[0]["episodes"] == 15


def test_an_own_protocol_is_told_from_others():
    assert SYNTHETIC.hash() not in {protocol.hash() for protocol in PROTOCOLS.values()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", "1"], "fold must be 0, as the model was trained on classes of other folds, got 1"),
        (["--protocol", "pfenet-pascal"], "protocol must be one of synthetic's, got pfenet-pascal"),
        (["--model", "num_prototypes=0"], "model and backbone must not be given for checkpoints of train.py"),
        (["--backbone", "resnet50s"], "benchmark must be given"),
        (["--backbone", "mobilenet_v2", "--benchmark", "synthetic"], "must fit the model"),
        (["--shots", "30"], "class_ids must be classes with at least 31 images"),
        (["--threshold", "0"], "threshold must be between 0 and 1, got 0.0"),
        (["--batch", "0"], "batch_size must be at least 1, got 0"),
        (["--benchmark", "coco"], "data must be one folder for coco, got 0"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_done_is_said_in_one_sentence(options, message, checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        evaluate.main([str(checkpoint), *SHORT, "--out", str(tmp_path / "out"), *options])
    assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_or_something_else(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("no checkpoint")
    for arguments in (
        [str(tmp_path / "missing.pth")],
        [str(tmp_path / "text.pth")],
        ["--table", str(tmp_path / "text.pth")],
        [],
    ):
        with pytest.raises(SystemExit) as exit_info:
            evaluate.main(arguments)
        assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert "missing.pth" in said
    assert "text.pth must be a checkpoint of train.py" in said
    assert "text.pth must be a result" in said
    assert "either a checkpoint or --table must be given" in said
