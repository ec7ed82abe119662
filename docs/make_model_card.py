"""Puts the scores on held-out classes into model-card.md; none of them is typed.

python docs/make_model_card.py

Reads results/held-out: those of examples/evaluate.py for heads of each fold, and of examples/study.py for prototypes.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

DOCS = Path(__file__).parent
RESULTS = DOCS / "results/held-out"
START, END = "<!-- held-out -->\n", "<!-- /held-out -->"
HEAD, FLOOR = "heads of this recipe", "prototypes, nothing trained"


def main() -> None:
    """Write the page anew."""
    page = DOCS / "model-card.md"
    page.write_text(with_scores(page.read_text(encoding="utf-8"), RESULTS.glob("*.json")), encoding="utf-8")


def with_scores(page: str, files: Iterable[Path]) -> str:
    """The page with the table of these files between its marks."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n" + table(scores(files)) + "\n" + END + after


def scores(files: Iterable[Path]) -> dict[str, dict[tuple[int, int], float]]:
    """For heads and prototypes, mIoU in percent by shots and fold, all on the same episodes.

    Raises:
        ValueError: If episodes differ, or one of the two has something that the other lacks.
    """
    found: dict[str, dict[tuple[int, int], float]] = {HEAD: {}, FLOOR: {}}
    episodes: dict[tuple[int, int], set[str]] = {}
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "results" in content:  # of the study
            parts = {(int(shots[0]), content["fold"]): its for shots, its in content["results"].items()}
            name, hashes = FLOOR, {cell: its["episodes_hash"] for cell, its in parts.items()}
        else:
            parts = {(content["shots"], content["fold"]): content["reports"][0]}
            name, hashes = HEAD, dict.fromkeys(parts, content["episodes_hashes"][0])
        for cell, its in parts.items():
            found[name][cell] = 100 * its["miou"]
            episodes.setdefault(cell, set()).add(hashes[cell])
    if found[HEAD].keys() != found[FLOOR].keys() or any(len(hashes) > 1 for hashes in episodes.values()):
        raise ValueError("heads and prototypes must be measured on the same folds, shots and episodes")
    return found


def table(found: dict[str, dict[tuple[int, int], float]]) -> str:
    """Markdown, with means over the folds and what training gains."""
    cells = sorted(next(iter(found.values())))
    folds = sorted({fold for _, fold in cells})
    lines = [f"| mIoU in % | {' | '.join(f'Fold-{fold}' for fold in folds)} | mean |", "|---" * (len(folds) + 2) + "|"]
    for shots in sorted({shots for shots, _ in cells}):
        rows = {name: [its[shots, fold] for fold in folds] for name, its in found.items()}
        for name, values in rows.items():
            numbers = " | ".join(f"{value:.1f}" for value in (*values, fmean(values)))
            lines.append(f"| {shots}-shot: {name} | {numbers} |")
        gains = [head - floor for head, floor in zip(rows[HEAD], rows[FLOOR], strict=True)]
        lines.append(f"| difference | {' | '.join(f'{gain:+.1f}' for gain in (*gains, fmean(gains)))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
