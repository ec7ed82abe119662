import json
import math
from datetime import datetime

import pytest
import torch
from scipy import stats

from fewshotseg import FewShotIoU
from fewshotseg.results import EvaluationResult, markdown_table, results_table, versions


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


def test_seeds_give_intervals():
    values = [(0.5, 0.52, 0.54), (0.6, 0.6, 0.6), (0.4, 0.5, 0.45), (0.7, 0.71, 0.75)]
    table = results_table([result(*values[fold], fold=fold) for fold in (3, 1, 0, 2)])
    per_seed = [sum(seed) / 4 for seed in zip(*values, strict=True)]
    for cell, seeds in zip(cells(table)[2][2:], [*values, per_seed], strict=True):
        half = 100 * stats.sem(seeds) * stats.t.ppf(0.975, 2)
        assert cell == f"{100 * sum(seeds) / 3:.1f} ± {half:.1f}"
    assert table.endswith("seeds 0, 1, 2")


def test_nan_stays_nan():
    assert cells(results_table([result(None, 0.5)]))[2][2] == "nan"


def test_numbers_that_cannot_be_compared_are_not():
    with pytest.raises(ValueError, match=r"one protocol, got pfenet-pascal \(8231d2acfe72\), seeds 0 and pfenet"):
        results_table([result(0.5), result(0.5, fold=1, protocol_hash="0" * 12)])
    with pytest.raises(ValueError, match="one protocol"):
        results_table([result(0.5), result(0.5, fold=1, seeds=(3,))])
    with pytest.raises(ValueError, match="one result a cell, got two of SCNet, fold 0"):
        results_table([result(0.5), result(0.6)])
    with pytest.raises(ValueError, match="got no result"):
        results_table([])
