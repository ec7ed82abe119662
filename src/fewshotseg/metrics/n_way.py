"""The metric of N-way episodes: IoU of each class over all of its episodes, as in PANet."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import (
    check_flag,
    check_labels,
    check_sizes,
    check_tensor,
    check_void,
    check_whole_numbers,
    shown,
)
from fewshotseg.metrics.counting import (
    Counts,
    checked_names,
    class_rows,
    has_nan,
    mean,
    or_none,
    predicted_labels,
    share,
    sum_over_processes,
    table,
)
from fewshotseg.ops._devices import copy_to
from fewshotseg.ops._precision import is_eager_cpu
from fewshotseg.ops._values import look_at_indices


class NWayReport(NamedTuple):
    """The scores of `NWayIoU`, from 0 to 1; printed in percent.

    Attributes:
        miou: Mean of ``per_class`` over the classes with a scored pixel, without the background.
        binary_miou: Mean of the background's IoU and the IoU of all classes together; a pixel that is predicted as
            another class counts against both classes.
        per_class: Class id -> IoU over all its episodes; NaN for a class without a scored pixel.
        background_iou: IoU of label 0 over all episodes.
        episodes: Number of episodes.
        episodes_per_class: Class id -> number of episodes with the class.
        class_names: Class id -> name, for printing; may be empty.
    """

    miou: float
    binary_miou: float
    per_class: Mapping[int, float]
    background_iou: float
    episodes: int
    episodes_per_class: Mapping[int, int]
    class_names: Mapping[int, str]

    def to_dict(self) -> dict[str, object]:
        """Return the scores for JSON: classes by name, or by id without one; None for NaN."""
        keys = {class_id: self.class_names.get(class_id, str(class_id)) for class_id in self.per_class}
        return {
            "miou": or_none(self.miou),
            "binary_miou": or_none(self.binary_miou),
            "per_class": {keys[class_id]: or_none(iou) for class_id, iou in self.per_class.items()},
            "background_iou": or_none(self.background_iou),
            "episodes": self.episodes,
            "episodes_per_class": {keys[class_id]: count for class_id, count in self.episodes_per_class.items()},
        }

    def __str__(self) -> str:
        rows = [
            ("mIoU", self.miou, self.episodes),
            ("binary mIoU", self.binary_miou, self.episodes),
            ("background", self.background_iou, self.episodes),
        ]
        rows += [
            (self.class_names.get(class_id, f"class {class_id}"), iou, self.episodes_per_class[class_id])
            for class_id, iou in self.per_class.items()
        ]
        return table([(name, iou, f"({count} episodes)") for name, iou, count in rows])


class NWayIoU:
    """Computes IoU of N-way episodes.

    For each class, pixels are summed over all episodes with the class, and divided at the end. Counts are int64 and
    stay on the device of the predictions; `update` needs no host-device synchronisation. With one way and the default
    ``skip_absent``, ``miou`` equals that of `FewShotIoU`.

    Args:
        class_ids: The classes that are scored.
        ignore_index: The label of target pixels that are not scored, negative or at least 255.
        class_names: Class id -> name, for the report.
        skip_absent: PANet's rule: if a query does not show a class, predictions of that class are not counted. It
            gives higher scores, as most queries show one of the N classes.

    Raises:
        ValueError: If there are no classes, a class or a name is repeated, or a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> metric = NWayIoU([3, 7, 9], class_names={3: "cat", 7: "dog", 9: "cow"})
        >>> prediction = torch.tensor([[[0, 1, 2, 2]], [[0, 1, 1, 2]]])
        >>> target = torch.tensor([[[0, 1, 1, 2]], [[0, 1, 1, 0]]])
        >>> metric.update(prediction, target, [[7, 3], [9, 7]])
        >>> print(metric.compute())
        mIoU          61.1  (2 episodes)
        binary mIoU   61.9  (2 episodes)
        background    66.7  (2 episodes)
        cat           50.0  (1 episodes)
        dog           33.3  (2 episodes)
        cow          100.0  (1 episodes)
    """

    def __init__(
        self,
        class_ids: Iterable[int],
        *,
        ignore_index: int = 255,
        class_names: Mapping[int, str] | None = None,
        skip_absent: bool = False,
    ) -> None:
        self.class_ids = check_whole_numbers("class_ids", class_ids, 0)
        if not self.class_ids:
            raise ValueError("class_ids must be at least one class, got none")
        self.ignore_index = check_void("ignore_index", ignore_index)
        if 0 <= self.ignore_index < 255:
            raise ValueError(f"ignore_index must be no label that a class can have, got {self.ignore_index}")
        self.class_names = checked_names(class_names)
        self.skip_absent = check_flag("skip_absent", skip_absent)
        self.reset()

    def reset(self) -> None:
        """Forget all episodes."""
        self._counts: Tensor | None = None  # classes, unknown classes, background; intersection, union, episodes
        self._all_processes: Counts | None = None

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor, class_ids: Sequence[Sequence[int]] | Tensor) -> None:
        """Add a batch of episodes to the counts.

        Args:
            prediction: ``(B, 1 + N, H, W)`` logits, channel 0 the background (on a tie the first channel wins); or
                ``(B, H, W)`` labels from 0 to N.
            target: ``(B, H, W)`` labels from 0 to N, ``ignore_index`` not scored.
            class_ids: ``(B, N)``, the classes of the labels 1 to N, different in an episode.

        Raises:
            ValueError: If a shape or a device does not fit, or a class is not among the metric's (on an accelerator,
                `compute` raises it). On a CPU also if a scored pixel has a logit that is NaN, there are other labels,
                or an episode has a class twice.
            TypeError: If an argument is of a wrong type or a tensor of a wrong dtype.
        """
        check_tensor("prediction", prediction, "B K H W", "B H W")
        ways = _ways(class_ids)
        labels = predicted_labels(prediction, 1 + ways, "the background and the classes of class_ids")
        if prediction.ndim == 3:
            look_at_indices("labels in prediction", labels, 1 + ways)
        check_tensor("target", target, "B H W")
        check_labels("target", target)
        check_sizes("target", target, "B H W", labels, "prediction")
        target = target.long()
        scored = target != self.ignore_index
        look_at_indices("labels in target", torch.where(scored, target, 0), 1 + ways)
        if prediction.ndim == 4 and has_nan(prediction, scored):
            raise ValueError("prediction must not hold NaN where a pixel is scored, got NaN")
        batch = len(labels)
        rows = class_rows(class_ids, self.class_ids, (batch, ways))
        _refuse_repetitions(rows)
        background = torch.full((batch, 1), len(self.class_ids) + 1, device=labels.device)
        rows = torch.cat([background, copy_to(rows, labels.device)], dim=1)  # B 1+N

        columns = []
        for label in range(1 + ways):
            found, true = (labels == label) & scored, target == label
            both, either = (found & true).sum(dim=(1, 2)), (found | true).sum(dim=(1, 2))  # B
            if self.skip_absent:
                either = torch.where(true.any(dim=2).any(dim=1), either, 0)
            columns.append(torch.stack([both, either, torch.ones_like(both)], dim=1))
        counts = self._counts
        if counts is None:
            counts = labels.new_zeros(len(self.class_ids) + 2, 3, dtype=torch.int64)
        added = torch.stack(columns, dim=1).flatten(0, 1)  # B*(1+N) 3
        self._counts = counts.to(labels.device).index_add(0, rows.flatten(), added)
        self._all_processes = None

    def sync(self) -> None:
        """Add up the counts of all processes of `torch.distributed`; see `FewShotIoU.sync`.

        Raises:
            ValueError: If the processes score different classes.
        """
        self._all_processes = sum_over_processes(self.class_ids, self._tally())

    def compute(self) -> NWayReport:
        """Compute the scores from all episodes so far; after `sync`, from those of all processes.

        Returns:
            The report. A class without any pixel is NaN, with a warning.

        Raises:
            ValueError: If episodes of unknown classes were counted.
        """
        tally = self._tally() if self._all_processes is None else self._all_processes
        *known, unknown, background = tally
        if unknown[2]:
            raise ValueError(f"class_ids must be among {shown(self.class_ids)}, got others in {unknown[2]} places")
        per_class = {class_id: share(row[0], row[1]) for class_id, row in zip(self.class_ids, known, strict=True)}
        missing = [str(self.class_names.get(key, key)) for key, iou in per_class.items() if math.isnan(iou)]
        if missing:
            warnings.warn(f"nothing to score for {', '.join(missing)}: NaN, and left out of the mean", stacklevel=2)
        foreground = share(sum(row[0] for row in known), sum(row[1] for row in known))
        background_iou = share(background[0], background[1])
        return NWayReport(
            miou=mean(list(per_class.values())),
            binary_miou=(background_iou + foreground) / 2,
            per_class=per_class,
            background_iou=background_iou,
            episodes=background[2],
            episodes_per_class={class_id: row[2] for class_id, row in zip(self.class_ids, known, strict=True)},
            class_names=self.class_names,
        )

    def _tally(self) -> Counts:
        if self._counts is None:
            return [[0, 0, 0] for _ in range(len(self.class_ids) + 2)]
        return self._counts.tolist()


def _ways(class_ids: Sequence[Sequence[int]] | Tensor) -> int:
    shape = tuple(class_ids.shape) if isinstance(class_ids, Tensor) else _shape(class_ids)
    if len(shape) != 2 or not shape[1]:
        raise ValueError(f"class_ids must have shape (B, N), got {shape if shape else shown(class_ids)}")
    return shape[1]


def _shape(class_ids: Sequence[Sequence[int]]) -> tuple[int, ...]:
    try:
        return tuple(torch.as_tensor(class_ids, device="cpu").shape)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"class_ids must be integers, (B, N), got {shown(class_ids)}") from None


def _refuse_repetitions(rows: Tensor) -> None:
    if is_eager_cpu(rows) and rows.numel() and bool((rows.sort(dim=1).values.diff(dim=1) == 0).any()):
        raise ValueError("class_ids must be different in an episode, got a class twice")
