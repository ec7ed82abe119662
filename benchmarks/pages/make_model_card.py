"""Puts the scores on held-out classes into model-card-lite0.md; none of them is typed.

python benchmarks/pages/make_model_card.py

Reads results/held-out: those of `fewshotseg evaluate` for heads of each fold, and of the study for prototypes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from fewshotseg.results import markdown_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks/results/held-out"
START, END = "<!-- held-out -->\n", "<!-- /held-out -->"
HEAD, PFENET, FLOOR = "heads of this recipe", "the same without the second branch", "prototypes, nothing trained"


def main() -> None:
    """Write the page anew."""
    page = DOCS / "model-card-lite0.md"
    page.write_text(with_scores(page.read_text(encoding="utf-8"), RESULTS.glob("*.json")), encoding="utf-8")


def with_scores(page: str, files: Iterable[Path]) -> str:
    """The page with the table of these files between its marks."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n" + table(scores(files)) + "\n" + END + after


def scores(files: Iterable[Path]) -> dict[str, dict[tuple[int, int], float]]:
    """For each kind of model, mIoU in percent by shots and fold, all on the same episodes.

    Raises:
        ValueError: If episodes differ, or one has something that another lacks.
    """
    found: dict[str, dict[tuple[int, int], float]] = {HEAD: {}, PFENET: {}, FLOOR: {}}
    episodes: dict[tuple[int, int], set[str]] = {}
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "results" in content:  # of the study
            parts = {(int(shots[0]), content["fold"]): its for shots, its in content["results"].items()}
            name, hashes = FLOOR, {cell: its["episodes_hash"] for cell, its in parts.items()}
        else:
            parts = {(content["shots"], content["fold"]): content["reports"][0]}
            name = HEAD if content["model"]["recipe"]["model"]["self_contrast_weight"] else PFENET
            hashes = dict.fromkeys(parts, content["episodes_hashes"][0])
        for cell, its in parts.items():
            found[name][cell] = 100 * its["miou"]
            episodes.setdefault(cell, set()).add(hashes[cell])
    if any(its.keys() != episodes.keys() for its in found.values()) or any(len(its) > 1 for its in episodes.values()):
        raise ValueError("all must be measured on the same folds, shots and episodes")
    return found


def table(found: dict[str, dict[tuple[int, int], float]]) -> str:
    """Markdown, with means over the folds and what training gains."""
    cells = sorted(found[HEAD])
    folds = sorted({fold for _, fold in cells})
    lines = [["mIoU in %", *(f"Fold-{fold}" for fold in folds), "mean"]]
    for shots in sorted({shots for shots, _ in cells}):
        rows = {name: [its[shots, fold] for fold in folds] for name, its in found.items()}
        lines += [line(f"{shots}-shot: {name}", values, ".1f") for name, values in rows.items()]
        for name, other in (("prototypes", FLOOR), ("no second branch", PFENET)):
            gains = [head - base for head, base in zip(rows[HEAD], rows[other], strict=True)]
            lines.append(line(f"gain over {name}", gains, "+.1f"))
    return markdown_table(lines) + "\n"


def line(name: str, values: Sequence[float], form: str) -> list[str]:
    """A row of the table, with its mean."""
    return [name, *(f"{value:{form}}" for value in (*values, fmean(values)))]


if __name__ == "__main__":
    main()
