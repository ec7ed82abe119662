"""Makes results.md and its pictures from the result files of examples/study.py; nothing on that page is typed.

python docs/make_results.py                   # docs/results/*.json to docs/results.md and docs/images
python docs/make_results.py outputs/study     # other files, printed
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from fewshotseg._student import student_t
from fewshotseg.results import markdown_table

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/study"))
from ablation_tables import ABLATIONS

mpl.use("Agg")
mpl.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.linewidth": 0.6})

DOCS = Path(__file__).parent
SHOTS = ("1-shot", "5-shot")
COLOURS = {"pfenet": "#30343A", "scnet": "#E4002B"}
NAMES = {"prototypes": "training-free", "pfenet": "PFENet (λ = 0)", "scnet": "SCNet (n = 3, λ = 0.5)"}

Values = Mapping[tuple[int, int], float]
"""To each (seed, fold) a number."""


# Numbers ----------------------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A mean over folds of means over seeds.

    Attributes:
        mean: Of the folds' means.
        spread: Standard deviation between seeds of a fold, pooled over folds; NaN for single seeds.
        half: Half the width of the mean's 95 % interval; NaN for single seeds.
    """

    mean: float
    spread: float
    half: float

    @property
    def low(self) -> float:
        """Where the interval begins."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Where the interval ends."""
        return self.mean + self.half

    @property
    def tells(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def estimate(values: Values) -> Estimate:
    """The mean over folds, with what training seeds alone make uncertain about it.

    Folds are given, not drawn: their differences are no noise. Seeds are drawn, and with one spread in all folds the
    mean of F folds with n seeds each has Student's t distribution with F (n - 1) degrees of freedom.

    Example:
        >>> estimate({(0, 0): 1.0, (1, 0): 3.0, (0, 1): 10.0, (1, 1): 12.0}).mean
        6.5
    """
    folds = by_fold(values)
    means = {fold: fmean(found) for fold, found in folds.items()}
    freedom = sum(len(found) - 1 for found in folds.values())
    mean = fmean(means.values())
    if freedom == 0:
        return Estimate(mean, math.nan, math.nan)
    squares = sum((value - means[fold]) ** 2 for fold, found in folds.items() for value in found)
    variance = squares / freedom
    error = math.sqrt(variance * sum(1 / len(found) for found in folds.values())) / len(folds)
    return Estimate(mean, math.sqrt(variance), student_t(0.95, freedom) * error)


def by_fold(values: Values) -> dict[int, list[float]]:
    """The values of each fold, folds ascending."""
    folds = sorted({fold for _, fold in values})
    return {fold: [value for (_, its), value in sorted(values.items()) if its == fold] for fold in folds}


def paired(first: Values, second: Values) -> dict[tuple[int, int], float]:
    """``first`` minus ``second`` where both have the seed and the fold."""
    return {cell: first[cell] - second[cell] for cell in first if cell in second}


def pixel_shares(result: Mapping[str, Any], shots: str) -> dict[str, float]:
    """Which share of the objects' pixels was ``found``, and which share of the answer is ``right``; means over classes.

    A class without any answer has no wrong one.
    """
    sums: dict[int, list[int]] = {}
    for class_id, *counts in result["results"][shots]["counts"]:
        sums[class_id] = [total + count for total, count in zip(sums.get(class_id, [0, 0, 0]), counts, strict=True)]
    found = [both / truth for both, _, truth in sums.values()]
    right = [both / answer if (answer := both + either - truth) else 1.0 for both, either, truth in sums.values()]
    return {"found": fmean(found), "right": fmean(right)}


class Study:
    """All result files of a folder, which were measured alike."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(files)]
        if not self.results:
            raise ValueError("there must be result files, got none")
        for fold in {result["fold"] for result in self.results}:
            episodes = {
                (shots, result["results"][shots]["episodes_hash"])
                for result in self.results
                for shots in SHOTS
                if result["fold"] == fold
            }
            if len(episodes) != len(SHOTS):
                raise ValueError(
                    f"all results of a fold must be of the same test episodes, those of fold {fold} are not"
                )

    def of(self, row: str) -> list[Any]:
        """The results of a row."""
        return [result for result in self.results if result["row"] == row]

    def values(self, row: str, shots: str, key: str = "miou", folds: Sequence[int] | None = None) -> Values:
        """A row's numbers in percent: of a report, or ``found`` or ``right`` of `pixel_shares`."""
        return {
            (result["seed"], result["fold"]): 100 * {**pixel_shares(result, shots), **result["results"][shots]}[key]
            for result in self.of(row)
            if folds is None or result["fold"] in folds
        }

    def at(self, row: str, shots: str, threshold: str) -> dict[tuple[int, int], float]:
        """A row's mIoU in percent, had foreground begun at another probability; of the files that say so."""
        return {
            (result["seed"], result["fold"]): 100 * result["results"][shots]["at"][threshold]
            for result in self.of(row)
            if "at" in result["results"][shots]
        }

    def against(self, row: str, base: str, shots: str, key: str = "miou") -> dict[tuple[int, int], float]:
        """A row minus another, over equal seeds and folds."""
        return paired(self.values(row, shots, key), self.values(base, shots, key))


# Text -------------------------------------------------------------------------------------------------------------


def mean_and_spread(values: Sequence[float]) -> str:
    """A cell: the mean, and the standard deviation over seeds if there are several."""
    if not values:
        return "-"
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def over_seeds(values: Values, folds: Sequence[int]) -> list[float]:
    """The mean over these folds of every seed that has them all."""
    seeds = sorted({seed for seed, _ in values})
    return [
        fmean(values[seed, fold] for fold in folds) for seed in seeds if all((seed, fold) in values for fold in folds)
    ]


def interval(values: Values) -> str:
    """A cell: the mean difference and its 95 % interval."""
    if not values:
        return "-"
    found = estimate(values)
    return f"{found.mean:+.1f}" + ("" if math.isnan(found.half) else f" ({found.low:+.1f} to {found.high:+.1f})")


def verdict(values: Values) -> str:
    """What an interval says, in words."""
    found = estimate(values)
    if math.isnan(found.half):
        return f"differs by {found.mean:+.1f} in a single seed, which says little"
    word = "higher" if found.mean > 0 else "lower"
    if found.tells:
        return f"is {word} by {abs(found.mean):.1f} points (95 % interval {found.low:+.1f} to {found.high:+.1f})"
    return f"cannot be told from it ({found.mean:+.1f}, 95 % interval {found.low:+.1f} to {found.high:+.1f})"


def rows_by_fold(study: Study, rows: Sequence[str], shots: str, key: str = "miou") -> str:
    """Means and standard deviations for each fold, and over the folds."""
    folds = sorted({result["fold"] for row in rows for result in study.of(row)})
    lines = [["", *(f"Fold-{fold}" for fold in folds), "Mean", "seeds"]]
    for row in rows:
        values = study.values(row, shots, key)
        cells = [mean_and_spread(by_fold(values).get(fold, [])) for fold in folds]
        number = max(map(len, by_fold(values).values()), default=0)
        seeds = "-" if row == "prototypes" else str(number)
        lines.append([NAMES.get(row, row), *cells, mean_and_spread(over_seeds(values, folds)), seeds])
    return markdown_table(lines)


def differences_by_fold(study: Study, row: str, base: str) -> str:
    """One row minus another: each fold with its own interval, and all folds."""
    folds = sorted({result["fold"] for result in study.of(row)})
    lines = [["", *(f"Fold-{fold}" for fold in folds), "Mean"]]
    for shots in SHOTS:
        values = study.against(row, base, shots)
        own = [{cell: value for cell, value in values.items() if cell[1] == fold} for fold in folds]
        lines.append([shots, *map(interval, own), interval(values)])
    return markdown_table(lines)


def printed_difference(ablation: str, value: str, folds: Sequence[int]) -> str:
    """What the paper prints for a value minus its baseline, over these folds."""
    paper = ABLATIONS[ablation].paper
    base = paper.get(ABLATIONS[ablation].baseline, PAPER_BASELINE)
    if value not in paper:
        return "-"
    return f"{fmean(paper[value][fold] - base[fold] for fold in folds):+.1f}"


PAPER_BASELINE = ABLATIONS["table3"].paper["0"]


def ablation_section(study: Study, ablation: str, title: str, rows: Mapping[str, str], sentence: str) -> list[str]:
    """A table of the paper: rows against the baseline of equal seeds and folds, beside what the paper prints.

    Args:
        study: The results.
        ablation: Its name in `ABLATIONS`.
        title: Heading.
        rows: The paper's values to rows of the study.
        sentence: What the paper concludes.
    """
    measured = {value: row for value, row in rows.items() if study.of(row)}
    own = [row for row in measured.values() if row not in {"pfenet", "scnet"}]
    if not own:
        return []
    folds = sorted({result["fold"] for row in own for result in study.of(row)})
    where = f"fold{'s' if len(folds) > 1 else ''} {' and '.join(map(str, folds))}"
    lines = [
        [
            ABLATIONS[ablation].title,
            *(f"{s} − PFENet" for s in SHOTS),
            "1-shot, best thresholds",
            "1-shot − SCNet",
            "seeds",
            "paper, 1-shot − PFENet",
        ]
    ]
    _, pfenet = at_best(study, "pfenet", "1-shot", folds)
    for value, row in measured.items():
        _, best = at_best(study, row, "1-shot", folds)
        both = {s: of_folds(study.against(row, "pfenet", s), folds) for s in SHOTS}
        minus_scnet = "" if row == "scnet" else interval(of_folds(study.against(row, "scnet", "1-shot"), folds))
        number = str(len({seed for seed, _ in both["1-shot"]}))
        lines.append(
            [
                value,
                *map(interval, both.values()),
                interval(paired(best, pfenet)),
                minus_scnet,
                number,
                printed_difference(ablation, value, folds),
            ]
        )
    return [
        f"## {title}",
        f"On {where}; differences in mIoU of equal seeds and folds, with 95 % intervals; also with the foreground of "
        "each model from the probability that suits it best, as far as the files say. The last column is what the "
        f"paper prints for ResNet-50 on the full benchmark, the same fold{'s' if len(folds) > 1 else ''}.",
        markdown_table(lines),
        sentence,
        *conclusions(study, ablation, measured, folds),
    ]


def of_folds(values: Values, folds: Sequence[int]) -> dict[tuple[int, int], float]:
    """Those of these folds."""
    return {cell: value for cell, value in values.items() if cell[1] in folds}


def conclusions(study: Study, ablation: str, measured: Mapping[str, str], folds: Sequence[int]) -> list[str]:
    """What agrees with the paper and what does not, with one support: by the signs of what can be told from zero."""
    agrees, differs, open_ = [], [], []
    for value, row in measured.items():
        difference = of_folds(study.against(row, "pfenet", "1-shot"), folds)
        found, printed = estimate(difference), printed_difference(ablation, value, folds)
        text = f"{value} against PFENet, {found.mean:+.1f} here" + ("" if printed == "-" else f" and {printed} there")
        if not found.tells or printed == "-":
            open_.append(text)
        else:
            (agrees if (found.mean > 0) == (float(printed) > 0) else differs).append(text)
    told = [
        f"{value} is {'above' if found.mean > 0 else 'below'} SCNet's defaults ({interval(difference)})"
        for value, row in measured.items()
        if row != "scnet" and (difference := of_folds(study.against(row, "scnet", "1-shot"), folds))
        if (found := estimate(difference)).tells
    ]
    return [
        f"**What agrees.** {'; '.join(agrees) or 'Nothing that an interval can tell from zero'}.",
        f"**What does not.** {'; '.join(differs) or 'Nothing that an interval can tell from zero'}. "
        f"Undecided: {'; '.join(open_) or 'nothing'}. Among the rows: {'; '.join(told) or 'none can be told from'}"
        + ("." if told else " SCNet's defaults."),
    ]


# The page ---------------------------------------------------------------------------------------------------------


def page(study: Study) -> str:
    """All of results.md."""
    parts = [
        "# Results",
        "Generated by `docs/make_results.py` from the files in `docs/results`, one for each training; every number "
        "here is in them.",
        *short_section(study),
        *setting(study),
        *main_section(study),
        *curve_section(study),
        *threshold_section(study),
        *hidden_section(study),
        *ablation_section(
            study, "table3", "The number of background prototypes (Table 3)",
            {"1": "n1", "2": "n2", "3": "scnet", "4": "n4", "5": "n5"},
            "The paper finds every n above the baseline and n = 3 best.",
        ),
        *ablation_section(
            study, "table4", "Prototypes from the support or the query (Table 4)",
            {"support": "support", "query": "n1"},
            "The paper finds both above the baseline and the query ahead of the support.",
        ),
        *ablation_section(
            study, "table5", "The weight of the second branch (Table 5)",
            {"0.1": "lambda0.1", "0.3": "lambda0.3", "0.5": "scnet", "0.7": "lambda0.7", "0.9": "lambda0.9"},
            "The paper finds 0.5 best.",
        ),
        *ablation_section(
            study, "table6", "Regions from a grid (Table 6)",
            {**{f"{b}x{b}": f"grid{b}" for b in (2, 3, 4, 5)}, "k-means": "scnet"},
            "The paper finds k-means ahead of every grid.",
        ),
        *ablation_section(
            study, "silent", "What the paper leaves open",
            {"prior: shared": "prior-shared", "prior: complement": "prior-complement",
             "pooled from the support's reducer": "reducer-support", "the defaults": "scnet"},
            "The paper does not say what the second branch gets as prior, nor whose reducer its prototypes come from.",
        ),
        *limits(study),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def short_section(study: Study) -> list[str]:
    """What all of it comes to, at one half and where only the ranking of pixels counts."""
    if not study.of("pfenet") or not study.of("scnet"):
        return []
    at_half = "; ".join(f"{s}, SCNet {verdict(study.against('scnet', 'pfenet', s))}" for s in SHOTS)
    best = {s: paired(at_best(study, "scnet", s)[1], at_best(study, "pfenet", s)[1]) for s in SHOTS}
    ranked = "; ".join(f"{s}, SCNet {verdict(values)}" for s, values in best.items() if values)
    return [
        f"**In short**, beside PFENet, which is the same model without the second branch: {at_half}."
        + (f" With foreground from the probability that suits each best: {ranked}." if ranked else "")
    ]


def setting(study: Study) -> list[str]:
    """What was trained and tested, from the files."""
    first = next(result for result in [*study.of("pfenet"), *study.results] if "model" in result["recipe"])
    recipe, data, protocol = first["recipe"], first["data"], first["data"]["protocol"]
    dates = sorted(result["date"][:10] for result in study.results)
    seeds = sorted({result["seed"] for result in study.of("pfenet")})
    minutes = sum(sum(result["seconds"].values()) for result in study.results) / 60
    model = recipe["model"]
    example = next(iter(study.of("scnet") or study.results))
    return [
        "**Not the published benchmark.** These are classes and folds of PASCAL-5i on few images: tested on those of "
        "VOC 2012 val with a novel class, trained on the rest of val and a part of the training images, none of "
        "which shows a novel class. Numbers compare with each other, not with any paper's.",
        f"* {len(study.results)} result files of {dates[0]}"
        + (f" to {dates[-1]}" if dates[-1] != dates[0] else "")
        + f", {minutes:.0f} minutes together on a core of a CPU\n"
        f"* data: `{' '.join(data['data'])}`; images of {protocol['test_size']} pixels; {protocol['episodes']} test "
        f"episodes a fold and number of shots, the same for all rows, counted at the images' own size\n"
        f"* backbone: `{recipe['backbone']}` with its ImageNet weights (`{recipe['backbone_weights']}`), frozen\n"
        f"* head: {model['hidden_channels']} channels, bins {', '.join(f'{share:g}' for share in model['bins'])}; "
        f"{recipe['iterations']} iterations of {recipe['batch']} episodes, {recipe['optimizer']}, learning rate "
        f"{recipe['lr']:g}, augmentation: {recipe['augmentation']}, the loss at every {recipe['loss_stride']}th row "
        f"and column; the last weights count, nothing is chosen by tests\n"
        f"* training seeds {', '.join(map(str, seeds))}; rows of a seed and a fold share initial weights and episodes\n"
        f"* ± is the standard deviation over training seeds; intervals are of 95 %, by Student's t, over training "
        f"seeds for these folds and test episodes, one spread assumed for all folds. They do not say what other "
        f"images would give.",
        "Each file holds the command that makes it, such as",
        f"```shell\n{example['command']}\n```",
    ]


def main_section(study: Study) -> list[str]:
    """Training-free, PFENet and SCNet on all folds."""
    rows = [row for row in ("prototypes", "pfenet", "scnet") if study.of(row)]
    parts = ["## SCNet against PFENet"]
    for shots in SHOTS:
        parts += [f"mIoU in %, {shots}:", rows_by_fold(study, rows, shots)]
    if not (study.of("pfenet") and study.of("scnet")):
        return parts
    both = {shots: study.against("scnet", "pfenet", shots) for shots in SHOTS}
    fb = {
        shots: paired(study.values("scnet", shots, "fb_iou"), study.values("pfenet", shots, "fb_iou"))
        for shots in SHOTS
    }
    folds = sorted({fold for _, fold in both["1-shot"]})
    helped = [str(fold) for fold in folds if estimate(of_folds(both["1-shot"], [fold])).mean > 0]
    parts += [
        "SCNet minus PFENet, equal seeds and episodes:",
        differences_by_fold(study, "scnet", "pfenet"),
        f"FB-IoU, SCNet minus PFENet: {interval(fb['1-shot'])} with one support, {interval(fb['5-shot'])} with five. "
        "With one support, the share of the objects' pixels that is found differs by "
        f"{interval(study.against('scnet', 'pfenet', '1-shot', 'found'))} percentage points, the share of the answer "
        f"that is right by {interval(study.against('scnet', 'pfenet', '1-shot', 'right'))} (means over classes).",
    ]
    parts += floor_sentences(study)
    gain = {"1-shot": 2.2, "5-shot": 4.1}
    agrees, differs = [], []
    for shots, values in both.items():
        found = estimate(values)
        text = f"{shots}: SCNet {verdict(values)}, where the paper has {gain[shots]:+.1f} (Table 1, ResNet-50)"
        (agrees if found.tells and found.mean > 0 else differs).append(text)
    more = {row: paired(study.values(row, "5-shot"), study.values(row, "1-shot")) for row in ("pfenet", "scnet")}
    extra = (
        f" Five supports in place of one change PFENet by {interval(more['pfenet'])} and SCNet by "
        f"{interval(more['scnet'])} (the paper: +1.1 and +3.0)."
    )
    parts += [
        "**What agrees.** " + ("; ".join(agrees) + "." if agrees else "No gain that these runs can show.") + extra
    ]
    signs = f"With one support the mean difference is positive on {len(helped)} of {len(folds)} folds."
    parts += [
        "**What does not.** " + ("; ".join(differs) + ". " if differs else "Nothing in the sign of the mean. ") + signs
    ]
    return parts


def floor_sentences(study: Study) -> list[str]:
    """What training gains over the training-free row, and where it does not."""
    sentences = []
    for shots in SHOTS:
        floor = {fold: value for (_, fold), value in study.values("prototypes", shots).items()}
        for row in ("pfenet", "scnet"):
            values = {
                cell: value - floor[cell[1]] for cell, value in study.values(row, shots).items() if cell[1] in floor
            }
            if values:
                means = {fold: fmean(found) for fold, found in by_fold(values).items()}
                below = [f"fold {fold} ({mean:+.1f})" for fold, mean in means.items() if mean < 0]
                sentences.append(
                    f"{NAMES[row]}, {shots}: {interval(values)} over the training-free prototypes"
                    + (f", and below them on {' and '.join(below)}" if below else "")
                    + "."
                )
    return [" ".join(sentences)] if sentences else []


def at_best(study: Study, row: str, shots: str, folds: Sequence[int] | None = None) -> tuple[str, Values]:
    """The threshold with the highest mean mIoU on these folds, and the values there; empty if no file says them."""
    files = [result["results"][shots].get("at", {}) for result in study.of(row)]
    thresholds = next((list(at) for at in files if at), [])
    values = {t: study.at(row, shots, t) for t in thresholds}
    values = {t: its if folds is None else of_folds(its, folds) for t, its in values.items()}
    best = max(values, key=lambda t: estimate(values[t]).mean, default="")
    return best, values.get(best, {})


def threshold_section(study: Study) -> list[str]:
    """Whether the rows rank pixels differently, or are only differently sure."""
    known = [result["results"]["1-shot"]["at"] for result in study.of("scnet") if "at" in result["results"]["1-shot"]]
    if not known:
        return []
    thresholds = list(known[0])
    both = study.at("pfenet", "1-shot", thresholds[0]).keys() & study.at("scnet", "1-shot", thresholds[0]).keys()
    if not both:
        return []
    lines = [["foreground from a probability of", *thresholds]]
    sentences = []
    for shots in SHOTS:
        found = {
            row: {t: {c: v for c, v in study.at(row, shots, t).items() if c in both} for t in thresholds}
            for row in ("pfenet", "scnet")
        }
        means = {row: {t: estimate(values).mean for t, values in its.items()} for row, its in found.items()}
        lines += [[f"{NAMES[row]}, {shots}", *(f"{mean:.1f}" for mean in its.values())] for row, its in means.items()]
        differences = {t: paired(found["scnet"][t], found["pfenet"][t]) for t in thresholds}
        lines.append([f"SCNet − PFENet, {shots}", *map(interval, differences.values())])
        (first, pfenet), (second, scnet) = (at_best(study, row, shots) for row in ("pfenet", "scnet"))
        sentences.append(
            f"{shots}: PFENet is best at {first}, SCNet at {second}, and there the difference is "
            f"{interval(paired(scnet, pfenet))} instead of {interval(differences['0.5'])} at one half."
        )
    return [
        "## At other thresholds",
        "A pixel counts as foreground from a probability of one half, here as everywhere. Had it been another, mIoU in "
        f"% over all folds would be, in {len(both)} runs of each:",
        markdown_table(lines),
        " ".join(sentences) + " (Best on the test episodes themselves: for looking, not for choosing.) What is left "
        "at each model's own best threshold is a difference in ranking pixels; the rest is one in how sure it is.",
    ]


def curve_section(study: Study) -> list[str]:
    """Whether training was long enough, by what was watched and changed nothing."""
    rows = [row for row in ("pfenet", "scnet") if any(result.get("watched") for result in study.of(row))]
    if not rows:
        return []
    points = [point["iteration"] for point in study.of(rows[0])[0]["watched"]]
    lines = [["iteration", *map(str, points)]]
    lines += [
        [f"{NAMES[row]}: {what}", *(f"{scale * value:.{digits}f}" for value in watched_means(study, row, key))]
        for row in rows
        for what, key, scale, digits in (("mIoU", "miou", 100, 1), ("largest probability", "top", 1, 2))
    ]
    last = {row: watched_values(study, row, -1, -2) for row in rows}
    sentences = [
        f"From iteration {points[-2]} to {points[-1]} the mIoU of {NAMES[row]} changes by {interval(values)}."
        for row, values in last.items()
    ]
    episodes = "the first test episodes of each fold, with one support"
    loss_lines = [["last part of the training", *(NAMES[row] for row in rows)]]
    for name, words in (
        ("main", "loss of the first branch"),
        ("self_contrast_main", "loss of the second branch"),
    ):
        loss_lines.append([words, *(loss_cell(study, row, name) for row in rows)])
    return [
        "## Were they trained long enough?",
        f"Means over folds and seeds on {episodes}. This decided nothing; it shows whether the curves are flat.",
        markdown_table(lines),
        "![mIoU, largest probability and losses over the iterations](images/results-curves.png)",
        " ".join(sentences) + " While the largest probability is below one half, a model answers nothing at all, "
        "whatever its ranking of the pixels: short runs with λ > 0 measure that, not the branch.",
        markdown_table(loss_lines),
    ]


def watched_means(study: Study, row: str, key: str) -> list[float]:
    """What was watched, as means over all runs of a row that have the whole curve."""
    curves = [[point[key] for point in result["watched"]] for result in study.of(row)]
    return [fmean(values) for values in zip(*curves, strict=True)]


def watched_values(study: Study, row: str, last: int, before: int) -> Values:
    """The change of the watched mIoU between two points, for each run."""
    return {
        (result["seed"], result["fold"]): 100 * (result["watched"][last]["miou"] - result["watched"][before]["miou"])
        for result in study.of(row)
    }


def loss_cell(study: Study, row: str, name: str) -> str:
    """The mean of a loss over the last of the parts that files keep."""
    values = [result["losses"][-1][name] for result in study.of(row) if name in result["losses"][-1]]
    return f"{fmean(values):.3f}" if values else "-"


CONDITIONS = {
    "dropped": ("pfenet", "scnet"),
    "void": ("pfenet-void", "scnet-void"),
    "background": ("pfenet-hidden", "scnet-hidden"),
}
"""What became of novel objects in training images: the rows of PFENet and SCNet."""


def hidden_section(study: Study) -> list[str]:
    """Where novel objects hide in the background of training images, and where there are none."""
    conditions = {name: rows for name, rows in CONDITIONS.items() if all(study.of(row) for row in rows)}
    if "background" not in conditions:
        return []
    folds = sorted({result["fold"] for row in conditions["background"] for result in study.of(row)})

    def gain(condition: str, shots: str, key: str = "miou") -> dict[tuple[int, int], float]:
        first, second = conditions[condition]
        return of_folds(study.against(second, first, shots, key), folds)

    def change(model: int, condition: str, shots: str, key: str) -> dict[tuple[int, int], float]:
        return of_folds(study.against(conditions["background"][model], conditions[condition][model], shots, key), folds)

    levels = [["novel objects are", *(f"{name}, {shots}" for shots in SHOTS for name in ("PFENet", "SCNet")), "seeds"]]
    for condition, rows in conditions.items():
        values = [over_seeds(study.values(row, shots, folds=folds), folds) for shots in SHOTS for row in rows]
        levels.append([condition, *map(mean_and_spread, values), str(min(map(len, values)))])
    gains = [["SCNet − PFENet where they are", "mIoU, 1-shot", "mIoU, 5-shot", "object pixels found, 1-shot"]]
    gains += [
        [name, *(interval(gain(name, shots)) for shots in SHOTS), interval(gain(name, "1-shot", "found"))]
        for name in conditions
    ]
    harm = [["background minus", "mIoU, 1-shot", "mIoU, 5-shot", "object pixels found, 1-shot"]]
    for name in conditions:
        for model, word in enumerate(("PFENet", "SCNet") if name != "background" else ()):
            cells = [
                change(model, name, *what) for what in (("1-shot", "miou"), ("5-shot", "miou"), ("1-shot", "found"))
            ]
            harm.append([f"{name}: {word}", *map(interval, cells)])
    more = {
        name: paired(gain("background", "1-shot"), gain(name, "1-shot")) for name in conditions if name != "background"
    }
    sentences = [
        f"The branch's gain where they are background minus its gain where they are {name}: {interval(values)}. "
        + (
            "That agrees with the paper's explanation."
            if (found := estimate(values)).tells and found.mean > 0
            else "That speaks against the paper's explanation."
            if found.tells
            else "That neither supports nor refutes the paper's explanation."
        )
        for name, values in more.items()
    ]
    at_own = []
    for name, rows in conditions.items():
        (first, pfenet), (second, scnet) = (at_best(study, row, "1-shot", folds) for row in rows)
        if pfenet and scnet:
            difference = interval(paired(scnet, pfenet))
            at_own.append(f"{difference} where they are {name} (PFENet from {first}, SCNet from {second})")
    counts = {name: study.of(rows[0]) for name, rows in conditions.items()}
    images = {
        name: next(result["training_images"] for result in results if result["fold"] in folds)
        for name, results in counts.items()
    }
    return [
        "## Where novel objects hide",
        "The paper explains the gain by novel objects that stand in the background of training images. Above there are "
        f"none: images with a novel class are dropped ({images['dropped']} remain on this fold). Here those of the "
        f"second folder are trained on as well, {images['background']} in all, with their novel objects as background, "
        "as in the paper"
        + (", or as void, of which nothing is learned" if "void" in conditions else "")
        + f". Fold {' and '.join(map(str, folds))}, equal seeds and test episodes; the dropped rows are those above.",
        markdown_table(levels),
        markdown_table(gains),
        "What hiding changes in each model (dropped differs in its images too):",
        markdown_table(harm),
        " ".join(["With one support:", *sentences]),
        *(
            [f"With each model's foreground from the probability that suits it best, 1-shot: {'; '.join(at_own)}."]
            if at_own
            else []
        ),
    ]


def limits(study: Study) -> list[str]:
    """What the numbers cannot say."""
    seeds = {len({result["seed"] for result in study.of(row)}) for row in ("pfenet", "scnet")}
    return [
        "## What this does not show",
        "Ablations without a section have no result here. "
        "A small frozen backbone, small images, a part of VOC's training images and short training with AdamW are not "
        f"the paper's setting. With {max(seeds)} seeds an interval is wide: differences inside it may be real and not "
        "seen. One set of test episodes was used for all, so that rows compare well and their absolute level less so. "
        "Whether the branch helps at full size is only answered by the commands of "
        "[Reproduce the paper](reproduce.md), with several seeds and λ = 0 beside.",
    ]


# Pictures ---------------------------------------------------------------------------------------------------------


def draw_curves(study: Study, path: Path) -> None:
    """mIoU, largest probability and the losses of both branches over the iterations, means over folds and seeds."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for row in ("pfenet", "scnet"):
        runs = [result for result in study.of(row) if result.get("watched")]
        if not runs:
            continue
        points = [point["iteration"] for point in runs[0]["watched"]]
        for axis, key, scale in ((axes[0], "miou", 100), (axes[1], "top", 1)):
            for result in runs:
                axis.plot(
                    points, [scale * point[key] for point in result["watched"]], color=COLOURS[row], alpha=0.15, lw=0.7
                )
            axis.plot(
                points,
                [scale * value for value in watched_means(study, row, key)],
                color=COLOURS[row],
                label=NAMES[row],
                lw=1.6,
            )
        steps = [point["iteration"] for point in runs[0]["losses"]]
        for name, style in (("main", "-"), ("self_contrast_main", "--")):
            curves = [[point[name] for point in result["losses"]] for result in runs if name in result["losses"][0]]
            if curves:
                label = f"{NAMES[row].split()[0]}, {'first' if name == 'main' else 'second'} branch"
                axes[2].plot(
                    steps,
                    [fmean(values) for values in zip(*curves, strict=True)],
                    style,
                    color=COLOURS[row],
                    label=label,
                    lw=1.2,
                )
    axes[1].axhline(0.5, color="#8C8C8C", lw=0.6)
    for axis, title in zip(axes, ("1-shot mIoU (%)", "largest probability", "training loss"), strict=True):
        axis.set(title=title, xlabel="iteration")
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(fontsize=7)
    axes[2].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Write the page and its picture, or print the page of another folder."""
    if len(sys.argv) > 1:
        print(page(Study(Path(sys.argv[1]).glob("*.json"))))
        return
    study = Study((DOCS / "results").glob("*.json"))
    (DOCS / "results.md").write_text(page(study), encoding="utf-8")
    draw_curves(study, DOCS / "images" / "results-curves.png")


if __name__ == "__main__":
    main()
