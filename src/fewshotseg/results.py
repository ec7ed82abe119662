"""Confidence intervals, tables of results, and result files that record what was measured and how."""

import json
import math
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from fewshotseg._checks import as_list, check_at_least, check_choice, check_share, shown
from fewshotseg._io import StrPath, write_atomically
from fewshotseg._version import VERSION

_FORMAT = "fewshotseg result 1"
_FOLDS = range(4)


def mean_and_interval(*groups: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Compute the mean of a few results, such as those of several seeds, and the half width of its confidence interval.

    The interval uses Student's t distribution, for independent and roughly normal values. For several groups, such as
    the seeds of each fold, the mean is that of the groups' means. Groups are fixed effects: differences between them do
    not widen the interval, and their variance is assumed equal and pooled.

    Args:
        *groups: Finite numbers, at least one in each group and two in one of them.
        level: Confidence level, between 0 and 1.

    Returns:
        ``(mean, half)``: the interval is ``mean - half`` to ``mean + half``.

    Raises:
        ValueError: If there are too few values, one is not finite, or ``level`` is out of range.
        TypeError: If a group is not an iterable of numbers.

    Example:
        >>> mean, half = mean_and_interval([0.61, 0.63, 0.62])
        >>> f"{mean:.3f} ± {half:.3f}"
        '0.620 ± 0.025'
        >>> mean, half = mean_and_interval([0.61, 0.63], [0.70, 0.72])  # two seeds on each of two folds
        >>> f"{mean:.3f} ± {half:.3f}"
        '0.665 ± 0.030'
    """
    try:
        found = [[float(value) for value in values] for values in groups]
    except (TypeError, ValueError) as error:
        raise TypeError(f"groups must be iterables of numbers, such as one list, got {groups!r:.200}") from error
    freedom = sum(len(values) - 1 for values in found)
    if not all(found) or freedom < 1 or not all(math.isfinite(value) for values in found for value in values):
        raise ValueError(f"groups must be of finite numbers, at least two in one of them, got {found!r:.200}")
    check_share("level", level, open_ends=True)
    several = [values for values in found if len(values) > 1]
    variance = sum((len(values) - 1) * statistics.variance(values) for values in several) / freedom
    standard_error = math.sqrt(variance * sum(1 / len(values) for values in found)) / len(found)
    return statistics.fmean(map(statistics.fmean, found)), _student_t(level, freedom) * standard_error


def _student_t(level: float, freedom: int) -> float:
    """Compute the two-sided quantile of Student's t distribution for probability ``level``, by bisection."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _student_probability(angle, freedom) < level else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _student_probability(angle: float, freedom: int) -> float:
    """Compute P(|t| < sqrt(freedom) tan(angle)) as a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on, by name."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"fewshotseg": VERSION, **packages, "python": platform.python_version()}


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The results of one model on one fold, for one or several seeds.

    Attributes:
        method: Name of the model in a table, such as ``"SCNet"``.
        model: The model's settings and how it was trained, as JSON values.
        fold: 0 to 3.
        shots: S, the number of supports.
        seeds: Seeds of the episodes, one for each report.
        protocol: The name of the protocol, see `fewshotseg.data.EvaluationProtocol`.
        protocol_hash: Its hash; only results with equal hashes can be compared.
        episodes_hashes: For each seed, `fewshotseg.data.episodes_hash` of its episodes.
        reports: For each seed, `IoUReport.to_dict`: shares from 0 to 1, classes by name, None for NaN.
        versions: Versions of Python and the packages, by default the running ones.
        date: ISO 8601 in UTC; by default now.

    Raises:
        ValueError: If the fold or the number of shots is out of range, or seeds, hashes and reports differ in number.
        TypeError: If an attribute is of another type.

    Example:
        >>> import pathlib, tempfile
        >>> reports = [{"miou": 0.6, "fb_iou": 0.7, "per_class": {"cat": 0.6}, "episodes": 1000}]
        >>> settings = {"seeds": [0], "protocol": "own", "protocol_hash": "8231d2ac", "episodes_hashes": ["5021df85"]}
        >>> result = EvaluationResult(method="SCNet", model={}, fold=0, shots=1, reports=reports, **settings)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "fold0.json"
        >>> result.save(path)
        >>> EvaluationResult.load(path) == result
        True
    """

    method: str
    model: Mapping[str, Any]
    fold: int
    shots: int
    seeds: Sequence[int]
    protocol: str
    protocol_hash: str
    episodes_hashes: Sequence[str]
    reports: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str] = field(default_factory=versions)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        for name, kind in {"method": str, "model": Mapping, "protocol": str, "protocol_hash": str}.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__.lower()}, got {shown(getattr(self, name))}")
        for name in ("seeds", "episodes_hashes", "reports"):
            object.__setattr__(self, name, tuple(as_list(name, getattr(self, name), "a list")))  # JSON gives lists
        for report in self.reports:
            miou = report.get("miou", "none") if isinstance(report, Mapping) else "none"
            if isinstance(miou, bool) or not isinstance(miou, Real | None):
                raise TypeError(f"every report must be a mapping with a number or None as miou, got {shown(report)}")
        if not all(isinstance(seed, Integral) for seed in self.seeds):
            raise TypeError(f"seeds must be integers, got {shown(self.seeds)}")
        check_choice("fold", self.fold, _FOLDS)
        check_at_least("shots", self.shots, 1)
        numbers = (len(self.seeds), len(self.episodes_hashes), len(self.reports))
        if len(set(numbers)) > 1 or not self.seeds:
            raise ValueError(f"seeds, episodes_hashes and reports must be equally many, at least one, got {numbers}")

    @property
    def mious(self) -> tuple[float, ...]:
        """The mIoU of each seed, from 0 to 1; NaN if nothing was scored."""
        return tuple(math.nan if report["miou"] is None else report["miou"] for report in self.reports)

    def save(self, path: StrPath) -> None:
        """Write the result as JSON, atomically; creates the folder and replaces an existing file.

        Raises:
            TypeError: If ``model`` holds something else than JSON values.
            ValueError: If a number is not finite.
            OSError: If the file cannot be written.
        """
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, allow_nan=False, ensure_ascii=False)
        write_atomically(Path(path), f"{text}\n".encode())

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read a result that `save` wrote.

        Raises:
            ValueError: If the file is damaged or of another format; the message names it.
            OSError: If the file cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            entries = {"format", *(each.name for each in fields(cls))}
            if not isinstance(content, dict) or content.keys() != entries or content.pop("format") != _FORMAT:
                raise ValueError("it has other entries")
            return cls(**content)
        except (ValueError, TypeError, RecursionError) as fault:
            raise ValueError(f"{path} must be a result that save wrote ({_FORMAT!r}), but: {fault}") from fault


def results_table(results: Iterable[EvaluationResult]) -> str:
    """Write the paper's table in Markdown: a row for each method and number of shots, mIoU in percent for each fold.

    Args:
        results: Results of one protocol and the same seeds, at most one for each method, number of shots and fold.

    Returns:
        The table, with rows in the order of the results, and a line about the protocol. With several seeds a cell holds
        the mean and the half width of its 95 % confidence interval. The mean over folds needs all four.

    Raises:
        ValueError: If there are no results, two belong to one cell, or protocols or seeds differ.
    """
    rows: dict[tuple[str, int], dict[int, tuple[float, ...]]] = {}
    measures = {}
    for result in results:
        row = rows.setdefault((result.method, result.shots), {})
        if result.fold in row:
            raise ValueError(f"results must have one result a cell, got two of {result.method}, fold {result.fold}")
        row[result.fold] = result.mious
        seeds = ", ".join(map(str, result.seeds))
        measures[result.protocol_hash, seeds] = f"{result.protocol} ({result.protocol_hash}), seeds {seeds}"
    if len(measures) != 1:
        raise ValueError(f"results must be of one protocol, got {' and '.join(measures.values()) or 'no result'}")

    table = [["method", "shots", *(f"Fold-{fold}" for fold in _FOLDS), "Mean"]]
    for (method, shots), row in rows.items():
        cells = [row.get(fold, ()) for fold in _FOLDS]
        means = [statistics.fmean(values) for values in zip(*cells, strict=True)] if all(cells) else []
        table.append([method, str(shots), *map(_cell, cells), _cell(means)])
    return f"{markdown_table(table)}\n\nmIoU in %; {''.join(measures.values())}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows of text as a Markdown table that is also readable as plain text.

    Args:
        rows: The heading, then any number of rows, each with as many cells as the heading.

    Returns:
        A line for each row, without a line break at the end. The first column is aligned left, all others right.

    Raises:
        ValueError: If a row has more or fewer cells than the heading.

    Example:
        >>> print(markdown_table([["method", "mIoU"], ["PFENet", "58.6"], ["SCNet", "60.3"]]))
        | method | mIoU |
        | ------ | ---: |
        | PFENet | 58.6 |
        | SCNet  | 60.3 |
    """
    for row in rows:
        if len(row) != len(rows[0]):
            raise ValueError(f"rows must have the heading's {len(rows[0])} cells, got {len(row)} in {list(row)}")
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        heading, *cells = [cell.replace("|", "\\|") for cell in column]
        width = max(4, len(heading), *map(len, cells))
        align, rule = (str.rjust, "-" * (width - 1) + ":") if number else (str.ljust, "-" * width)
        columns.append([align(cell, width) for cell in (heading, rule, *cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1 or any(map(math.isnan, values)):
        return f"{100 * statistics.fmean(values):.1f}"
    mean, half = mean_and_interval(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f}"
