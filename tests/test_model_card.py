"""The scores in the model card are those of its files."""

import json

import pytest

import make_model_card
from make_model_card import DOCS, RESULTS


def head(fold, shots, miou, episodes="a", weight=0.5):
    model = {"recipe": {"model": {"self_contrast_weight": weight}}}
    return {
        "fold": fold,
        "shots": shots,
        "model": model,
        "episodes_hashes": [episodes],
        "reports": [{"miou": miou}],
    }


def pfenet(fold, shots, miou, episodes="a"):
    return head(fold, shots, miou, episodes, weight=0)


def prototypes(fold, **mious):
    results = {f"{shots[1:]}-shot": {"miou": miou, "episodes_hash": "a"} for shots, miou in mious.items()}
    return {"fold": fold, "results": results}


def written(folder, *contents):
    for number, content in enumerate(contents):
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder.glob("*.json")


def test_the_page_is_what_the_files_make():
    page = (DOCS / "model-card-lite0.md").read_text(encoding="utf-8")
    assert make_model_card.with_scores(page, RESULTS.glob("*.json")) == page
    assert len(list(RESULTS.glob("*.json"))) >= 6


def test_a_table_against_literals(tmp_path):
    heads = [head(2, 1, 0.5), head(0, 1, 0.3), pfenet(2, 1, 0.4), pfenet(0, 1, 0.32)]
    files = written(tmp_path, prototypes(0, s1=0.25), *heads, prototypes(2, s1=0.6))
    table = make_model_card.table(make_model_card.scores(files))
    heading, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert [heading, *lines] == [
        ["mIoU in %", "Fold-0", "Fold-2", "mean"],
        ["1-shot: heads of this recipe", "30.0", "50.0", "40.0"],
        ["1-shot: the same without the second branch", "32.0", "40.0", "36.0"],
        ["1-shot: prototypes, nothing trained", "25.0", "60.0", "42.5"],
        ["gain over prototypes", "+5.0", "-10.0", "-2.5"],
        ["gain over no second branch", "-2.0", "+10.0", "+4.0"],
    ]


@pytest.mark.parametrize(
    "contents",
    [
        [head(0, 1, 0.5), pfenet(0, 1, 0.5)],
        [head(0, 1, 0.5), prototypes(0, s1=0.5)],
        [head(0, 1, 0.5), pfenet(0, 1, 0.5), prototypes(1, s1=0.5)],
        [head(0, 1, 0.5), pfenet(0, 1, 0.5, "b"), prototypes(0, s1=0.5)],
    ],
    ids=["no prototypes", "no head without the branch", "another fold", "other episodes"],
)
def test_only_equal_episodes_are_compared(tmp_path, contents):
    with pytest.raises(ValueError, match="same folds, shots and episodes"):
        make_model_card.scores(written(tmp_path, *contents))
