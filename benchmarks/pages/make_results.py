"""Puts tables between the marks of the two pages of results, and draws their picture, from files of examples/study.

python benchmarks/pages/make_results.py       # benchmarks/results/study to the pages and docs/images
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshotseg.results import markdown_table

sys.path.insert(0, str(Path(__file__).parents[2] / "examples/study"))
from rows import SHOTS, TABLES
from tables import Study, differences, interval, levels, mean, minus, over_seeds, paper_difference, spread

mpl.use("Agg")
mpl.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.linewidth": 0.6})

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks/results/study"
MODELS = {"pfenet": "PFENet", "scnet": "SCNet"}
COLOURS = {"pfenet": "#30343A", "scnet": "#E4002B"}
CONDITIONS = {"dropped": "", "void": "-void", "background": "-hidden"}
"""What becomes of novel objects in training images: the ending of the rows."""
Sections = Mapping[str, Callable[[Study], str]]
"""Names of marks, and what stands between them."""
ABLATIONS = ("table3", "table4", "table5", "table6", "silent")


def main() -> None:
    """Write both pages and their picture anew."""
    study = Study(RESULTS.glob("*.json"))
    for name, sections in PAGES.items():
        page = DOCS / name
        page.write_text(with_tables(page.read_text(encoding="utf-8"), study, sections), encoding="utf-8")
    curve_picture(study).savefig(DOCS / "images" / "results-curves.png", dpi=120)


def with_tables(page: str, study: Study, sections: Sections) -> str:
    """The page with all tables between their marks."""
    for name, make in sections.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if page.count(start) != 1 or page.count(end) != 1:
            raise ValueError(f"the page must have the marks of {name} once, {start.strip()} and {end}")
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{make(study)}\n\n{end}{rest.partition(end)[2]}"
    return page


def summary(study: Study) -> str:
    """Means over the folds, at the usual threshold and at the best of each model; and SCNet minus PFENet."""
    rows = {"prototypes": "training-free", **MODELS}
    lines = [["", *rows.values(), "SCNet − PFENet"]]
    for shots in SHOTS:
        usual = {row: study.values(row, shots) for row in rows}
        best = {row: study.best(row, shots)[1] for row in rows}
        for words, values in (("threshold 0.5", usual), ("best threshold of each", best)):
            means = [f"{mean(values[row]):.1f}" for row in rows]
            lines.append([f"{shots}-shot, {words}", *means, interval(minus(values["scnet"], values["pfenet"]))])
    first, last = dates(study)
    seeds = len({result["seed"] for result in study.of("scnet")})
    return (
        f"{markdown_table(lines)}\n\nmIoU in %, mean over {len(study.folds(rows))} folds and {seeds} training seeds; "
        f"measured from {first} to {last}."
    )


def dates(study: Study) -> tuple[str, str]:
    """When the first and the last of the files were made."""
    every = sorted(result["date"][:10] for result in study.results)
    return every[0], every[-1]


def files(study: Study) -> str:
    """How much was run, and when."""
    first_date, last_date = dates(study)
    minutes = sum(sum(result["seconds"].values()) for result in study.results) / 60
    first = min(study.of("scnet"), key=lambda result: (result["fold"], result["seed"]))
    return (
        f"{len(study.results)} result files from {first_date} to {last_date}, {minutes:.0f} minutes of training and "
        "testing on one core of a CPU. Each holds the command that made it, for example\n\n"
        f"```shell\n{first['command']}\n```"
    )


def measures(study: Study) -> str:
    """Other differences than those of SCNet and PFENet in mIoU."""
    lines = [["mean over the folds", *(f"{shots}-shot" for shots in SHOTS)]]
    for words, row, base, key in (
        ("SCNet − PFENet: FB-IoU", "scnet", "pfenet", "fb_iou"),
        ("SCNet − PFENet: recall of object pixels", "scnet", "pfenet", "found"),
        ("SCNet − PFENet: precision of predicted pixels", "scnet", "pfenet", "right"),
        ("PFENet − training-free: mIoU", "pfenet", "prototypes", "miou"),
        ("SCNet − training-free: mIoU", "scnet", "prototypes", "miou"),
    ):
        lines.append([words, *(interval(study.against(row, base, shots, key)) for shots in SHOTS)])
    for row, words in MODELS.items():
        gain = minus(study.values(row, 5), study.values(row, 1))
        lines.append([f"{words}, five supports − one: mIoU", "", interval(gain)])
    return markdown_table(lines)


def thresholds(study: Study) -> str:
    """MIoU at other thresholds, and the difference with the best threshold for each model."""
    known = list(study.of("scnet")[0]["results"]["1-shot"]["at"])
    lines = [["threshold", *known, "best for each"]]
    for shots in SHOTS:
        best = {}
        for row, words in MODELS.items():
            threshold, best[row] = study.best(row, shots)
            means = [f"{mean(study.values(row, shots, each)):.1f}" for each in known]
            lines.append([f"{words}, {shots}-shot", *means, f"{mean(best[row]):.1f} (at {threshold})"])
        changes = [study.against("scnet", "pfenet", shots, each) for each in known]
        own = minus(best["scnet"], best["pfenet"])
        lines.append([f"SCNet − PFENet, {shots}-shot", *map(interval, [*changes, own])])
    return markdown_table(lines)


def curves(study: Study) -> str:
    """What was seen while training, and the losses at its end: means over folds and seeds."""
    points = [str(point["iteration"]) for point in study.of("scnet")[0]["watched"]]
    lines = [["iteration", *points, f"change from {points[-2]} to {points[-1]}"]]
    for row, words in MODELS.items():
        seen = {(its["seed"], its["fold"]): [100 * point["miou"] for point in its["watched"]] for its in study.of(row)}
        change = interval({cell: values[-1] - values[-2] for cell, values in seen.items()})
        means = [f"{fmean(values):.1f}" for values in zip(*seen.values(), strict=True)]
        lines.append([f"{words}: mIoU", *means, change])
        tops = [[point["top"] for point in its["watched"]] for its in study.of(row)]
        lines.append([f"{words}: largest probability", *(f"{fmean(each):.2f}" for each in zip(*tops, strict=True)), ""])
        for name, branch in (("main", "first"), ("self_contrast_main", "second")):
            last = [its["losses"][-1][name] for its in study.of(row) if name in its["losses"][-1]]
            if last:
                cells = [*[""] * (len(points) - 1), f"{fmean(last):.3f}", ""]
                lines.append([f"{words}: training loss of the {branch} branch", *cells])
    return markdown_table(lines)


def hidden(study: Study) -> str:
    """How well both models do where novel objects are dropped, void or background."""
    folds = study.folds(row + ending for row in MODELS for ending in CONDITIONS.values())
    heads = [f"{words}, {shots}-shot" for shots in SHOTS for words in MODELS.values()]
    lines = [["novel objects are", *heads, "training images", "seeds"]]
    for name, ending in CONDITIONS.items():
        values = [over_seeds(study.values(row + ending, shots), folds) for shots in SHOTS for row in MODELS]
        images = next(its["training_images"] for its in study.of("pfenet" + ending) if its["fold"] in folds)
        lines.append([name, *map(spread, values), str(images), str(min(map(len, values)))])
    return markdown_table(lines)


def hidden_changes(study: Study) -> str:
    """What the second branch gains in each condition, and what hiding changes in each model."""
    folds = study.folds(row + ending for row in MODELS for ending in CONDITIONS.values())
    columns = {
        "mIoU, 1-shot": lambda row, base: study.against(row, base, 1, folds=folds),
        "mIoU, 5-shot": lambda row, base: study.against(row, base, 5, folds=folds),
        "1-shot, best thresholds": lambda row, base: minus(study.best(row, 1, folds)[1], study.best(base, 1, folds)[1]),
        "recall of object pixels, 1-shot": lambda row, base: study.against(row, base, 1, "found", folds),
    }
    gains = {
        name: [make("scnet" + ending, "pfenet" + ending) for make in columns.values()]
        for name, ending in CONDITIONS.items()
    }
    lines = [["", *columns], *([f"SCNet − PFENet, {name}", *map(interval, its)] for name, its in gains.items())]
    for name in ("dropped", "void"):
        more = [minus(*pair) for pair in zip(gains["background"], gains[name], strict=True)]
        lines.append([f"change of SCNet − PFENet, background − {name}", *map(interval, more)])
    for row, words in MODELS.items():
        for name in ("dropped", "void"):
            pair = row + CONDITIONS["background"], row + CONDITIONS[name]
            lines.append([f"{words}, background − {name}", *(interval(make(*pair)) for make in columns.values())])
    return markdown_table(lines)


def ablations(study: Study) -> str:
    """Every other row against PFENet and SCNet of equal seeds and folds, beside what the paper prints."""
    measured = {"scnet": "SCNet's defaults"}
    for table in ABLATIONS:
        for words, row in TABLES[table].rows.items():
            if study.of(row) and row != "pfenet":
                measured.setdefault(row, f"{TABLES[table].heading}: {words}")
    folds = study.folds(measured)
    pfenet = study.best("pfenet", 1, folds)[1]
    changes = ["1-shot − PFENet", "5-shot − PFENet", "1-shot − PFENet, best thresholds", "1-shot − SCNet"]
    lines = [["", *changes, "seeds", "paper, 1-shot − PFENet"]]
    for row, words in measured.items():
        one, five = (study.against(row, "pfenet", shots, folds=folds) for shots in SHOTS)
        best = minus(study.best(row, 1, folds)[1], pfenet)
        scnet = "" if row == "scnet" else interval(study.against(row, "scnet", 1, folds=folds))
        seeds = str(len({seed for seed, _ in one}))
        printed = paper_difference(row, "pfenet", 1, folds)
        lines.append([words, *map(interval, (one, five, best)), scnet, seeds, printed])
    return markdown_table(lines)


PAGES: dict[str, Sections] = {
    "results.md": {"summary": summary},
    "results-tables.md": {
        "files": files,
        "levels": lambda study: levels(study, TABLES["main"].rows),
        "differences": lambda study: differences(study, {"SCNet − PFENet": "scnet"}, "pfenet", paper=True),
        "measures": measures,
        "thresholds": thresholds,
        "curves": curves,
        "hidden": hidden,
        "hidden-changes": hidden_changes,
        "ablations": ablations,
    },
}
"""Pages, and the tables of each."""


def curve_picture(study: Study) -> Figure:
    """mIoU, largest probability and the losses of both branches over the iterations, means over folds and seeds."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for row, words in MODELS.items():
        runs = study.of(row)
        for axis, key, scale in ((axes[0], "miou", 100), (axes[1], "top", 1)):
            for result in runs:
                draw_mean(axis, [result["watched"]], key, scale, color=COLOURS[row], alpha=0.15, lw=0.7)
            draw_mean(axis, [result["watched"] for result in runs], key, scale, color=COLOURS[row], label=words, lw=1.6)
        for key, style, branch in (("main", "-", "first"), ("self_contrast_main", "--", "second")):
            losses = [result["losses"] for result in runs if key in result["losses"][0]]
            if losses:
                label = f"{words}, {branch} branch"
                draw_mean(axes[2], losses, key, 1, ls=style, color=COLOURS[row], label=label, lw=1.2)
    axes[1].axhline(0.5, color="#8C8C8C", lw=0.6)
    for axis, title in zip(axes, ("1-shot mIoU (%)", "largest probability", "training loss"), strict=True):
        axis.set(title=title, xlabel="iteration")
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(fontsize=7)
    axes[2].legend(fontsize=7)
    return figure


def draw_mean(axis: Axes, curves: list[list[Mapping[str, Any]]], key: str, scale: float, **style: Any) -> None:
    """Draw the mean of several curves, lists of points."""
    points = [point["iteration"] for point in curves[0]]
    axis.plot(points, [scale * fmean(point[key] for point in at) for at in zip(*curves, strict=True)], **style)


if __name__ == "__main__":
    main()
