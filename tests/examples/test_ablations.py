"""Ablations: one run for each setting, found again after a kill and by other tables; tables that say what was run."""

import json
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import ablations
import evaluate
import numpy as np
import pytest
import torch
from ablation_tables import ABLATIONS, differences, estimate, markdown, over_folds, report
from scipy import stats

import overlays
from _folders import make_folder
from fewshotseg import SCNetConfig, build_scnet
from fewshotseg.data import EpisodeDataset, SyntheticSource, pascal5i
from fewshotseg.models.backbones.tiny import TinyBackbone
from fewshotseg.results import EvaluationResult
from fewshotseg.training import loop as train
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings
from fewshotseg.training.recipe import RECIPES

TINY = [
    *("synthetic", "--folds", "1", "--images", "300", "--size", "33", "--device", "cpu", "--pretrain", "8"),
    *("--iterations", "12", "--save-every", "1", "--batch", "2", "--lr", "0.003", "--episodes", "30"),
    *("--model", "hidden_channels=8", "bins=1.0,0.5"),
]
SYNTHETIC = DataSettings(benchmark="synthetic", protocol=BENCHMARKS["synthetic"])


def run(what, *options):
    ablations.main([what, *TINY, *map(str, options)])


def run_of(name, row, data=SYNTHETIC, recipe=RECIPES["synthetic"]):
    model = replace(recipe.model, **ABLATIONS[name].rows[row])
    return ablations.run_name(replace(recipe, model=model), data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablations")
    run("table3", "--values", 3, 0, "--seeds", 0, 1, "--out", out)
    return out


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("trained or tested again")

    monkeypatch.setattr(train, "run", refuse)
    monkeypatch.setattr(evaluate, "run", refuse)


def cells_of(out, name):
    return json.loads((out / f"{name}.json").read_text())["cells"]


# Runs


def test_every_cell_differs_in_its_setting_alone(finished):
    recipes, episodes = [], set()
    for cell in cells_of(finished, "table3"):
        results = {
            shots: EvaluationResult.load(finished / "runs" / cell["run"] / f"result-{shots}shot.json")
            for shots in (1, 5)
        }
        assert [results[shots].shots for shots in results] == [1, 5]
        assert [statistics.fmean(result.mious) for result in results.values()] == [cell["1-shot"], cell["5-shot"]]
        recipe = results[1].model["recipe"]
        assert results[5].model["recipe"] == recipe
        assert recipe.pop("seed") == cell["seed"]
        model = recipe.pop("model")
        weight, n = model.pop("self_contrast_weight"), model.pop("num_prototypes")
        assert (cell["row"], weight, n) in {("0", 0, 0), ("3", 0.5, 3)}
        recipes.append(recipe | model)
        episodes.add(tuple(result.episodes_hashes for result in results.values()))
    assert len(recipes) == 4
    assert all(recipe == recipes[0] for recipe in recipes)
    assert len(episodes) == 1
    assert len({cell["1-shot"] for cell in cells_of(finished, "table3")}) > 1  # or the tests of tables show nothing


def test_table_files_agree_with_the_results(finished):
    cells = {(cell["row"], cell["seed"]): 100 * cell["5-shot"] for cell in cells_of(finished, "table3")}
    text = (finished / "table3.md").read_text()
    assert text.startswith("# table3, synthetic with train_size 33, test_size 33, episodes 30 (")
    row, difference = (line for line in text.split("## 5-shot")[1].splitlines() if line.startswith("|  3 |"))
    assert f" {(cells['3', 0] + cells['3', 1]) / 2:.1f} ± " in row
    assert f" {(cells['3', 0] - cells['0', 0] + cells['3', 1] - cells['0', 1]) / 2:+.1f} ± " in difference
    assert (finished / "table3.png").stat().st_size > 1000


def test_the_baseline_and_equal_settings_are_one_run_for_all_tables(finished, no_training):
    run("table5", "--values", 0, 0.5, "--seeds", 0, 1, "--out", finished)
    run("table6", "--values", "baseline", "k-means", "--seeds", 1, "--out", finished)
    run("silent", "--values", "zeros/query", "baseline", "--seeds", 0, "--out", finished)
    first = {(cell["row"], cell["seed"]): cell for cell in cells_of(finished, "table3")}
    for table in ("table5", "table6", "silent"):
        for cell in cells_of(finished, table):
            twin = first["0" if cell["row"] in {"0", "baseline"} else "3", cell["seed"]]
            assert {**cell, "row": twin["row"]} == twin
    assert len(list((finished / "runs").iterdir())) == 4


def test_killed_and_started_again_it_ends_with_the_same_bits(finished, tmp_path):
    options = ["--values", "3", "0", "--seeds", "0", "--out", str(tmp_path)]
    runs = [tmp_path / "runs" / cell["run"] for cell in cells_of(finished, "table3")[:2]]
    command = [sys.executable, str(Path(ablations.__file__)), "table3", *TINY, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = monotonic() + 120
        while not (runs[1] / "last.pth").exists():
            assert process.poll() is None, "it ended by itself"
            assert monotonic() < deadline, "nothing happened"
            sleep(0.001)
        process.kill()
    assert not (tmp_path / "table3.md").exists()
    assert train.read_checkpoint(runs[1] / "last.pth")["iteration"] < 12
    first = {path: path.stat().st_mtime_ns for path in runs[0].iterdir()}
    assert {path.name for path in first} == {"last.pth", "log.jsonl", "result-1shot.json", "result-5shot.json"}

    run("table3", *options[:-2], "--out", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in runs[0].iterdir()} == first
    starts = [json.loads(line) for line in (runs[1] / "log.jsonl").read_text().splitlines() if '"event"' in line]
    assert starts[-1]["iteration"] > 0
    assert cells_of(tmp_path, "table3") == cells_of(finished, "table3")[:2]
    for path in runs:
        ours, theirs = (train.read_checkpoint(each / "last.pth") for each in (path, finished / "runs" / path.name))
        assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])


def test_a_result_that_is_missing_is_measured_without_training(finished, tmp_path, monkeypatch):
    cell = cells_of(finished, "table3")[0]
    run_folder = shutil.copytree(finished / "runs" / cell["run"], tmp_path / "runs" / cell["run"])
    lost, checkpoint = run_folder / "result-5shot.json", run_folder / "last.pth"
    kept = EvaluationResult.load(lost)
    before = checkpoint.stat().st_mtime_ns
    lost.unlink()
    asked, measure = [], evaluate.run
    monkeypatch.setattr(evaluate, "run", lambda *a, shots, **k: asked.append(shots) or measure(*a, shots=shots, **k))
    run("table3", "--values", cell["row"], "--seeds", cell["seed"], "--out", tmp_path)
    assert asked == [[5]]
    assert checkpoint.stat().st_mtime_ns == before
    assert replace(EvaluationResult.load(lost), date=kept.date) == kept


def test_names_of_runs_tell_settings_apart():
    recipe, protocol = RECIPES["folders"], BENCHMARKS["folders"]
    data = DataSettings(benchmark="folders", data=("photographs",), protocol=protocol)
    others = [
        (replace(recipe, seed=1), data),
        (replace(recipe, model=replace(recipe.model, kmeans_iters=9)), data),
        (recipe, replace(data, fold=1)),
        (recipe, replace(data, data=("others",))),
        (recipe, replace(data, protocol=replace(protocol, episodes=7))),
    ]
    names = {ablations.run_name(*each) for each in [(recipe, data), *others]}
    assert len(names) == 6
    assert ablations.run_name(recipe, replace(data, data=(str(Path.cwd() / "photographs"),))) in names
    assert all(name.startswith(("fold0-seed321-", "fold0-seed1-", "fold1-seed321-")) for name in names)


@pytest.mark.parametrize("benchmark", RECIPES)
def test_rows_are_settings_that_a_model_can_have(benchmark):
    recipe, data = RECIPES[benchmark], SYNTHETIC
    for name, ablation in ABLATIONS.items():
        assert len({run_of(name, row, data, recipe) for row in ablation.rows}) == len(ablation.rows)
        assert run_of(name, ablation.baseline, data, recipe) == run_of("table3", "0", data, recipe)
        changed = replace(recipe, model=replace(recipe.model, background_prior="shared", background_reducer="support"))
        assert run_of(name, ablation.baseline, data, changed) == run_of("table3", "0", data, recipe)
    same = {run_of(*row, data, recipe) for row in
            [("table3", "3"), ("table5", "0.5"), ("table6", "k-means"), ("silent", "zeros/query")]}  # fmt: skip
    assert same == {ablations.run_name(recipe, data)}
    assert run_of("table4", "query") == run_of("table3", "1")


def test_rows_mean_what_they_are_called():
    assert list(ABLATIONS["table3"].rows) == ["0", "1", "2", "3", "4", "5"]
    assert list(ABLATIONS["table5"].rows) == ["0", "0.1", "0.3", "0.5", "0.7", "0.9", "1"]
    assert list(ABLATIONS["table6"].rows) == ["baseline", "2x2", "3x3", "4x4", "5x5", "k-means"]

    def model(table, row):
        return replace(SCNetConfig(), **ABLATIONS[table].rows[row])

    assert model("table5", "0.9") == SCNetConfig(self_contrast_weight=0.9)
    assert model("table5", "1") == SCNetConfig(self_contrast_weight=1.0)
    assert model("table3", "5") == SCNetConfig(num_prototypes=5)
    assert model("table4", "support") == SCNetConfig(num_prototypes=1, background_source="support")
    assert model("table6", "4x4") == SCNetConfig(grid_bins=4)
    assert model("silent", "shared/support") == SCNetConfig(background_prior="shared", background_reducer="support")
    assert model("silent", "complement/query") == SCNetConfig(background_prior="complement")
    assert ablations.describe(model("table6", "4x4")) == "SCNet(grid_bins=4)"


# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table3", "synthetic", "--values", "0", "6"], "values must be among 0, 1, 2, 3, 4, 5, got 6"),
        (["table3", "pascal", "--out", "nowhere"], "data must be one folder for pascal, got 0"),
        (["table3", *TINY, "--images", "90", "--out", "nowhere"], "classes with at least 6 images (5 supports and a"),
        (["table3", *TINY, "--model", "background_source=support", "--values", "2", "--out", "nowhere"],
         "background_source='support' must go with num_prototypes=1"),
        (["fig5", *TINY, "--checkpoints", "a.pth", "b.pth"], "No such file or directory: 'a.pth'"),
    ],
)  # fmt: skip
def test_bad_requests_end_with_a_sentence_before_anything_is_trained(
    arguments, sentence, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        ablations.main(arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pth"))


# Tables


SCORES = {
    "0": {(0, 0): 0.50, (1, 0): 0.52, (0, 2): 0.40, (1, 2): 0.40},
    "3": {(0, 0): 0.53, (1, 0): 0.54, (0, 2): 0.41},
    "5": {(0, 0): 0.3},
}


def test_a_table_of_several_seeds():
    # t(0.975, 1) = 12.706: seeds 0.50 and 0.52 have a half width of 0.127, means over folds 0.45 and 0.46 of 0.064.
    assert markdown("n", SCORES) == (
        "| n    |      Fold-0 |     Fold-2 |       Mean |\n"
        "| ---- | ----------: | ---------: | ---------: |\n"
        "| 0    | 51.0 ± 12.7 | 40.0 ± 0.0 | 45.5 ± 6.4 |\n"
        "| 3    |  53.5 ± 6.4 |       41.0 |       47.0 |\n"
        "| 5    |        30.0 |          - |          - |"
    )


def test_a_report_of_one_seed():
    scores = {"0": {(7, 1): 0.5, (7, 3): 0.41}, "0.9": {(7, 1): 0.4, (7, 3): 0.45}}
    text = report("table5, own (abc)", ABLATIONS["table5"], {1: scores, 5: {"0.9": scores["0.9"]}}, paper=True)
    assert text.startswith(
        "# table5, own (abc)\n\n"
        "## 1-shot, mIoU in %\n\n"
        "| lambda | Fold-1 | Fold-3 | Mean |                           paper |\n"
        "| ------ | -----: | -----: | ---: | ------------------------------: |\n"
        "| 0      |   50.0 |   41.0 | 45.5 | 61.7 / 69.5 / 55.4 / 56.3: 60.8 |\n"
        "| 0.9    |   40.0 |   45.0 | 42.5 | 59.8 / 69.2 / 60.0 / 53.3: 57.7 |\n\n"
        "Minus the baseline of the same seed and fold:\n\n"
        "| lambda | Fold-1 | Fold-3 | Mean |\n"
        "| ------ | -----: | -----: | ---: |\n"
        "| 0.9    |  -10.0 |   +4.0 | -3.0 |\n\n"
        "## 5-shot, mIoU in %\n\n"
        "| lambda | Fold-1 | Fold-3 | Mean |\n"
        "| ------ | -----: | -----: | ---: |\n"
        "| 0.9    |   40.0 |   45.0 | 42.5 |\n\n"
        "Mean: over these folds. ±: half the 95 % interval over training seeds, here 7.\n\n"
        "paper: what it prints"
    )
    assert "paper" not in report("table5", ABLATIONS["table5"], {1: scores})
    assert "paper" not in report("silent", ABLATIONS["silent"], {1: scores}, paper=True)


def test_rows_that_the_paper_does_not_have():
    text = markdown("from", {"baseline": {(0, 0): 0.5}}, paper=ABLATIONS["table4"].paper)
    assert text.splitlines()[-1] == "| baseline |   50.0 | 50.0 |     - |"


def test_paired_differences_and_their_intervals_against_plain_numpy():
    draw = random.Random(0)
    seeds, folds = (5, 6, 8, 9), (0, 1, 3)
    scores = {row: {(s, f): draw.random() for s in seeds for f in folds} for row in ("base", "a", "b")}
    del scores["base"][8, 1], scores["a"][9, 0]
    found = differences(scores, "base")
    assert list(found) == ["a", "b"]
    for row, pairs in found.items():
        assert pairs.keys() == scores[row].keys() & scores["base"].keys()
        table = np.full((len(seeds), len(folds)), np.nan)
        for i, seed in enumerate(seeds):
            for j, fold in enumerate(folds):
                if (seed, fold) in scores["base"] and (seed, fold) in scores[row]:
                    table[i, j] = scores[row][seed, fold] - scores["base"][seed, fold]
        means = table.mean(axis=1)
        means = means[~np.isnan(means)]  # seeds with every fold
        assert over_folds(pairs, folds) == pytest.approx(means)
        half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
        assert estimate(over_folds(pairs, folds)) == pytest.approx((means.mean(), half), abs=1e-6)
    assert differences(scores, "missing") == {}


def test_estimates_of_few_or_undefined_values():
    assert estimate([0.25]) == (0.25, None)
    mean, half = estimate([0.5, float("nan")])
    assert np.isnan(mean)
    assert half is None
    assert markdown("n", {"1": {(0, 0): 0.5, (1, 0): float("nan")}}).endswith("| 1    |    nan |  nan |")


def test_the_papers_means_are_those_of_its_folds_but_for_one():
    wrong = []
    for name, ablation in ABLATIONS.items():
        assert ablation.paper.keys() <= ablation.rows.keys()
        for row, numbers in ablation.paper.items():
            if abs(statistics.fmean(numbers[:4]) - numbers[4]) > 0.1001:  # what rounding can do
                wrong.append((name, row))
    assert wrong == [("table5", "0.9")]
    assert ABLATIONS["table4"].paper["support"] == ABLATIONS["table6"].paper["5x5"]


# Figures


def test_fig2_counts_novel_objects_in_training_images(tmp_path):
    ablations.main(["fig2", "synthetic", "--images", "60", "--size", "33", "--folds", "2", "0", "--out", str(tmp_path)])
    shares = json.loads((tmp_path / "fig2.json").read_text())
    held = [set(areas) for areas in SyntheticSource(60, num_classes=20, size=32).class_areas]
    assert list(shares) == ["Fold-2", "Fold-0"]
    for fold in (0, 2):
        novel = set(pascal5i(fold).novel)
        training = [classes for classes in held if classes - novel]
        expected = sum(len(classes & novel) for classes in training) / sum(map(len, training))
        assert shares[f"Fold-{fold}"] == expected
    assert f"- Fold-0: {100 * shares['Fold-0']:.1f} % of" in (tmp_path / "fig2.md").read_text()
    assert (tmp_path / "fig2.png").stat().st_size > 1000


def test_fig2_counts_what_folders_leave_out_of_training(tmp_path):
    folder = make_folder(tmp_path / "own", {"a": [1, 2], "b": [2, 3], "c": [1], "d": [4, 5]})
    other = make_folder(tmp_path / "other", {"e": [1, 2, 3]})
    data = ["--data", str(folder), str(other), "--folds", "0"]
    ablations.main(["fig2", "folders", *data, "--out", str(tmp_path / "out")])
    # Novel is class 1, of a quarter of five classes; it stands in two of the four training images.
    assert json.loads((tmp_path / "out" / "fig2.json").read_text()) == {"Fold-0": 2 / (7 + 2)}


def test_fig5_draws_both_models(finished, tmp_path, monkeypatch):
    runs = {cell["row"]: str(finished / "runs" / cell["run"] / "last.pth") for cell in cells_of(finished, "table3")}
    drawn = []
    monkeypatch.setattr(overlays, "save_episodes", lambda path, rows, titles: drawn.append((path, rows, titles)))
    run("fig5", "--checkpoints", runs["0"], runs["3"], "--out", tmp_path)
    path, rows, titles = drawn.pop()
    assert path == tmp_path / "fig5.png"
    assert list(rows) == ["support", "query", "truth", "baseline", "SCNet"]
    assert all(len(pictures) == len(titles) == 6 for pictures in rows.values())
    names = SyntheticSource(1, num_classes=20).class_names
    assert set(titles) <= {names[class_id] for class_id in pascal5i(1).novel}

    run("fig5", "--seeds", 0, "--out", finished)  # the runs that are there
    (_, same, _) = drawn.pop()
    assert len(list((finished / "runs").iterdir())) == 4
    assert all(np.array_equal(*pair) for pair in zip(same["truth"], rows["truth"], strict=True))


def test_fig5_refuses_a_model_that_has_seen_the_classes(finished, tmp_path, capsys):
    run = str(finished / "runs" / cells_of(finished, "table3")[0]["run"] / "last.pth")
    with pytest.raises(SystemExit):
        ablations.main(["fig5", *TINY, "--folds", "2", "--checkpoints", run, run, "--out", str(tmp_path)])
    assert "checkpoints must be of synthetic, fold 2, whose novel classes are drawn" in capsys.readouterr().err


def test_overlays_of_episodes_with_different_queries(tmp_path, monkeypatch):
    source = SyntheticSource(40, num_classes=6, size=48)
    episodes = EpisodeDataset(source, [1, 2], shots=2, length=200)
    drawn = []
    monkeypatch.setattr(overlays, "save_episodes", lambda path, rows, titles: drawn.append(rows))
    model = build_scnet(TinyBackbone(), hidden_channels=8, bins=(1.0,)).eval()
    overlays.draw_episodes(tmp_path / "grid.png", {"own": model}, episodes, size=49, columns=4)
    (rows,) = drawn
    assert [len(pictures) for pictures in rows.values()] == [4] * 4
    queries = {picture.tobytes() for picture in rows["query"]}
    assert len(queries) == 4
    for query, truth in zip(rows["query"], rows["truth"], strict=True):
        shown = (truth == query).all(axis=2)
        assert 0 < shown.mean() < 1

    monkeypatch.undo()
    overlays.draw_episodes(tmp_path / "new" / "grid.png", {"own": model}, episodes, size=49, columns=2)
    assert (tmp_path / "new" / "grid.png").stat().st_size > 1000
