"""The pages of results hold what the result files hold, and their sentences quote the tables."""

import json
import re

import pytest

import make_results
from make_results import DOCS, PAGES, RESULTS, with_tables
from tables import Study

TEXTS = {name: (DOCS / name).read_text(encoding="utf-8") for name in PAGES}
PAGE = "results-tables.md"


@pytest.fixture(scope="module")
def study():
    return Study(RESULTS.glob("*.json"))


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_what_the_files_make_of_them(study, name):
    assert with_tables(TEXTS[name], study, PAGES[name]) == TEXTS[name]


def test_the_picture_has_all_curves(study):
    axes = make_results.curve_picture(study).axes
    assert [len(axis.lines) for axis in axes] == [26, 27, 3]  # 12 runs and the mean of two models; one half; losses


def test_results_are_of_the_settings_that_the_pages_name(study):
    for result in study.results:
        assert result["data"]["data"] == ["voc12_val", "voc12_trainaug_part"]
        assert (result["data"]["protocol"]["test_size"], result["data"]["protocol"]["episodes"]) == (241, 500)
        recipe = result["recipe"]
        if result["row"] != "prototypes":
            assert (recipe["iterations"], recipe["batch"], recipe["optimizer"], recipe["lr"]) == (
                500,
                4,
                "adamw",
                0.002,
            )
            assert (recipe["augmentation"], recipe["loss_stride"], recipe["select"]) == ("none", 4, "last")
            assert recipe["model"]["hidden_channels"] == 64


@pytest.mark.parametrize("name", PAGES)
def test_sentences_quote_numbers_of_the_tables(name):
    """Differences with one decimal; those of the paper that no table has stand behind its name."""
    prose = " ".join(re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", "", TEXTS[name], flags=re.DOTALL).split())
    tables = " ".join(re.findall(r"^\|.*\|$", TEXTS[PAGE], flags=re.MULTILINE))
    quoted = re.findall(r"[+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\)", prose)
    assert len(quoted) >= 5
    assert [number for number in quoted if number not in tables] == []
    assert re.findall(r"[+-]\d+\.\d", re.sub(r"\(the paper: .*?\)|[+-]\d+\.\d \(.*?\)", "", prose)) == []


def test_marks_must_be_there_once(study):
    for page in (TEXTS[PAGE].replace("<!-- levels -->", ""), TEXTS[PAGE] + "<!-- /curves -->"):
        with pytest.raises(ValueError, match=r"the page must have the marks of (levels|curves) once"):
            with_tables(page, study, PAGES[PAGE])


def test_a_table_is_written_between_its_marks_alone():
    sections = {"one": lambda study: study, "two": lambda study: 2 * study}
    page = "a\n<!-- two -->\nold\n<!-- /two -->\nb\n<!-- one -->\n<!-- /one -->\nc\n"
    expected = "a\n<!-- two -->\n\n| x || x |\n\n<!-- /two -->\nb\n<!-- one -->\n\n| x |\n\n<!-- /one -->\nc\n"
    assert with_tables(page, "| x |", sections) == expected
    assert with_tables(expected, "| x |", sections) == expected


def small_study(folder, at, date=""):
    """A study of one fold and seed that knows nothing but mIoU at thresholds, with one support."""
    for row, mious in at.items():
        report = {"miou": mious["0.5"], "at": mious, "counts": [[1, 2, 3, 4]], "episodes_hash": ""}
        better = {**report, "miou": mious["0.5"] + 0.1}
        content = {"row": row, "fold": 2, "seed": 0, "results": {"1-shot": report, "5-shot": better}}
        (folder / f"{row}.json").write_text(json.dumps({**content, "training_images": 7, "date": date}))
    return Study(folder.glob("*.json"))


def cells(table):
    heading, _, *lines = table.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (heading, *lines)]


AT = {"pfenet": {"0.4": 0.5, "0.5": 0.3}, "scnet": {"0.4": 0.47, "0.5": 0.45}, "n2": {"0.4": 0.35, "0.5": 0.42}}


def test_ablations_against_literals(tmp_path):
    assert cells(make_results.ablations(small_study(tmp_path, AT)))[1:] == [
        ["SCNet's defaults", "+15.0", "+15.0", "-3.0", "", "1", "+5.7"],
        ["n: 2", "+12.0", "+12.0", "-8.0", "-3.0", "1", "+6.2"],
    ]


def test_the_summary_against_literals(tmp_path):
    at = {**AT, "prototypes": {"0.4": 0.2, "0.5": 0.1}}
    study = small_study(tmp_path, at, date="2026-01-02T03:04")
    table, _, caption = make_results.summary(study).rpartition("\n\n")
    assert cells(table) == [
        ["", "training-free", "PFENet", "SCNet", "SCNet − PFENet"],
        ["1-shot, threshold 0.5", "10.0", "30.0", "45.0", "+15.0"],
        ["1-shot, best threshold of each", "20.0", "50.0", "47.0", "-3.0"],
        ["5-shot, threshold 0.5", "20.0", "40.0", "55.0", "+15.0"],
        ["5-shot, best threshold of each", "20.0", "50.0", "47.0", "-3.0"],
    ]
    assert caption == "mIoU in %, mean over 1 folds and 1 training seeds; measured from 2026-01-02 to 2026-01-02."


def test_thresholds_against_literals(tmp_path):
    assert cells(make_results.thresholds(small_study(tmp_path, AT)))[:4] == [
        ["threshold", "0.4", "0.5", "best for each"],
        ["PFENet, 1-shot", "50.0", "30.0", "50.0 (at 0.4)"],
        ["SCNet, 1-shot", "47.0", "45.0", "47.0 (at 0.4)"],
        ["SCNet − PFENet, 1-shot", "-3.0", "+15.0", "-3.0"],
    ]


def test_where_objects_hide_against_literals(tmp_path):
    mious = {"": (0.5, 0.6), "-void": (0.4, 0.45), "-hidden": (0.2, 0.4)}
    rows = {row + end: {"0.5": pair[i]} for end, pair in mious.items() for i, row in enumerate(("pfenet", "scnet"))}
    study = small_study(tmp_path, rows)
    assert cells(make_results.hidden(study))[1:] == [
        ["dropped", "50.0", "60.0", "60.0", "70.0", "7", "1"],
        ["void", "40.0", "45.0", "50.0", "55.0", "7", "1"],
        ["background", "20.0", "40.0", "30.0", "50.0", "7", "1"],
    ]
    changes = {name: numbers for name, *numbers in cells(make_results.hidden_changes(study))[1:]}
    assert changes == {
        "SCNet − PFENet, dropped": ["+10.0", "+10.0", "+10.0", "+0.0"],
        "SCNet − PFENet, void": ["+5.0", "+5.0", "+5.0", "+0.0"],
        "SCNet − PFENet, background": ["+20.0", "+20.0", "+20.0", "+0.0"],
        "change of SCNet − PFENet, background − dropped": ["+10.0", "+10.0", "+10.0", "+0.0"],
        "change of SCNet − PFENet, background − void": ["+15.0", "+15.0", "+15.0", "+0.0"],
        "PFENet, background − dropped": ["-30.0", "-30.0", "-30.0", "+0.0"],
        "PFENet, background − void": ["-20.0", "-20.0", "-20.0", "+0.0"],
        "SCNet, background − dropped": ["-20.0", "-20.0", "-20.0", "+0.0"],
        "SCNet, background − void": ["-5.0", "-5.0", "-5.0", "+0.0"],
    }
