"""The study: every number from a file, equal episodes for all rows, nothing run twice, commands that run again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch

import fewshotseg as fs
import study
from _folders import make_folder
from _processes import run_together
from _study_process import run_share
from fewshotseg.models.backbones.tiny import tiny
from fewshotseg.training import loop
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings, draw_test, open_benchmark
from fewshotseg.training.recipe import RECIPES
from measuring import Counted
from rows import ORDER, PAPER, ROWS, SCNET, TABLES, Cell, cells

ROOT = Path(__file__).parents[2]
TINY = [
    *("synthetic", "--images", "300", "--size", "33", "--pretrain", "4", "--iterations", "4", "--batch", "2"),
    *("--lr", "0.003", "--episodes", "20", "--model", "hidden_channels=8", "bins=1.0,0.5"),
]
CELL = ["--folds", "1", "--seeds", "0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    run(out, "--rows", "main", "n2", *CELL)
    return out


def run(out, *options):
    how = ["--device", "cpu", "--looks", "2", "--out", str(out / "results"), "--runs", str(out / "runs")]
    study.main([*TINY, *how, *map(str, options)])


def results_in(out):
    return {path.name: json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))}


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
    trained = results["scnet-fold1-seed0.json"]
    assert [point["iteration"] for point in trained["watched"]] == [2, 4]
    assert {"main", "aux", "self_contrast_main", "self_contrast_aux"} < trained["losses"][-1].keys()
    assert "self_contrast_main" not in results["pfenet-fold1-seed0.json"]["losses"][-1]
    assert trained["recipe"]["model"]["self_contrast_weight"] == 0.5
    assert "watched" not in results["prototypes-fold1-seed0.json"]


def test_other_thresholds_count_other_pixels():
    metric = Counted([3])
    probability, target = torch.tensor([[[0.1, 0.35, 0.55, 0.9]]]), torch.tensor([[[0, 1, 1, 1]]])
    metric.update(torch.stack([1 - probability, probability], dim=1).log(), target, 3)
    found = {threshold: at.compute().miou for threshold, at in metric.at.items()}
    assert found == pytest.approx({0.2: 1, 0.3: 1, 0.4: 2 / 3, 0.5: 2 / 3, 0.6: 1 / 3, 0.7: 1 / 3})
    assert metric.episodes == [(3, 2, 3, 3)]
    assert metric.top == pytest.approx(0.9)


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
    assert program == "python"
    assert (ROOT / script).samefile(study.__file__)
    study.main(arguments)
    after = json.loads((tmp_path / "again" / "scnet-fold1-seed0.json").read_text())
    for part in ("results", "command", "recipe", "data"):
        assert after[part] == before[part]
    assert after["losses"][-1] == before["losses"][-1]


def test_commands_say_all_that_was_given():
    given = ["folders", "--data", "some/a b", "c", "--pretrain", "0", "--hard-share", "0.0", "--model", "bins=1.0,0.5"]
    parse = study.make_parser().parse_args
    options = vars(parse([*given, "--fold", "1"]))
    for name in ("rows", "folds", "seeds", "out", "runs", "threads", "looks", "device", "workers", "save_every"):
        options.pop(name)
    words = shlex.split(study.command(Cell("n2", 1, 5), options, ["some/a b", "c"]))
    again = vars(parse(words[2:]))
    assert again.items() >= {**options, "data": ["a b", "c"]}.items()
    assert (again["rows"], again["folds"], again["seeds"], again["out"]) == (["n2"], [1], [5], "again")


def test_looking_at_a_model_changes_nothing(finished, tmp_path):
    run(tmp_path, "--rows", "scnet", *CELL, "--looks", "4")
    (again,) = results_in(tmp_path).values()
    assert len(again["watched"]) == 4
    assert again["results"] == results_in(finished)["scnet-fold1-seed0.json"]["results"]


def test_interrupted_it_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    calls, look = [], study.look

    def stop_in_the_second_run(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # two looks a run: at the end of the second training
            raise KeyboardInterrupt
        return look(*arguments)

    rows = ["--rows", "pfenet", "scnet", *CELL, "--save-every", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(study, "look", stop_in_the_second_run)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *rows)
    (first,) = results_in(tmp_path)
    written = (tmp_path / "results" / first).stat().st_mtime_ns
    run(tmp_path, *rows)
    assert (tmp_path / "results" / first).stat().st_mtime_ns == written
    starts = [
        [json.loads(line)["iteration"] for line in log.read_text().splitlines() if '"event"' in line]
        for log in sorted((tmp_path / "runs").glob("*/log.jsonl"))
    ]
    assert starts == [[0], [0, 3]]
    for name, result in results_in(tmp_path).items():
        assert result["results"] == results_in(finished)[name]["results"]
    monkeypatch.setattr(loop, "run", None)
    run(tmp_path, *rows)  # nothing is left to do


def test_processes_share_a_study(finished, tmp_path):
    how = ["--device", "cpu", "--looks", "2", "--out", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    arguments = [*TINY, *how, "--rows", "prototypes", "scnet", *CELL]
    run_together(run_share, 2, str(tmp_path / "store"), arguments)
    ours, theirs = results_in(tmp_path), results_in(finished)
    assert list(ours) == ["prototypes-fold1-seed0.json", "scnet-fold1-seed0.json"]
    assert ours["prototypes-fold1-seed0.json"]["results"] == theirs["prototypes-fold1-seed0.json"]["results"]
    assert ours["scnet-fold1-seed0.json"]["recipe"]["micro_batches"] == 2
    assert len(ours["scnet-fold1-seed0.json"]["results"]["5-shot"]["counts"]) == 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["folders"], "data must be at least one folder for folders, got 0"),
        (
            ["synthetic", "--model", "num_prototypes=5"],
            "model must not set what the rows of rows.py set, got num",
        ),
        ([*TINY, "--images", "90", "--rows", "scnet"], "classes with at least 6 images (5 supports and a"),
        (["synthetic", "--rows", "table7"], "invalid choice: 'table7'"),
    ],
)
def test_bad_requests_end_with_a_sentence_before_anything_is_trained(
    arguments, sentence, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        study.main(arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("change", [["--lr", "0.004"], ["--episodes", "21"], ["--images", "301"]])
def test_a_folder_holds_one_study(finished, change, capsys, monkeypatch):
    monkeypatch.setattr(loop, "run", None)
    with pytest.raises(SystemExit):
        run(finished, "--rows", "scnet", *CELL, *change)
    name = {"--episodes": "protocol"}.get(change[0], change[0][2:])
    assert f"scnet-fold1-seed0.json was made with another {name}" in capsys.readouterr().err


def test_names_of_runs_tell_settings_apart():
    recipe, protocol = RECIPES["folders"], BENCHMARKS["folders"]
    data = DataSettings(benchmark="folders", data=("photographs",), protocol=protocol)
    cell, same = Cell("scnet", 0, 1), replace(data, data=(str(Path.cwd() / "photographs"),))
    others = [
        (cell, replace(recipe, model=replace(recipe.model, kmeans_iters=9)), data),
        (cell, recipe, replace(data, data=("others",))),
        (cell, recipe, replace(data, protocol=replace(protocol, episodes=7))),
        (Cell("scnet", 1, 1), recipe, data),
    ]
    names = {study.run_name(*each) for each in [(cell, recipe, data), (cell, recipe, same), *others]}
    assert len(names) == 5
    assert all(name.startswith(("scnet-fold0-seed1-", "scnet-fold1-seed1-")) for name in names)


def test_the_command_of_every_committed_file_can_be_run():
    files = {
        path: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks/results").glob("**/*.json")
    }
    of_the_study = {path.stem: content for path, content in files.items() if "row" in content}
    assert len(of_the_study) > 80
    for name, content in of_the_study.items():
        program, script, *arguments = shlex.split(content["command"])
        assert program == "python", name
        assert (ROOT / script).samefile(study.__file__), name
        options = study.make_parser().parse_args(arguments)
        assert (options.rows, options.folds, options.seeds) == ([content["row"]], [content["fold"]], [content["seed"]])
        assert options.data == content["data"]["data"], name
        assert options.episodes == content["data"]["protocol"]["episodes"], name
        assert getattr(options, "size", 241) == content["data"]["protocol"]["test_size"], name
        row, model = ROWS[content["row"]], content["recipe"].get("model", {})
        assert {field: model[field] for field in SCNET if model} == (row.model or {}), name
        assert content["data"]["protocol"]["novel_in_training"] == (row.novel or "drop"), name


# Rows


def test_any_prefix_of_the_order_is_useful():
    order = cells(None, None, (0, 1, 2))
    main = len(ORDER[0][1]) * (1 + 2 * 3)
    assert {cell.row for cell in order[:main]} == {"prototypes", "pfenet", "scnet"}
    assert [cell[1:] for cell in order[:3]] == [(0, 0)] * 3
    assert sum(cell.row == "prototypes" for cell in order) == 4
    assert len(set(order)) == len(order)
    assert cells(["scnet"], [2], [5, 4]) == [("scnet", 2, 5), ("scnet", 2, 4)]
    assert cells(["table4", "pfenet"], [2], [5]) == [(row, 2, 5) for row in ("pfenet", "support", "n1")]
    assert Cell("scnet", 2, 5).file == "scnet-fold2-seed5.json"


def test_rows_are_settings_that_a_model_can_have():
    models = {name: (row.model and fs.SCNetConfig(**row.model), row.novel) for name, row in ROWS.items()}
    assert models["scnet"] == (fs.SCNetConfig(), None)
    assert models["pfenet"] == (fs.SCNetConfig(num_prototypes=0, self_contrast_weight=0.0), None)
    assert models["grid3"][0] == fs.SCNetConfig(grid_bins=3)
    assert models["n5"][0] == fs.SCNetConfig(num_prototypes=5)
    assert models["lambda0.3"][0] == fs.SCNetConfig(self_contrast_weight=0.3)
    assert models["lambda1"][0] == fs.SCNetConfig(self_contrast_weight=1.0)
    assert models["support"][0] == fs.SCNetConfig(num_prototypes=1, background_source="support")
    both = {"background_prior": "shared", "background_reducer": "support"}
    assert models["prior-shared-reducer-support"][0] == fs.SCNetConfig(**both)
    assert models["scnet-hidden"] == (fs.SCNetConfig(), "background")
    assert models["pfenet-void"] == (models["pfenet"][0], "ignore")
    assert {fs.PrototypeConfig(**row.segmenter).score for row in ROWS.values() if row.model is None} == {
        "density",
        "cosine",
        "kmeans",
    }
    assert len({str(row) for row in ROWS.values()}) == len(ROWS)
    assert all(row.model is None or row.model.keys() == SCNET.keys() for row in ROWS.values())


def test_tables_are_of_rows_and_as_long_as_the_papers():
    assert {row for table in TABLES.values() for row in table.rows.values()} <= ROWS.keys()
    assert [len(TABLES[f"table{number}"].rows) for number in (3, 4, 5, 6)] == [6, 3, 7, 6]
    assert TABLES["table5"].rows["0.9"] == "lambda0.9"
    assert TABLES["table6"].rows["4x4"] == "grid4"


def test_the_papers_means_are_those_of_its_folds_but_for_one():
    wrong = []
    for rows in PAPER.values():
        assert rows.keys() <= ROWS.keys()
        wrong += [row for row, (*folds, mean) in rows.items() if abs(fmean(folds) - mean) > 0.1001]  # rounding
    assert wrong == ["lambda0.9"]
    assert PAPER[1]["support"] == PAPER[1]["grid5"]


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


def test_rows_without_training_say_how_they_score():
    for name in ("density", "cosine", "kmeans"):
        found = study.segmenter_of(study.Cell(name, 0, 0))["segmenter"]
        assert (found["score"], found["threshold"]) == (name, 0.3)
    assert study.segmenter_of(study.Cell("prototypes", 0, 0))["segmenter"]["score"] == "cosine"


def test_watched_models_are_tested_on_the_first_test_episodes():
    protocol = replace(BENCHMARKS["synthetic"], test_size=33)
    data = DataSettings(benchmark="synthetic", fold=1, images=300, protocol=protocol)
    benchmark = open_benchmark(data)
    model, protocol = fs.build_prototype_segmenter(tiny()), data.protocol
    few, many = (draw_test(benchmark, replace(protocol, episodes=n), model, shots=1, seed=0) for n in (5, 30))
    assert list(few.specs) == list(many.specs)[:5]
