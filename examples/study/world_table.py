"""The table of world.py: numbers that are means over classes, and what other draws of the classes would give."""

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from fewshotseg.data.splits import PASCAL_TO_COCO
from fewshotseg.results import markdown_table

SHOTS = (1, 5)
OF_VOC = set(PASCAL_TO_COCO.values())
Row = Callable[[Sequence[int]], float]
"""A number of these classes, some of them perhaps several times."""


def together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of several models, each tested on classes of its own, as if one had been tested on all classes."""
    found: dict[str, Any] = {
        "names": {class_id: name for part in parts for class_id, name in part["names"].items()},
        "answers": [answer for part in parts for answer in part["answers"]],
    }
    for shots in SHOTS:
        reports = [part[f"{shots}-shot"] for part in parts]
        found[f"{shots}-shot"] = {
            "per_class": {name: iou for report in reports for name, iou in report["per_class"].items()},
            "by_size": {
                size: of_all_episodes([report["by_size"][size] for report in reports]) for size in reports[0]["by_size"]
            },
        }
    return found


def of_all_episodes(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean IoU over the episodes of several reports of one size of objects."""
    episodes = sum(part["episodes"] for part in parts)
    total = sum(part["episodes"] * part["episode_miou"] for part in parts if part["episodes"])
    return {"episodes": episodes, "episode_miou": total / episodes if episodes else None}


def rows(found: Mapping[str, Any]) -> dict[str, Row]:
    """The lines of the table."""
    ids = {int(class_id): name for class_id, name in found["names"].items()}
    table: dict[str, Row] = {}
    for shots in SHOTS:
        report = found[f"{shots}-shot"]
        for words, kept in {"all": set(ids), "of VOC": set(ids) & OF_VOC, "others": set(ids) - OF_VOC}.items():
            ious = {c: [100 * report["per_class"][ids[c]]] for c in kept if report["per_class"][ids[c]] is not None}
            table[f"{shots}-shot, mIoU, {words} ({len(ious)} classes)"] = _mean_of(ious)
        for size, its in report["by_size"].items():
            if its["episodes"]:
                value = 100 * its["episode_miou"]
                table[f"{shots}-shot, IoU of objects {size} ({its['episodes']} episodes)"] = lambda _, v=value: v

    def of(take: Callable[[Mapping[str, Any]], float | None]) -> dict[int, list[float]]:
        taken = {c: [take(a) for a in found["answers"] if a["class"] == c] for c in ids}
        return {c: [value for value in values if value is not None] for c, values in taken.items()}

    there, absent = of(lambda a: a["present"] and a["present"][1]), of(lambda a: a["absent"][0])
    return table | {
        "present or absent, AUROC": lambda classes: 100 * _auroc(_all(there, classes), _all(absent, classes)),
        "absent, something is found, % of photographs": _mean_of(of(lambda a: 100.0 * (a["absent"][1] > 0))),
        "absent, share that is found, %": _mean_of(of(lambda a: 100 * a["absent"][1])),
        "present (2 % or more), IoU": _mean_of(of(lambda a: a["present"] and 100 * a["present"][0])),
        "the example in its own photograph, IoU": _mean_of(of(lambda a: 100 * a["own"])),
        "one of two, IoU with it": _mean_of(of(lambda a: 100 * a["two"][0] if "two" in a else None)),
        "one of two, IoU with the other": _mean_of(of(lambda a: 100 * a["two"][1] if "two" in a else None)),
        "one of two, told apart, %": _mean_of(of(lambda a: 100 * a["two"][2] if "two" in a else None)),
    }


def interval(row: Row, classes: Sequence[int], draws: int = 1000) -> tuple[float, float]:
    """Where 95 % of a row's numbers lie if other classes had been drawn."""
    draw = random.Random(0)
    found = sorted(row(draw.choices(classes, k=len(classes))) for _ in range(draws))
    return found[round(0.025 * draws)], found[round(0.975 * draws) - 1]


def table(found: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> str:
    """The table of a model's numbers, with the differences to another's of the same classes.

    Raises:
        ValueError: If the other's were counted on other classes or episodes.
    """
    classes, own = [int(c) for c in found["names"]], rows(found)
    bases = rows(other) if other else {}
    if other and ([int(c) for c in other["names"]] != classes or own.keys() != bases.keys()):
        raise ValueError("against must be a file of the same classes and as many episodes")
    lines = [["in % [95 % interval]", "value", *(["difference to the other model"] if other else [])]]
    for words, row in own.items():
        cells = [f"{row(classes):.1f}", *_brackets(row, classes, "")]
        change = []
        if other:
            less = _difference(row, bases[words])
            change = [" ".join([f"{less(classes):+.1f}", *_brackets(less, classes, "+")])]
        lines.append([words, " ".join(cells), *change])
    return markdown_table(lines)


def _difference(row: Row, base: Row) -> Row:
    return lambda classes: row(classes) - base(classes)


def _brackets(row: Row, classes: Sequence[int], sign: str) -> list[str]:
    low, high = interval(row, classes)
    return [] if low == high else [f"[{low:{sign}.1f}, {high:{sign}.1f}]"]


def _mean_of(values: Mapping[int, Sequence[float]]) -> Row:
    """Mean over classes of the means of their numbers; classes without any do not count."""
    return lambda classes: fmean([fmean(values[c]) for c in classes if values.get(c)] or [float("nan")])


def _all(values: Mapping[int, Sequence[float]], classes: Sequence[int]) -> torch.Tensor:
    return torch.tensor([value for c in classes for value in values.get(c, ())])


def _auroc(there: torch.Tensor, absent: torch.Tensor) -> float:
    return float(((there[:, None] > absent).double() + 0.5 * (there[:, None] == absent)).mean())
