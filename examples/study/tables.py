"""Tables and pictures of the result files of study.py.

    python examples/study/tables.py outputs/study            # outputs/study/tables.md and a picture for each table
    python examples/study/tables.py outputs/study --paper    # with what the paper prints

The same arithmetic makes docs/results.md and docs/results-tables.md. ± is the standard deviation over training seeds.
Brackets hold the 95 % confidence interval of a difference over equal seeds and folds: folds are given, seeds are drawn,
see `mean_and_interval`.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from fewshotseg import mean_and_interval
from fewshotseg.results import markdown_table
from rows import PAPER, PAPER_NOTE, ROWS, SHOTS, TABLES, Table

mpl.use("Agg")

Values = Mapping[tuple[int, int], float]
"""To each (seed, fold) a number."""


class Study:
    """All result files of a folder.

    Args:
        files: Of study.py, at least one.

    Raises:
        ValueError: If there are none, one is something else, or results of a fold are of different test episodes.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.results: list[dict[str, Any]] = []
        for file in sorted(files):
            try:
                self.results.append(json.loads(file.read_text(encoding="utf-8")))
            except ValueError as error:
                raise ValueError(f"{file} must be a result of study.py, but it is not JSON: {error}") from error
            if "results" not in self.results[-1]:
                raise ValueError(f"{file} must be a result of study.py, but it has no results")
        if not self.results:
            raise ValueError("there must be result files of study.py, got none")
        hashes: dict[tuple[int, str], set[str]] = {}
        for result in self.results:
            for shots, report in result["results"].items():
                hashes.setdefault((result["fold"], shots), set()).add(report["episodes_hash"])
        for (fold, _), found in hashes.items():
            if len(found) > 1:
                raise ValueError(f"results of a fold must be of the same test episodes, those of fold {fold} are not")

    def of(self, row: str) -> list[dict[str, Any]]:
        """The results of a row."""
        return [result for result in self.results if result["row"] == row]

    def folds(self, rows: Iterable[str]) -> list[int]:
        """The folds to compare rows on, ascending: those that all rows with a result have, or else all of them."""
        own = [{result["fold"] for result in self.of(row)} for row in rows if self.of(row)]
        return sorted(set.intersection(*own) or set.union(*own)) if own else []

    def values(self, row: str, shots: int, key: str = "miou", folds: Sequence[int] | None = None) -> Values:
        """A row's numbers in percent, of the files that have them.

        Args:
            row: Which.
            shots: Number of supports.
            key: Of a report; or ``"found"`` or ``"right"`` of `pixel_shares`; or a threshold such as ``"0.4"``, for the
                mIoU had foreground begun at that probability.
            folds: Only these; all by default.
        """
        found = {}
        for result in self.of(row):
            report = result["results"][f"{shots}-shot"]
            numbers = {**report, **report.get("at", {}), **(pixel_shares(report) if key in {"found", "right"} else {})}
            if numbers.get(key) is not None and (folds is None or result["fold"] in folds):
                found[result["seed"], result["fold"]] = 100 * numbers[key]
        return found

    def against(self, row: str, base: str, shots: int, key: str = "miou", folds: Sequence[int] | None = None) -> Values:
        """A row minus another, over equal seeds and folds; what isn't trained is the same for all seeds."""
        seeds = {result["seed"] for result in self.results}
        first, second = (
            {
                (each, fold): value
                for (seed, fold), value in self.values(name, shots, key, folds).items()
                for each in (seeds if ROWS[name].model is None else (seed,))
            }
            for name in (row, base)
        )
        return minus(first, second)

    def best(self, row: str, shots: int, folds: Sequence[int] | None = None) -> tuple[str, Values]:
        """The threshold with the highest mean mIoU on these folds, and the values there; empty if no file says them."""
        reports = [result["results"][f"{shots}-shot"] for result in self.of(row)]
        thresholds = dict.fromkeys(threshold for report in reports for threshold in report.get("at", ()))
        values = {threshold: self.values(row, shots, threshold, folds) for threshold in thresholds}
        best = max((t for t in values if values[t]), key=lambda t: mean(values[t]), default="")
        return best, values.get(best, {})


def pixel_shares(report: Mapping[str, Any]) -> dict[str, float]:
    """Which share of the objects' pixels was ``found``, and which share of the answer is ``right``; means over classes.

    A class without any answer has no wrong one.
    """
    sums: dict[int, list[int]] = {}
    for class_id, *counts in report["counts"]:
        sums[class_id] = [total + count for total, count in zip(sums.get(class_id, [0, 0, 0]), counts, strict=True)]
    found = [both / truth for both, _, truth in sums.values()]
    right = [both / answer if (answer := both + either - truth) else 1.0 for both, either, truth in sums.values()]
    return {"found": fmean(found), "right": fmean(right)}


def minus(first: Values, second: Values) -> Values:
    """``first`` minus ``second`` where both have the seed and the fold."""
    return {cell: first[cell] - second[cell] for cell in first if cell in second}


def by_fold(values: Values) -> dict[int, list[float]]:
    """The values of each fold, folds ascending."""
    folds = sorted({fold for _, fold in values})
    return {fold: [value for (_, its), value in sorted(values.items()) if its == fold] for fold in folds}


def mean(values: Values) -> float:
    """The mean over folds of the means over seeds."""
    return fmean(map(fmean, by_fold(values).values()))


def over_seeds(values: Values, folds: Sequence[int]) -> list[float]:
    """The mean over these folds of every seed that has them all."""
    seeds = sorted({seed for seed, _ in values})
    return [
        fmean(values[seed, fold] for fold in folds) for seed in seeds if all((seed, fold) in values for fold in folds)
    ]


# Cells and tables -------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """A cell: the mean, and the standard deviation over seeds if there are several."""
    if not values:
        return "-"
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def interval(values: Values) -> str:
    """A cell: the mean difference, and its 95 % confidence interval if there are several seeds."""
    groups = by_fold(values).values()
    if not groups:
        return "-"
    if max(map(len, groups)) == 1:
        return f"{mean(values):+.1f}"
    middle, half = mean_and_interval(*groups)
    return f"{middle:+.1f} ({middle - half:+.1f} to {middle + half:+.1f})"


def levels(study: Study, rows: Mapping[str, str], heading: str = "", *, paper: bool = False) -> str:
    """Means and standard deviations for each fold and over the folds, for each number of shots.

    Args:
        study: The results.
        rows: Words of the first column to rows; those without a result are left out.
        heading: Of the first column.
        paper: Add a column with what the paper prints.
    """
    folds = study.folds(rows.values())
    lines = [[heading, *(f"Fold-{fold}" for fold in folds), "Mean", "seeds", *(["paper"] if paper else [])]]
    for shots in SHOTS:
        for words, row in rows.items():
            values = study.values(row, shots, folds=folds)
            if not values:
                continue
            cells = [spread(by_fold(values).get(fold, [])) for fold in folds]
            number = str(max(map(len, by_fold(values).values())))
            *printed, printed_mean = map(str, PAPER[shots].get(row, ("-",)))
            column = [f"{' / '.join(printed)}: {printed_mean}" if printed else printed_mean] if paper else []
            lines.append([f"{words}, {shots}-shot", *cells, spread(over_seeds(values, folds)), number, *column])
    return markdown_table(lines)


def differences(study: Study, rows: Mapping[str, str], base: str, heading: str = "", *, paper: bool = False) -> str:
    """Rows minus another, on each fold and over the folds, each with its interval.

    Args:
        study: The results.
        rows: Words of the first column to rows; those without a result are left out.
        base: The row to subtract.
        heading: Of the first column.
        paper: Add a column with the difference in what the paper prints for these folds.
    """
    folds = study.folds([base, *rows.values()])
    lines = [[heading, *(f"Fold-{fold}" for fold in folds), "Mean", *(["paper"] if paper else [])]]
    for shots in SHOTS:
        for words, row in rows.items():
            change = study.against(row, base, shots, folds=folds)
            if row == base or not change:
                continue
            own = [{cell: v for cell, v in change.items() if cell[1] == fold} for fold in folds]
            column = [paper_difference(row, base, shots, folds)] if paper else []
            lines.append([f"{words}, {shots}-shot", *map(interval, own), interval(change), *column])
    return markdown_table(lines)


def paper_difference(row: str, base: str, shots: int, folds: Sequence[int]) -> str:
    """A cell: what the paper prints for a row minus the other, on these folds; of all folds the mean that it prints."""
    printed, columns = PAPER[shots], folds if len(folds) < 4 else [-1]
    if row not in printed or base not in printed:
        return "-"
    return f"{fmean(printed[row][column] - printed[base][column] for column in columns):+.1f}"


def plot(study: Study, table: Table) -> Figure:
    """Each row's mean over the folds as a point, with its standard deviation over seeds."""
    rows = {words: row for words, row in table.rows.items() if study.of(row)}
    figure = Figure(figsize=(max(4.5, 1.2 * len(rows)), 3.4), layout="constrained")
    axis = figure.subplots()
    for shots, shift, marker in zip(SHOTS, (-0.08, 0.08), "os", strict=True):
        found = [over_seeds(study.values(row, shots), study.folds(rows.values())) for row in rows.values()]
        places = [place + shift for place in range(len(rows))]
        errors = [stdev(values) if len(values) > 1 else 0 for values in found]
        means = [fmean(values) if values else float("nan") for values in found]
        axis.errorbar(places, means, errors, fmt=marker, capsize=3, label=f"{shots}-shot")
    axis.set_xticks(range(len(rows)), [words.replace(" (", "\n(").replace(" / ", "\n/ ") for words in rows])
    low, high = axis.get_ylim()
    axis.set(title=table.title, xlabel=table.heading, ylabel="mIoU (%)", ylim=(max(low, 0), min(high, 100)))
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def report(study: Study, *, paper: bool = False) -> str:
    """A Markdown page with every table that has a row of its own in the results."""
    parts = []
    for table in (TABLES[name] for name in found_tables(study)):
        parts += [f"## {table.title}", levels(study, table.rows, table.heading, paper=paper)]
        if study.of("pfenet"):
            parts += ["Minus PFENet:", differences(study, table.rows, "pfenet", table.heading, paper=paper)]
    parts += [
        "mIoU in %, on the folds that all rows of a table have. ±: standard deviation over training seeds. "
        "Brackets: 95 % confidence interval of the mean difference."
    ]
    return "\n\n".join(["# Tables", *parts, *([PAPER_NOTE] if paper else [])]) + "\n"


def found_tables(study: Study) -> list[str]:
    """The tables of which a row was run: for all but the first, one that is not in the first."""
    main = set(TABLES["main"].rows.values())
    own = {name: set(table.rows.values()) - (main if name != "main" else set()) for name, table in TABLES.items()}
    return [name for name, rows in own.items() if any(map(study.of, rows))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the tables; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="tables.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="--out of study.py")
    parser.add_argument("--paper", action="store_true", help="show what the paper prints beside what is measured")
    options = parser.parse_args(arguments)
    try:
        study = Study(options.folder.glob("*.json"))
        text = report(study, paper=options.paper)
        (options.folder / "tables.md").write_text(text, encoding="utf-8")
        for name in found_tables(study):
            plot(study, TABLES[name]).savefig(options.folder / f"{name}.png", dpi=150)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(text)


if __name__ == "__main__":
    main()
