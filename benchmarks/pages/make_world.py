"""Puts the tables of world.md and model-card.md between their marks, from the result files of examples/study.

python benchmarks/pages/make_world.py         # coco-mini and world of benchmarks/results to docs
"""

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from fewshotseg.results import markdown_table

sys.path.insert(0, str(Path(__file__).parents[2] / "examples/study"))
from make_results import DOCS, with_tables
from rows import SHOTS, TABLES
from tables import Study, levels, mean
from world_table import of_all_episodes, rows, table, together

RESULTS = DOCS.parent / "benchmarks/results/coco-mini"
WORLD = DOCS.parent / "benchmarks/results/world"
ROWS = TABLES["training-free"].rows


def main() -> None:
    """Write the pages anew."""
    study = Study(RESULTS.glob("*.json"))
    for path, sections in PAGES.items():
        path.write_text(with_tables(path.read_text(encoding="utf-8"), study, sections), encoding="utf-8")


def benchmark(study: Study) -> str:
    """Each row by fold, at the threshold of one half."""
    return levels(study, ROWS, "")


def best(study: Study) -> str:
    """Each row at the threshold that is best for it on average over the folds."""
    lines = [["at its best threshold", *(f"{shots}-shot" for shots in SHOTS)]]
    for words, row in _rows(study).items():
        found = [study.best(row, shots, study.folds(_rows(study).values())) for shots in SHOTS]
        lines.append([words, *(f"{mean(values):.1f} at {threshold}" if values else "-" for threshold, values in found)])
    return markdown_table(lines)


def sizes(study: Study) -> str:
    """The mean IoU of episodes by the object's share of the photograph; all folds together."""
    parts = [(shots, size) for shots in SHOTS for size in ("<2%", "2-10%", ">10%")]
    lines = [["IoU of an episode", *(f"{shots}-shot, {size}" for shots, size in parts)]]
    for words, row in _rows(study).items():
        cells = []
        for shots, size in parts:
            every = of_all_episodes([result["results"][f"{shots}-shot"]["by_size"][size] for result in study.of(row)])
            cells.append(f"{100 * every['episode_miou']:.1f}" if every["episodes"] else "-")
        lines.append([words, *cells])
    return markdown_table(lines)


def shipped(study: Study) -> str:
    """What world.py says of the model that comes with the package, and what densities beside it change."""
    return table(*(_read(WORLD / f"scnet-lite0{ending}.json") for ending in ("-density", "")))


def held_out(study: Study) -> str:
    """The recipe of scnet-lite2 on classes left out of its training, fold by fold, beside scnet-lite0 on the same."""
    models = (sorted(WORLD.glob(f"{name}-fold?.json")) for name in ("scnet-lite2", "scnet-lite0"))
    return table(*(together([_read(file) for file in files]) for files in models))


def known(study: Study) -> str:
    """The same models on classes that they have learned, in photographs that their training left out."""
    lines = [["mIoU in %", *(f"Fold-{fold}" for fold in range(3)), "Mean"]]
    for kind in ("of VOC", "others"):
        for shots in SHOTS:
            for name, words in {"scnet-lite2": "the recipe", "scnet-lite0": "`scnet-lite0`"}.items():
                found = [_row(f"{name}-known{fold}", f"{shots}-shot, mIoU, {kind}") for fold in range(3)]
                lines.append([f"{kind}, {shots}-shot: {words}", *(f"{iou:.1f}" for iou in (*found, fmean(found)))])
    return markdown_table(lines)


def branches(study: Study) -> str:
    """The recipe with and without the second branch."""
    words = [f"{shots}-shot, mIoU, {kind}" for shots in SHOTS for kind in ("all", "others")]
    lines = [["Fold-1 / Fold-2", r"$\lambda = 0.5$", r"$\lambda = 0$"]]
    for asked in (*words, "absent, something is found, % of photographs"):
        cells = (
            " / ".join(f"{_row(f'{name}-fold{fold}', asked):.1f}" for fold in (1, 2))
            for name in ("scnet-lite2", "scnet-lite2-lambda0")
        )
        lines.append([asked, *cells])
    return markdown_table(lines)


def _row(file: str, words: str) -> float:
    found = _read(WORLD / f"{file}.json")
    (row,) = (row for name, row in rows(found).items() if name.startswith(words))
    return row([int(class_id) for class_id in found["names"]])


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _rows(study: Study) -> dict[str, str]:
    """The rows that have a result."""
    return {words: row for words, row in ROWS.items() if study.of(row)}


SECTIONS = {"benchmark": benchmark, "best": best, "sizes": sizes, "shipped": shipped, "held-out": held_out}
PAGES = {
    DOCS / "world.md": SECTIONS,
    DOCS / "model-card.md": {"held-out": held_out, "known": known, "branches": branches},
}

if __name__ == "__main__":
    main()
