"""The page of the world holds what the result files hold."""

import json

import pytest

import make_world
from make_world import DOCS, RESULTS, ROWS, written
from tables import Study

PAGE = (DOCS / "world.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study():
    return Study(RESULTS.glob("*.json"))


def test_the_page_is_what_the_files_make_of_it(study):
    assert written(PAGE, study) == PAGE


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
