"""The page of the world holds what the result files hold."""

import json

import pytest

import make_world
from make_results import with_tables
from make_world import DOCS, PAGES, RESULTS, ROWS, WORLD
from tables import Study
from world_table import rows, together


@pytest.fixture(scope="module")
def study():
    return Study(RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_what_the_files_make_of_it(study, path):
    page = path.read_text(encoding="utf-8")
    assert with_tables(page, study, PAGES[path]) == page


def held_out(name):
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(WORLD.glob(f"{name}-fold?.json"))]


def test_the_models_of_three_folds_are_tested_each_on_its_own_classes():
    mine, theirs = held_out("scnet-lite2"), held_out("scnet-lite0")
    assert [part["folds"] for part in mine] == [part["folds"] for part in theirs] == [[0], [1], [2]]
    assert [part["names"] for part in mine] == [part["names"] for part in theirs]
    assert {part["size"] for part in mine} == {641}
    for part, other in zip(mine, theirs, strict=True):
        for shots in ("1-shot", "5-shot"):
            assert [(c, truth) for c, _, _, truth in part[shots]["counts"]] == [
                (c, truth) for c, _, _, truth in other[shots]["counts"]
            ]


def test_the_readme_quotes_the_classes_that_are_new_to_the_model():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    parts = held_out("scnet-lite2")
    found = together(parts)
    ids = [int(class_id) for class_id in found["names"]]
    for words, row in rows(found).items():
        if "mIoU, all" in words:
            assert f"{row(ids):.1f}" in readme


def test_models_are_put_together_by_their_episodes():
    def part(name, iou, size, episodes):
        report = {"per_class": {name: iou}, "by_size": {"<2%": {"episodes": episodes, "episode_miou": size}}}
        return {"names": {str(len(name)): name}, "answers": [name], "1-shot": report, "5-shot": report}

    found = together([part("a", 0.5, 0.2, 1), part("bb", 0.7, 0.6, 3), part("ccc", 0.1, None, 0)])
    assert found["names"] == {"1": "a", "2": "bb", "3": "ccc"}
    assert found["answers"] == ["a", "bb", "ccc"]
    assert found["5-shot"]["per_class"] == {"a": 0.5, "bb": 0.7, "ccc": 0.1}
    assert found["1-shot"]["by_size"] == {"<2%": {"episodes": 4, "episode_miou": pytest.approx(0.5)}}
    assert together([part("a", 0.5, None, 0)])["1-shot"]["by_size"]["<2%"]["episode_miou"] is None


def test_results_are_of_the_settings_that_the_page_names(study):
    for result in study.results:
        assert result["row"] in ROWS.values()
        assert result["data"]["data"] == ["coco_mini", "voc12_val", "voc12_trainaug_part"]
        assert (result["data"]["protocol"]["test_size"], result["data"]["protocol"]["episodes"]) == (241, 500)
        assert result["data"]["protocol"]["novel_in_training"] == "drop"
        assert result["seed"] == 0


def test_sizes_are_means_over_all_episodes(tmp_path):
    def part(value, episodes):
        return {"episode_miou": value, "episodes": episodes}

    for fold, (value, episodes) in enumerate([(0.2, 1), (0.5, 3)]):
        report = {"by_size": {"<2%": part(None, 0), "2-10%": part(value, episodes), ">10%": part(0.7, 2)}}
        content = {"row": "scnet", "fold": fold, "seed": 0}
        results = {f"{shots}-shot": {**report, "episodes_hash": str(fold)} for shots in (1, 5)}
        (tmp_path / f"{fold}.json").write_text(json.dumps({**content, "results": results}))
    (line,) = [line for line in make_world.sizes(Study(tmp_path.glob("*.json"))).splitlines() if "SCNet" in line]
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["-", "42.5", "70.0"]


def test_the_two_files_of_the_shipped_model_are_of_the_same_episodes():
    alone, denser = (
        json.loads((make_world.WORLD / f"scnet-lite0{ending}.json").read_text()) for ending in ("", "-density")
    )
    assert (alone["names"], alone["size"]) == (denser["names"], denser["size"])
    for shots in ("1-shot", "5-shot"):
        assert [(c, truth) for c, _, _, truth in alone[shots]["counts"]] == [
            (c, truth) for c, _, _, truth in denser[shots]["counts"]
        ]
    assert (alone.get("density_weight", 0), denser["density_weight"]) == (0, 0.25)
