"""The study: every number from a file, equal episodes for all rows, nothing run twice, paired differences."""

import importlib.util
import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from prototypes import NearestPrototype
from scipy import stats

import fewshotseg as fs
import study
from _folders import make_folder
from fewshotseg.data import EpisodeDataset, SyntheticSource, hsnet_eval
from fewshotseg.models.backbones.tiny import TinyBackbone
from fewshotseg.ops import resize_bilinear
from fewshotseg.training import loop as train
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings, KeptSource, draw_test, open_benchmark, open_folder

DOCS = Path(__file__).parents[2] / "docs"
TINY = [
    *("synthetic", "--images", "300", "--size", "33", "--device", "cpu", "--pretrain", "4"),
    *("--iterations", "4", "--batch", "2", "--lr", "0.003", "--episodes", "20", "--model", "hidden_channels=8"),
    *("bins=1.0,0.5", "--looks", "2"),
]
CELL = ["--folds", "1", "--seeds", "0"]


@pytest.fixture(scope="module")
def make_results():
    spec = importlib.util.spec_from_file_location("make_results", DOCS / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    run(out, "--rows", "prototypes", "pfenet", "scnet", "n2", *CELL)
    return out


def run(out, *options):
    study.main([*TINY, "--out", str(out / "results"), "--runs", str(out / "runs"), *map(str, options)])


def results_in(out):
    return {path.name: json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))}


def without_times(result):
    return {key: value for key, value in result.items() if key not in {"date", "seconds"}}


# Runs


def test_every_cell_has_a_file_with_its_numbers(finished):
    results = results_in(finished)
    assert list(results) == [f"{row}-fold1-seed0.json" for row in ("n2", "pfenet", "prototypes", "scnet")]
    for result in results.values():
        for report in result["results"].values():
            assert report["episodes"] == len(report["counts"]) == 20
            ious = []
            for class_id in sorted({class_id for class_id, *_ in report["counts"]}):
                both, either, truth = np.array([c[1:] for c in report["counts"] if c[0] == class_id]).sum(axis=0)
                assert both <= truth <= either
                ious.append(both / either)
            assert report["miou"] == pytest.approx(np.mean(ious))
            assert report["at"]["0.5"] == report["miou"]
            assert len(set(report["at"].values())) > 1 or report["top"] < 0.2
    scnet = results["scnet-fold1-seed0.json"]
    assert [point["iteration"] for point in scnet["watched"]] == [2, 4]
    assert {"main", "aux", "self_contrast_main", "self_contrast_aux"} < scnet["losses"][-1].keys()
    assert "self_contrast_main" not in results["pfenet-fold1-seed0.json"]["losses"][-1]
    assert scnet["recipe"]["model"]["self_contrast_weight"] == 0.5
    assert "watched" not in results["prototypes-fold1-seed0.json"]


def test_other_thresholds_count_other_pixels():
    metric = study.Counted([3])
    probability, target = torch.tensor([[[0.1, 0.35, 0.55, 0.9]]]), torch.tensor([[[0, 1, 1, 1]]])
    metric.update(torch.stack([1 - probability, probability], dim=1).log(), target, 3)
    found = {threshold: at.compute().miou for threshold, at in metric.at.items()}
    assert found == pytest.approx({0.2: 1, 0.3: 1, 0.4: 2 / 3, 0.5: 2 / 3, 0.6: 1 / 3, 0.7: 1 / 3})


def test_rows_share_test_episodes_and_differ_in_their_setting_alone(finished):
    results = results_in(finished)
    for shots in ("1-shot", "5-shot"):
        assert len({result["results"][shots]["episodes_hash"] for result in results.values()}) == 1
    recipes = [results[f"{row}-fold1-seed0.json"]["recipe"] for row in ("scnet", "n2")]
    assert [recipe["model"].pop("num_prototypes") for recipe in recipes] == [3, 2]
    assert recipes[0] == recipes[1]


def test_the_command_in_a_file_makes_its_numbers_again(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = results_in(finished)["scnet-fold1-seed0.json"]
    program, script, *arguments = shlex.split(before["command"])
    assert (program, script) == ("python", "examples/study.py")
    study.main(arguments)
    after = json.loads((tmp_path / "again" / "scnet-fold1-seed0.json").read_text())
    assert after["results"] == before["results"]
    assert after["losses"][-1] == before["losses"][-1]
    assert after["command"] == before["command"]


def test_looking_at_a_model_changes_nothing(finished, tmp_path):
    run(tmp_path, "--rows", "scnet", *CELL, "--looks", "4")
    (again,) = results_in(tmp_path).values()
    before = results_in(finished)["scnet-fold1-seed0.json"]
    assert len(again["watched"]) == 4
    assert again["results"] == before["results"]


def test_interrupted_it_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    calls, look = [], study.look

    def stop_in_the_second_run(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # two looks a run: at the end of the second training
            raise KeyboardInterrupt
        return look(*arguments)

    rows = ["--rows", "pfenet", "scnet", *CELL]
    with monkeypatch.context() as patch:
        patch.setattr(study, "look", stop_in_the_second_run)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *rows)
    (first,) = results_in(tmp_path)
    written = (tmp_path / "results" / first).stat().st_mtime_ns
    run(tmp_path, *rows)
    assert (tmp_path / "results" / first).stat().st_mtime_ns == written
    for name, result in results_in(tmp_path).items():
        assert without_times(result)["results"] == results_in(finished)[name]["results"]
    monkeypatch.setattr(train, "run", None)
    run(tmp_path, *rows)  # nothing is left to do


def test_bad_requests_end_with_a_sentence(capsys):
    with pytest.raises(SystemExit) as stop:
        study.main(["folders"])
    assert stop.value.code == 2
    assert "data must be at least one folder for folders, got 0" in capsys.readouterr().err


def test_any_prefix_of_the_order_is_useful():
    order = study.cells(None, None, (0, 1, 2))
    main = len(study.ORDER[0][1]) * (1 + 2 * 3)
    assert {cell.row for cell in order[:main]} == {"prototypes", "pfenet", "scnet"}
    assert [cell[1:] for cell in order[:3]] == [(0, 0)] * 3
    assert sum(cell.row == "prototypes" for cell in order) == 4
    assert len(set(order)) == len(order)
    assert study.cells(["scnet"], [2], [5, 4]) == [("scnet", 2, 5), ("scnet", 2, 4)]
    assert study.Cell("scnet", 2, 5).file == "scnet-fold2-seed5.json"


def test_rows_are_settings_that_a_model_can_have():
    models = {}
    for name, row in study.ROWS.items():
        models[name] = (None if row.model is None else fs.SCNetConfig(**row.model), row.novel)
    assert models["scnet"][0] == fs.SCNetConfig()
    assert models["grid3"][0] == fs.SCNetConfig(grid_bins=3)
    assert models["lambda0.3"][0] == fs.SCNetConfig(self_contrast_weight=0.3)
    assert models["scnet-hidden"] == (fs.SCNetConfig(), "background")
    assert models["pfenet-void"] == (models["pfenet"][0], "ignore")
    assert len({str(model) for model in models.values()}) == len(models)


# What runs share


def test_hidden_objects_come_from_images_that_are_not_tested_on(tmp_path):
    first = make_folder(tmp_path / "first", {"a": [1], "b": [1, 3], "c": [3], "d": [2, 4], "e": [4]})
    second = make_folder(tmp_path / "second", {"f": [1], "g": [2, 3], "h": [3], "i": [4]})
    trained = {}
    for novel in ("drop", "background", "ignore"):
        protocol = replace(BENCHMARKS["folders"], novel_in_training=novel)
        data = DataSettings(benchmark="folders", data=(str(first), str(second)), fold=2, protocol=protocol)
        benchmark = open_benchmark(data)
        assert benchmark.split.novel == (3,)
        assert list(benchmark.test.ids) == ["b", "c"]
        trained[novel] = list(benchmark.train.ids)
    assert trained["drop"] == ["a", "d", "e", "f", "i"]
    assert trained["background"] == trained["ignore"] == ["a", "d", "e", "f", "g", "h", "i"]
    with pytest.raises(ValueError, match="novel must be 'drop' for one folder"):
        DataSettings(benchmark="folders", data=(str(first),), protocol=protocol)


def test_a_kept_source_decodes_once(tmp_path, monkeypatch):
    source = open_folder(make_folder(tmp_path / "own", {"a": [1, 255], "b": [3]}))
    kept = KeptSource(source)
    assert (kept.ids, kept.class_names, kept.class_areas) == (source.ids, source.class_names, source.class_areas)
    expected = [source.load(index) for index in (0, 1)]
    for _ in range(2):
        for index, sample in enumerate(expected):
            found = kept.load(index)
            assert type(found.image) is type(sample.image)
            assert (type(found.mask), found.mask.dtype) == (type(sample.mask), torch.int64)
            assert torch.equal(found.image, sample.image)
            assert torch.equal(found.mask, sample.mask)
        monkeypatch.setattr(source, "load", None)


def test_memory_leaves_masked_supports_out():
    memory, calls = study.QueryMemory(2**20), []

    def stage(*inputs):
        calls.append(len(inputs))
        return (inputs[0] + 1,)

    images, masks = torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4)
    for _ in range(2):
        assert torch.equal(memory("mid", stage, images)[0], images + 1)
        assert torch.equal(memory("masked", stage, images, masks)[0], images + 1)
    assert calls == [1, 1, 2, 2]


@pytest.mark.parametrize("shots", [1, 3])
def test_training_free_prototypes_against_plain_loops(shots):
    backbone = TinyBackbone().eval()
    source = SyntheticSource(40, num_classes=6, size=48)
    episodes = EpisodeDataset(source, [1, 2], shots=shots, length=6, transform=hsnet_eval(49))
    model, asked = NearestPrototype(backbone).eval(), []

    class Recorder(fs.FewShotIoU):
        def update(self, prediction, target, class_ids):
            asked.append(prediction)
            super().update(prediction, target, class_ids)

    fs.evaluate(model, episodes, Recorder([1, 2]))
    order = sorted(range(len(episodes)), key=lambda n: (episodes.spec(n).class_id, episodes.spec(n).query))
    for number, logits in zip(order, asked, strict=True):
        episode = episodes[number]
        with torch.no_grad():
            maps = backbone.mid(episode.support_images)[0]
            query = backbone.mid(episode.query_image[None])[0][0]
        expected = torch.zeros(2, *query.shape[1:])
        for label in (0, 1):
            prototype = torch.zeros(query.shape[0])
            for features, mask in zip(maps, episode.support_masks, strict=True):
                weights = resize_bilinear((mask == label).float()[None, None], features.shape[1:])[0, 0]
                prototype += (features * weights).sum(dim=(1, 2)) / weights.sum() / shots
            for i, j in np.ndindex(*query.shape[1:]):
                cosine = query[:, i, j] @ prototype / (query[:, i, j].norm() * prototype.norm())
                expected[label, i, j] = cosine
        torch.testing.assert_close(logits, resize_bilinear(expected[None], (49, 49)), atol=1e-4, rtol=1e-4)


def test_watched_models_are_tested_on_the_first_test_episodes():
    protocol = replace(BENCHMARKS["synthetic"], test_size=33)
    data = DataSettings(benchmark="synthetic", fold=1, images=300, protocol=protocol)
    benchmark = open_benchmark(data)
    few, many = (
        draw_test(benchmark, replace(data.protocol, episodes=n), TinyBackbone(), shots=1, seed=0) for n in (5, 30)
    )
    assert list(few.specs) == list(many.specs)[:5]


# Arithmetic


def test_estimates_against_literals(make_results):
    # Fold means 2 and 11; squares 1 + 1 + 1 + 1 over 2 degrees of freedom: variance 2. Error of the mean of two folds:
    # sqrt(2 (1/2 + 1/2)) / 2 = 0.7071; t(0.975, 2) = 4.3027.
    found = make_results.estimate({(0, 0): 1.0, (1, 0): 3.0, (0, 1): 10.0, (1, 1): 12.0})
    assert found.mean == 6.5
    assert found.spread == pytest.approx(math.sqrt(2))
    assert found.half == pytest.approx(3.0424, abs=1e-4)
    assert found.tells
    single = make_results.estimate({(0, 0): 1.0, (0, 1): 2.0})
    assert single.mean == 1.5
    assert math.isnan(single.half)
    assert not single.tells


def test_estimates_of_one_fold_are_those_of_scipy(make_results):
    values = [0.3, -0.1, 0.25, 0.6]
    found = make_results.estimate({(seed, 2): value for seed, value in enumerate(values)})
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_differences_are_paired(make_results):
    first = {(0, 0): 5.0, (1, 0): 7.0, (0, 1): 9.0}
    second = {(0, 0): 4.0, (1, 0): 9.0, (2, 0): 1.0}
    assert make_results.paired(first, second) == {(0, 0): 1.0, (1, 0): -2.0}
    assert make_results.interval({(0, 0): 1.0, (1, 0): -2.0}) == "-0.5 (-19.6 to +18.6)"  # 12.706 * 1.5
    assert make_results.interval({(0, 0): 1.0}) == "+1.0"
    assert make_results.interval({}) == "-"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 1.2, 1.1], "is higher by 1.1 points (95 % interval +0.9 to +1.3)"),
        ([-1.0, -1.2, -1.1], "is lower by 1.1 points (95 % interval -1.3 to -0.9)"),
        ([-1.0, 1.2, 0.1], "cannot be told from it (+0.1, 95 % interval -2.6 to +2.8)"),
        ([1.0], "differs by +1.0 in a single seed, which says little"),
    ],
)
def test_verdicts_say_what_intervals_say(make_results, values, words):
    assert make_results.verdict({(seed, 0): value for seed, value in enumerate(values)}) == words


def test_results_of_other_episodes_are_refused(make_results, finished, tmp_path):
    files = results_in(finished)
    files["scnet-fold1-seed0.json"]["results"]["5-shot"]["episodes_hash"] = "another"
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="those of fold 1 are not"):
        make_results.Study(tmp_path.glob("*.json"))


# The page


def test_a_page_of_any_prefix_of_the_study(make_results, finished):
    files = [finished / "results" / f"{row}-fold1-seed0.json" for row in ("prototypes", "pfenet", "scnet", "n2")]
    for number in range(2, 5):
        text = make_results.page(make_results.Study(files[:number]))
        assert ("Table 3" in text) == (number == 4)
    value = 100 * json.loads(files[1].read_text())["results"]["1-shot"]["miou"]
    assert f"| PFENet (λ = 0)         | {value:6.1f} |" in text


def study_of(make_results, folder, at):
    """A study of one fold and seed that knows nothing but mIoU at thresholds."""
    for row, mious in at.items():
        result = {"miou": mious["0.5"], "at": mious, "counts": [[1, 2, 3, 4]]}
        results = {shots: {**result, "episodes_hash": shots} for shots in ("1-shot", "5-shot")}
        content = {"row": row, "fold": 0, "seed": 0, "results": results}
        (folder / f"{row}.json").write_text(json.dumps(content))
    return make_results.Study(folder.glob("*.json"))


def test_ablations_against_literals(make_results, tmp_path):
    at = {"pfenet": {"0.4": 0.5, "0.5": 0.3}, "scnet": {"0.4": 0.47, "0.5": 0.45}, "n2": {"0.4": 0.35, "0.5": 0.42}}
    rows = {"2": "n2", "3": "scnet"}
    lines = make_results.ablation_section(
        study_of(make_results, tmp_path, at), "table3", "A title", rows, "A sentence."
    )
    section = re.sub(" +", " ", "\n".join(lines))
    assert "| n | 1-shot − PFENet | 5-shot − PFENet | 1-shot, best thresholds | 1-shot − SCNet | seeds |" in section
    assert "| 2 | +12.0 | +12.0 | -8.0 | -3.0 | 1 |" in section
    assert "| 3 | +15.0 | +15.0 | -3.0 | | 1 |" in section


def test_thresholds_against_literals(make_results, tmp_path):
    at = {"pfenet": {"0.4": 0.5, "0.5": 0.3}, "scnet": {"0.4": 0.45, "0.5": 0.4}}
    section = "\n".join(make_results.threshold_section(study_of(make_results, tmp_path, at)))
    assert re.search(r"SCNet − PFENet, 1-shot +\| +-5.0 \| +\+10.0 \|", section)
    assert "PFENet is best at 0.4, SCNet at 0.4, and there the difference is -5.0 instead of +10.0" in section


@pytest.mark.skipif(not (DOCS / "results").exists(), reason="no result files")
def test_the_page_is_what_the_files_make(make_results):
    study_of_docs = make_results.Study((DOCS / "results").glob("*.json"))
    assert make_results.page(study_of_docs) == (DOCS / "results.md").read_text(encoding="utf-8")
