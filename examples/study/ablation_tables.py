"""What the paper's ablations vary, and how results of several seeds and folds become tables and pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from fewshotseg.metrics import mean_and_interval
from fewshotseg.results import markdown_table

mpl.use("Agg")

Scores = Mapping[str, Mapping[tuple[int, int], float]]
"""Rows of a table: to each (seed, fold) an mIoU from 0 to 1."""

BASELINE: Mapping[str, Any] = {
    "num_prototypes": 0,
    "self_contrast_weight": 0.0,
    "grid_bins": None,
    "background_source": "query",
    "background_reducer": "query",
    "background_prior": "zeros",
}
"""PFENet. What then has no effect is set all the same, so that all tables share one run."""


class Ablation(NamedTuple):
    """A table of the paper.

    Attributes:
        title: What varies, the heading of the first column.
        rows: Each value to the fields of `SCNetConfig` that it means.
        baseline: The row that is PFENet.
        paper: What the paper prints for each value: Fold-0, 1, 2, 3, Mean.
    """

    title: str
    rows: Mapping[str, Mapping[str, Any]]
    baseline: str
    paper: Mapping[str, Sequence[float]] = {}


PAPER_NOTE = (
    "paper: what it prints for PASCAL-5i with ResNet-50, Fold-0 / 1 / 2 / 3: Mean; not measured here. It contradicts "
    "itself: its folds of lambda = 0.9 have the mean 60.6, not 57.7, and its rows support (Table 4) and 5x5 (Table 6) "
    "agree in all numbers, so that one of them is probably a mistake. Its baseline is quoted from PFENet's paper."
)
_PFENET, _SCNET = (61.7, 69.5, 55.4, 56.3, 60.8), (62.2, 70.5, 61.1, 58.1, 63.0)

ABLATIONS = {
    "table3": Ablation(
        "n",
        {"0": BASELINE} | {str(n): {"num_prototypes": n, "grid_bins": None} for n in (1, 2, 3, 4, 5)},
        "0",
        {
            "0": _PFENET,
            "1": (61.7, 70.1, 60.4, 55.0, 61.8),
            "2": (61.9, 70.0, 61.6, 55.8, 62.3),
            "3": _SCNET,
            "4": (62.0, 70.3, 62.0, 56.1, 62.6),
            "5": (61.3, 70.1, 60.1, 56.6, 62.0),
        },
    ),
    "table4": Ablation(
        "prototype from",
        {"baseline": BASELINE}
        | {
            source: {"background_source": source, "num_prototypes": 1, "grid_bins": None}
            for source in ("support", "query")
        },
        "baseline",
        {"support": (59.8, 69.7, 58.2, 56.7, 61.1), "query": (61.7, 70.1, 60.4, 55.0, 61.8)},
    ),
    "table5": Ablation(
        "lambda",
        {"0": BASELINE}
        | {f"{weight:g}": {"self_contrast_weight": weight} for weight in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)},
        "0",
        {
            "0": _PFENET,
            "0.1": (61.1, 69.9, 58.2, 57.3, 61.6),
            "0.3": (60.8, 70.1, 60.5, 57.0, 62.1),
            "0.5": _SCNET,
            "0.7": (61.2, 70.3, 61.4, 57.2, 62.5),
            "0.9": (59.8, 69.2, 60.0, 53.3, 57.7),
            "1": (17.2, 28.8, 33.2, 21.0, 25.1),
        },
    ),
    "table6": Ablation(
        "regions",
        {"baseline": BASELINE}
        | {f"{bins}x{bins}": {"grid_bins": bins} for bins in (2, 3, 4, 5)}
        | {"k-means": {"grid_bins": None, "num_prototypes": 3}},
        "baseline",
        {
            "2x2": (60.1, 69.1, 57.4, 54.0, 60.1),
            "3x3": (60.6, 69.2, 60.2, 55.6, 61.4),
            "4x4": (60.9, 70.0, 60.7, 56.1, 61.9),
            "5x5": (59.8, 69.7, 58.2, 56.7, 61.1),
            "k-means": _SCNET,
        },
    ),
    "silent": Ablation(
        "prior/reducer",
        {"baseline": BASELINE}
        | {
            f"{prior}/{reducer}": {"background_prior": prior, "background_reducer": reducer}
            for prior in ("zeros", "shared", "complement")
            for reducer in ("query", "support")
        },
        "baseline",
    ),
}
"""Tables 3 to 6, and the two choices that the paper leaves open."""


def differences(scores: Scores, baseline: str) -> Scores:
    """Every other row minus the baseline, where both have the seed and the fold; nothing without a baseline."""
    base = scores.get(baseline, {})
    rows = {
        row: {cell: miou - base[cell] for cell, miou in cells.items() if cell in base}
        for row, cells in scores.items()
        if row != baseline
    }
    return {row: cells for row, cells in rows.items() if cells}


def over_folds(cells: Mapping[tuple[int, int], float], folds: Sequence[int]) -> list[float]:
    """For every seed that has all of these folds, the mean over them."""
    seeds = dict.fromkeys(seed for seed, _ in cells)
    return [
        fmean(cells[seed, fold] for fold in folds) for seed in seeds if all((seed, fold) in cells for fold in folds)
    ]


def estimate(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over seeds, and the half width of its 95 % interval where there are several."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return (fmean(values) if values else math.nan), None
    return mean_and_interval(values)


def folds_of(scores: Scores) -> list[int]:
    """All folds of a table, ascending."""
    return sorted({fold for cells in scores.values() for _, fold in cells})


def report(title: str, ablation: Ablation, scores: Mapping[int, Scores], *, paper: bool = False) -> str:
    """A Markdown page: for each number of shots the table, and the differences to the baseline where it was run.

    Args:
        title: First line of the page.
        ablation: What varies.
        scores: Number of shots to scores.
        paper: Add what the paper prints to the table of one shot.
    """
    parts = [f"# {title}"]
    for shots, rows in scores.items():
        printed = ablation.paper if paper and shots == 1 else None
        parts += [f"## {shots}-shot, mIoU in %", markdown(ablation.title, rows, paper=printed)]
        changes = differences(rows, ablation.baseline)
        if changes:
            parts += ["Minus the baseline of the same seed and fold:", markdown(ablation.title, changes, sign="+")]
    seeds = dict.fromkeys(str(seed) for rows in scores.values() for cells in rows.values() for seed, _ in cells)
    parts += [f"Mean: over these folds. ±: half the 95 % interval over training seeds, here {', '.join(seeds)}."]
    return "\n\n".join(parts + ([PAPER_NOTE] if paper and ablation.paper else []))


def markdown(
    heading: str, scores: Scores, *, sign: str = "", paper: Mapping[str, Sequence[float]] | None = None
) -> str:
    """Scores as the paper prints them: rows, Fold-0 to Fold-3 as far as they were run, and the mean over these.

    Args:
        heading: Of the first column.
        scores: What to print; missing cells become ``-``.
        sign: ``"+"`` shows the sign of positive numbers.
        paper: Fold-0 to 3 and the mean of the paper for each row, a last column.
    """
    folds = folds_of(scores)
    table = [[heading, *(f"Fold-{fold}" for fold in folds), "Mean", *(["paper"] if paper else [])]]
    for row, cells in scores.items():
        columns = [over_folds(cells, [fold]) for fold in folds]
        printed = [_paper_cell(paper.get(row, ()))] if paper else []
        table.append([row, *(_cell(values, sign) for values in (*columns, over_folds(cells, folds))), *printed])
    return markdown_table(table)


def _cell(values: Sequence[float], sign: str) -> str:
    if not values:
        return "-"
    mean, half = estimate(values)
    return f"{100 * mean:{sign}.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def _paper_cell(numbers: Sequence[float]) -> str:
    *folds, mean = map(str, numbers or ("-",))
    return f"{' / '.join(folds)}: {mean}" if folds else mean


def plot(path: Path, ablation: Ablation, scores: Mapping[int, Scores]) -> None:
    """Draw the means over folds of every row, with their intervals, a line for each number of shots."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for shots, rows in scores.items():
        means = [estimate(over_folds(cells, folds_of(rows))) for cells in rows.values()]
        halves = [math.nan if half is None else 100 * half for _, half in means]
        axis.errorbar(
            list(rows), [100 * mean for mean, _ in means], halves, marker="o", capsize=3, label=f"{shots}-shot"
        )
    axis.set(xlabel=ablation.title, ylabel="mIoU (%)")
    axis.grid(axis="y", alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=150)


def plot_shares(path: Path, shares: Mapping[str, float]) -> None:
    """Draw a bar for each fold."""
    figure = Figure(figsize=(4, 3), layout="constrained")
    axis = figure.subplots()
    bars = axis.bar(list(shares), [100 * share for share in shares.values()])
    axis.bar_label(bars, fmt="%.1f")
    axis.margins(y=0.1)
    axis.set(ylabel="novel-class objects (%)")
    figure.savefig(path, dpi=150)
