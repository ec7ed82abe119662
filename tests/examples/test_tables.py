"""Tables and pictures of the study: paired differences on common folds, against literals and plain numpy."""

import json
import random

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from scipy import stats

import tables
from rows import TABLES
from tables import Study, differences, interval, levels, over_seeds, pixel_shares


def study_of(folder, rows, **more):
    """A study of these mIoUs: row to (seed, fold) to the number with one support; ten points more with five."""
    for row, its in rows.items():
        for (seed, fold), miou in its.items():
            results = {
                f"{shots}-shot": {"miou": miou + extra, "episodes_hash": f"{shots}, {fold}", **more}
                for shots, extra in ((1, 0.0), (5, 0.1))
            }
            content = {"row": row, "fold": fold, "seed": seed, "results": results}
            (folder / f"{row}-fold{fold}-seed{seed}.json").write_text(json.dumps(content))
    return Study(folder.glob("*.json"))


def cells(table):
    heading, _, *lines = table.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (heading, *lines)]


PFENET = {(0, 0): 0.50, (1, 0): 0.52, (0, 2): 0.40, (1, 2): 0.40}
SCNET = {(0, 0): 0.53, (1, 0): 0.54, (0, 2): 0.41}
N5 = {(0, 0): 0.3}


def test_levels_against_literals(tmp_path):
    study = study_of(tmp_path, {"pfenet": PFENET, "scnet": SCNET})
    assert cells(levels(study, {"none": "pfenet", "three": "scnet", "six": "n6"}, "n", paper=True)) == [
        ["n", "Fold-0", "Fold-2", "Mean", "seeds", "paper"],
        ["none, 1-shot", "51.0 ± 1.4", "40.0 ± 0.0", "45.5 ± 0.7", "2", "61.7 / 69.5 / 55.4 / 56.3: 60.8"],
        ["three, 1-shot", "53.5 ± 0.7", "41.0", "47.0", "2", "62.2 / 70.5 / 61.1 / 58.1: 63.0"],
        ["none, 5-shot", "61.0 ± 1.4", "50.0 ± 0.0", "55.5 ± 0.7", "2", "63.1 / 70.7 / 55.8 / 57.9: 61.9"],
        ["three, 5-shot", "63.5 ± 0.7", "51.0", "57.0", "2", "63.3 / 72.0 / 68.4 / 60.2: 66.0"],
    ]


def test_differences_against_literals(tmp_path):
    # Fold 0: +3 and +2, t(0.975, 1) = 12.706 times 0.5; fold 2: +1 of one seed. Mean (2.5 + 1) / 2, the same spread of
    # seeds in both folds: sqrt(0.5 (1/2 + 1)) / 2 = 0.433 times 12.706.
    study = study_of(tmp_path, {"pfenet": PFENET, "scnet": SCNET})
    found = cells(differences(study, {"0": "pfenet", "3": "scnet"}, "pfenet", "n", paper=True))
    assert found[0] == ["n", "Fold-0", "Fold-2", "Mean", "paper"]
    assert found[1:] == [
        ["3, 1-shot", "+2.5 (-3.9 to +8.9)", "+1.0", "+1.8 (-3.8 to +7.3)", "+3.1"],  # (0.5 + 5.7) / 2
        ["3, 5-shot", "+2.5 (-3.9 to +8.9)", "+1.0", "+1.8 (-3.8 to +7.3)", "+6.4"],
    ]


def test_rows_are_compared_on_the_folds_that_all_of_them_have(tmp_path):
    study = study_of(tmp_path, {"pfenet": PFENET, "scnet": SCNET, "n5": N5})
    rows = {"0": "pfenet", "3": "scnet", "5": "n5"}
    assert cells(levels(study, rows))[0][1:] == ["Fold-0", "Mean", "seeds"]
    assert [row[2] for row in cells(differences(study, rows, "pfenet"))[1:3]] == ["+2.5 (-3.9 to +8.9)", "-20.0"]
    apart = study_of(tmp_path, {"n4": {(0, 1): 0.3}})
    assert apart.folds(["pfenet", "n4"]) == [0, 1, 2]  # none in common
    assert apart.folds(["n1"]) == []


def test_what_is_not_trained_is_the_same_for_all_seeds(tmp_path):
    study = study_of(tmp_path, {"pfenet": PFENET, "prototypes": {(0, 0): 0.4, (0, 2): 0.4}})
    assert study.against("pfenet", "prototypes", 1) == pytest.approx({(0, 0): 10, (1, 0): 12, (0, 2): 0, (1, 2): 0})
    assert study.against("prototypes", "pfenet", 1)[1, 0] == pytest.approx(-12)
    assert study.against("pfenet", "pfenet", 5) == dict.fromkeys(PFENET, 0)


def test_paired_differences_and_their_intervals_against_plain_numpy(tmp_path):
    draw = random.Random(0)
    seeds, folds = (5, 6, 8, 9), (0, 1, 3)
    rows = {row: {(s, f): draw.random() for s in seeds for f in folds} for row in ("pfenet", "scnet", "n1")}
    study = study_of(tmp_path, rows)
    table = {row: np.array([[its[s, f] for f in folds] for s in seeds]) * 100 for row, its in rows.items()}
    for row in ("scnet", "n1"):
        change = table[row] - table["pfenet"]
        found = study.against(row, "pfenet", 1)
        assert over_seeds(found, folds) == pytest.approx(change.mean(axis=1))
        error = np.sqrt(change.var(axis=0, ddof=1).mean() / len(seeds) / len(folds))
        half = stats.t.ppf(0.975, len(folds) * (len(seeds) - 1)) * error
        middle = change.mean()
        assert interval(found) == f"{middle:+.1f} ({middle - half:+.1f} to {middle + half:+.1f})"


def test_cells_of_few_values():
    assert interval({(0, 0): 1.0, (1, 0): -2.0}) == "-0.5 (-19.6 to +18.6)"  # 12.706 * 1.5
    assert interval({(0, 0): 1.0, (0, 1): 2.0}) == "+1.5"
    assert interval({}) == "-"
    assert tables.spread([]) == "-"


def test_thresholds_and_pixels(tmp_path):
    counts = [[1, 2, 8, 4], [1, 1, 2, 1], [7, 3, 3, 3]]  # class; in both, in either, in the object
    study = study_of(tmp_path, {"pfenet": {(0, 0): 0.5}}, at={"0.4": 0.6, "0.5": 0.5}, counts=counts)
    assert study.values("pfenet", 1, "0.4") == {(0, 0): 60}
    assert study.best("pfenet", 5) == ("0.4", {(0, 0): 60})
    assert study.best("pfenet", 5, [3]) == ("", {})
    assert study.values("pfenet", 1, "found") == {(0, 0): pytest.approx(100 * (3 / 5 + 1) / 2)}
    assert study.values("pfenet", 1, "right") == {(0, 0): pytest.approx(100 * (3 / 8 + 1) / 2)}
    assert pixel_shares({"counts": [[1, 0, 4, 4]]}) == {"found": 0, "right": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "one.json must be a result of study.py, but it is not JSON"),
        ('{"method": "SCNet"}', "one.json must be a result of study.py, but it has no results"),
        ("[1]", "one.json must be a result of study.py, but it has no results"),
    ],
)
def test_other_files_are_refused_by_name(text, sentence, tmp_path, capsys):
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(SystemExit):
        tables.main([str(tmp_path)])
    assert sentence in capsys.readouterr().err


def test_no_files_and_results_of_other_episodes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        Study([])
    study_of(tmp_path, {"pfenet": PFENET})
    with pytest.raises(ValueError, match="same test episodes, those of fold 2 are not"):
        study_of(tmp_path, {"scnet": {(0, 2): 0.4}}, episodes_hash="another")


def test_pages_have_the_tables_that_were_run(tmp_path, capsys):
    study_of(tmp_path, {"scnet": SCNET})
    tables.main([str(tmp_path)])
    page = capsys.readouterr().out
    assert [line for line in page.splitlines() if line.startswith("#")] == ["# Tables", "## SCNet against PFENet"]
    assert "Minus PFENet" not in page
    study_of(tmp_path, {"pfenet": PFENET, "n5": N5})
    tables.main([str(tmp_path), "--paper"])
    page = capsys.readouterr().out
    assert "## The number of background prototypes (Table 3)" in page
    assert "## Prototypes from" not in page
    assert "one of them is probably a mistake" in page
    assert (tmp_path / "tables.md").read_text(encoding="utf-8") in page
    assert {path.name for path in tmp_path.glob("*.png")} == {"main.png", "table3.png"}


def test_pictures_show_each_row_once_for_each_number_of_shots(tmp_path):
    study = study_of(tmp_path, {"pfenet": {(0, 0): 0.01, (1, 0): 0.15}, "scnet": {(0, 0): 0.85, (1, 0): 0.9}})
    (axis,) = tables.plot(study, TABLES["table3"]).axes
    one, five = (bars for bars in axis.containers if isinstance(bars, ErrorbarContainer))
    for bars, heights, side in ((one, [8, 87.5], -1), (five, [18, 97.5], 1)):
        points = bars.lines[0]
        assert points.get_linestyle() == "None"  # rows are no axis
        assert points.get_ydata() == pytest.approx(heights)
        assert all(side * (points.get_xdata() - [0, 1]) > 0)
    low, high = axis.get_ylim()
    assert (low, high) == (0, 100)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "3"]
    assert axis.get_title()
