import json
import math
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fewshotseg import FewShotIoU
from fewshotseg.results import EvaluationResult, markdown_table, mean_and_interval, results_table, versions


def result(*mious, **settings):
    """A result with these mIoUs, one for each seed."""
    reports = [{"miou": miou, "fb_iou": 0.7, "per_class": {"cat": miou}, "episodes": 1000} for miou in mious]
    seeds = tuple(range(len(mious)))
    given = {
        "method": "SCNet",
        "model": {"self_contrast_weight": 0.5},
        "fold": 0,
        "shots": 1,
        "seeds": seeds,
        "protocol": "pfenet-pascal",
        "protocol_hash": "8231d2acfe72",
        "episodes_hashes": [f"{seed:064}" for seed in seeds],
        "reports": reports,
    }
    return EvaluationResult(**{**given, **settings})


def folds(*mious, **settings):
    return [result(miou, fold=fold, **settings) for fold, miou in enumerate(mious)]


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]


def test_saved_and_loaded_it_is_the_same(tmp_path):
    metric = FewShotIoU([3, 8], class_names={3: "cat", 8: "écureuil"})
    metric.update(torch.tensor([[[1, 0, 1]]]), torch.tensor([[[1, 0, 0]]]), [3])
    with pytest.warns(UserWarning, match="nothing to score for écureuil"):
        report = metric.compute().to_dict()
    saved = result(0.5, reports=[report], model={"bins": [1.0, 0.5], "backbone": None})
    saved.save(tmp_path / "new" / "result.json")
    loaded = EvaluationResult.load(tmp_path / "new" / "result.json")
    assert loaded == saved
    assert loaded.reports[0]["per_class"] == {"cat": 0.5, "écureuil": None}
    assert loaded.mious == (0.5,)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.json"]


def test_it_says_when_and_with_what():
    made = result(0.5)
    assert made.versions == versions()
    assert made.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert made.versions.keys() == {"fewshotseg", "torch", "torchvision", "numpy", "python"}
    assert datetime.fromisoformat(made.date).utcoffset().total_seconds() == 0


def test_seeds_of_nothing_scored_are_nan():
    one, other = result(None, 0.5).mious
    assert math.isnan(one)
    assert other == 0.5


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    result(0.5).save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        result(0.6, model={"weights": torch.zeros(1)}).save(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        result(math.nan).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: "{}",
        lambda text: text.replace("fewshotseg result 1", "fewshotseg result 2"),
        lambda text: text.replace('"shots"', '"shoots"'),
        lambda text: text.replace('"fold": 0', '"fold": 7'),
        lambda text: text.replace('"shots": 1', '"shots": "one"'),
        lambda text: text.replace('"seeds": [\n  0\n ]', '"seeds": []'),
        lambda text: text.replace('"seeds": [\n  0\n ]', '"seeds": [{}]'),
        lambda text: text.replace('"method": "SCNet"', '"method": 3'),
        lambda text: text.replace('"protocol_hash": "8231d2acfe72"', '"protocol_hash": [1]'),
        lambda text: text.replace('"miou": 0.5', '"miou": "half"'),
        lambda text: json.dumps({**json.loads(text), "reports": "x"}),
        lambda text: json.dumps({**json.loads(text), "reports": ["x"]}),
        lambda text: json.dumps({**json.loads(text), "reports": [{}]}),
        lambda text: json.dumps({**json.loads(text), "reports": 5}),
        lambda text: json.dumps({**json.loads(text), "model": 5}),
        lambda text: json.dumps([json.loads(text)]),
        lambda text: "[" * 100_000,
    ],
)
def test_another_file_is_refused_by_name(change, tmp_path):
    path = tmp_path / "result.json"
    result(0.5).save(path)
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    with pytest.raises(ValueError, match=r"result\.json must be a result that save wrote"):
        EvaluationResult.load(path)


def test_a_missing_file():
    with pytest.raises(FileNotFoundError):
        EvaluationResult.load("nowhere.json")


def test_impossible_results():
    with pytest.raises(ValueError, match="fold must be one of 0, 1, 2, 3, got 4"):
        result(0.5, fold=4)
    with pytest.raises(ValueError, match="shots must be at least 1, got 0"):
        result(0.5, shots=0)
    with pytest.raises(ValueError, match=r"equally many, at least one, got \(2, 1, 1\)"):
        result(0.5, seeds=(0, 1))
    with pytest.raises(ValueError, match=r"got \(0, 0, 0\)"):
        result()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": 3}, "method must be a str, got 3"),
        ({"model": 3}, "model must be a mapping, got 3"),
        ({"protocol_hash": ["a"]}, "protocol_hash must be a str, got"),
        ({"reports": "x"}, "reports must be a list, got str"),
        ({"reports": ["x"]}, "every report must be a mapping with a number or None as miou, got 'x'"),
        ({"seeds": ["0"]}, "seeds must be integers, got"),
    ],
)
def test_attributes_of_other_types(wrong, message):
    with pytest.raises(TypeError, match=message):
        result(0.5, **wrong)


def test_json_is_plain(tmp_path):
    result(0.5).save(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["format"] == "fewshotseg result 1"
    assert content["reports"][0]["per_class"] == {"cat": 0.5}


def test_a_markdown_table():
    rows = [["", "mIoU in %", "n"], ["a|b", "58.6 ± 1.2", "10"], ["nothing", "", "-"]]
    assert markdown_table(rows).splitlines() == [
        "|         |  mIoU in % |    n |",
        "| ------- | ---------: | ---: |",
        "| a\\|b    | 58.6 ± 1.2 |   10 |",
        "| nothing |            |    - |",
    ]
    assert markdown_table(rows[:1]).splitlines() == ["|      | mIoU in % |    n |", "| ---- | --------: | ---: |"]
    with pytest.raises(ValueError, match="rows must have the heading's 3 cells, got 2 in"):
        markdown_table([*rows, ["too", "few"]])


# Intervals


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 31, 100])
def test_intervals_equal_scipy(count, level):
    values = np.random.default_rng(count).normal(size=count)
    mean, half = mean_and_interval(values, level=level)
    low, high = stats.t.interval(level, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)


def test_intervals_of_groups_against_literals():
    # Means 2 and 11; squares 1 + 1 + 1 + 1 over 2 degrees of freedom: variance 2. Error of the mean of two groups:
    # sqrt(2 (1/2 + 1/2)) / 2 = 0.7071; t(0.975, 2) = 4.3027.
    mean, half = mean_and_interval([1.0, 3.0], [10.0, 12.0])
    assert (mean, half) == (6.5, pytest.approx(3.0424, abs=1e-4))
    # Unequal: means 2 and 5; variance (1 + 1) / 1; error sqrt(2 (1/2 + 1)) / 2 = 0.8660; t(0.975, 1) = 12.706.
    mean, half = mean_and_interval([1.0, 3.0], [5.0])
    assert (mean, half) == (3.5, pytest.approx(11.004, abs=1e-3))


def test_intervals_of_groups_hold_the_true_mean_as_often_as_they_say():
    draws = np.random.default_rng(0).normal([[0.0], [5.0], [-2.0]], 1.0, size=(2000, 3, 3))
    held = 0
    for groups in draws:
        mean, half = mean_and_interval(*groups, level=0.9)
        held += abs(mean - 1) < half
    assert held / 2000 == pytest.approx(0.9, abs=0.02)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_and_interval([0.5, 0.5, 0.5]) == (0.5, 0.0)


@pytest.mark.parametrize(
    "groups", [[], [[]], [[0.6]], [[0.6], [0.7]], [[0.6, 0.7], []], [[0.6, math.nan]], [[0.6, 0.7], [math.inf]]]
)
def test_intervals_need_two_finite_values_of_a_group(groups):
    with pytest.raises(ValueError, match="groups must be of finite numbers, at least two in one of them, got"):
        mean_and_interval(*groups)


@pytest.mark.parametrize("groups", [(0.6, 0.7), ([0.6, 0.7], 0.95), (["a", "b"],)])
def test_intervals_are_of_groups_of_numbers(groups):
    with pytest.raises(TypeError, match="groups must be iterables of numbers, such as one list, got"):
        mean_and_interval(*groups)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_levels_are_probabilities(level):
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        mean_and_interval([0.5, 0.6], level=level)


# The paper's table


def test_rows_are_methods_and_shots_columns_are_folds():
    table = results_table(
        [
            *folds(0.56, 0.664, 0.55, 0.57, method="PFENet"),
            *folds(0.6, 0.7, 0.612, 0.5),
            *folds(0.61, 0.71, 0.61, 0.51, shots=5),
        ]
    )
    assert cells(table) == [
        ["method", "shots", "Fold-0", "Fold-1", "Fold-2", "Fold-3", "Mean"],
        cells(table)[1],
        ["PFENet", "1", "56.0", "66.4", "55.0", "57.0", "58.6"],
        ["SCNet", "1", "60.0", "70.0", "61.2", "50.0", "60.3"],
        ["SCNet", "5", "61.0", "71.0", "61.0", "51.0", "61.0"],
    ]
    assert all(set(cell) <= {"-", ":"} for cell in cells(table)[1])
    assert table.splitlines()[-1] == "mIoU in %; pfenet-pascal (8231d2acfe72), seeds 0"


def test_a_fold_that_is_missing_leaves_the_mean_open():
    assert cells(results_table(folds(0.5, 0.6, 0.7)))[2][2:] == ["50.0", "60.0", "70.0", "-", "-"]


@pytest.mark.parametrize("number", [2, 3])
def test_seeds_give_intervals(number):
    values = [(0.5, 0.52, 0.54), (0.6, 0.6, 0.6), (0.4, 0.5, 0.45), (0.7, 0.71, 0.75)]
    values = [seeds[:number] for seeds in values]
    table = results_table([result(*values[fold], fold=fold) for fold in (3, 1, 0, 2)])
    per_seed = [sum(seed) / 4 for seed in zip(*values, strict=True)]
    for cell, seeds in zip(cells(table)[2][2:], [*values, per_seed], strict=True):
        half = 100 * stats.sem(seeds) * stats.t.ppf(0.975, number - 1)
        assert cell == f"{100 * sum(seeds) / number:.1f} ± {half:.1f}"
    assert table.endswith(f"seeds {', '.join(map(str, range(number)))}")


def test_nan_stays_nan():
    assert cells(results_table([result(None, 0.5)]))[2][2] == "nan"
    assert cells(results_table(folds(None, 0.5, 0.5, 0.5)))[2][2:] == ["nan", "50.0", "50.0", "50.0", "nan"]


def test_numbers_that_cannot_be_compared_are_not():
    with pytest.raises(ValueError, match=r"one protocol, got pfenet-pascal \(8231d2acfe72\), seeds 0 and pfenet"):
        results_table([result(0.5), result(0.5, fold=1, protocol_hash="0" * 12)])
    with pytest.raises(ValueError, match="one protocol"):
        results_table([result(0.5), result(0.5, fold=1, seeds=(3,))])
    with pytest.raises(ValueError, match="one result a cell, got two of SCNet, fold 0"):
        results_table([result(0.5), result(0.6)])
    with pytest.raises(ValueError, match="got no result"):
        results_table([])


HELD_OUT = Path(__file__).parents[1] / "docs" / "results" / "held-out"


@pytest.mark.parametrize("path", sorted(HELD_OUT.glob("head-*.json")), ids=lambda path: path.stem)
def test_results_from_before_sizes_were_counted_are_read_and_stand_in_tables(path):
    result = EvaluationResult.load(path)
    assert "by_size" not in result.reports[0]
    assert f"{100 * result.mious[0]:.1f}" in results_table([result])


def test_scores_by_size_are_kept(tmp_path):
    metric = FewShotIoU([3])
    metric.update(torch.tensor([[[1, 0]]]), torch.tensor([[[1, 1]]]), 3, object_shares=torch.tensor([0.01]))
    result(0.5, reports=[metric.compute().to_dict()]).save(tmp_path / "result.json")
    (read,) = EvaluationResult.load(tmp_path / "result.json").reports
    assert read["by_size"]["<2%"] == {"miou": 0.5, "episode_miou": 0.5, "episodes": 1}


def test_versions_of_a_checkout_that_is_not_installed():
    code = """
import importlib.metadata as metadata
of = metadata.version
def version(name):
    if name == "fewshotseg":
        raise metadata.PackageNotFoundError(name)
    return of(name)
metadata.version = version
import fewshotseg
from fewshotseg.results import versions
print(fewshotseg.__version__, versions()["fewshotseg"])
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["0+unknown"] * 2
