"""The metric of few-shot segmentation: IoU from pixels that are summed over all episodes of a class."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from fewshotseg._checks import (
    check_floating,
    check_labels,
    check_sizes,
    check_tensor,
    check_void,
    check_whole_numbers,
    shown,
)
from fewshotseg.metrics.counting import Counts, checked_names, class_rows, has_nan, mean, share, sum_over_processes
from fewshotseg.metrics.report import IoUReport, SizeIoU
from fewshotseg.ops._devices import copy_to
from fewshotseg.ops._values import check_label_masks, look_at_indices

# Each episode's own IoU is stored as an integer in units of 2**-32, so that sums do not depend on the order of
# episodes or the number of processes.
_ONE = 2**32

SIZES = ("<2%", "2-10%", ">10%")
"""Sizes of objects, as shares of their query image; an object that the query does not show has none."""

Number = TypeVar("Number", int, Tensor)


class _Counts(NamedTuple, Generic[Number]):
    """The counts of a class: pixels, then episodes, then the sum of the episodes' own IoU."""

    intersection: Number
    union: Number
    background_intersection: Number
    background_union: Number
    episodes: Number
    episodes_with_union: Number
    own_iou: Number


class FewShotIoU:
    """Computes mIoU and FB-IoU as the few-shot benchmarks do.

    For each class, intersections and unions are summed over all of its episodes and divided at the end; mIoU is the
    mean over classes. Counts are int64 and stay on the device of the predictions; `update` needs no host-device
    synchronisation. A class without episodes is NaN and left out of the mean, with a warning (PFENet's code counts it
    as 0).

    Args:
        class_ids: The classes that are scored, each 0 or more.
        ignore_index: The label of target pixels that are not scored, neither 0 nor 1.
        class_names: Class id -> name, for the report.

    Raises:
        ValueError: If there are no classes, a class or a name is repeated, or a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> import torch
        >>> metric = FewShotIoU([7, 9], class_names={7: "cat", 9: "chair"})
        >>> target = torch.tensor([[[1, 1, 0, 255]], [[0, 1, 1, 1]]])
        >>> metric.update(torch.tensor([[[1, 0, 0, 1]], [[0, 1, 1, 1]]]), target, [7, 9])
        >>> print(metric.compute())
        mIoU           75.0  (2 episodes)
        FB-IoU         73.3  (2 episodes)
        episode mIoU   75.0  (2 episodes)
        object >10%    75.0  (2 episodes)
        cat            50.0  (1 episodes)
        chair         100.0  (1 episodes)
    """

    def __init__(
        self, class_ids: Iterable[int], *, ignore_index: int = 255, class_names: Mapping[int, str] | None = None
    ) -> None:
        self.class_ids = check_whole_numbers("class_ids", class_ids, 0)
        if not self.class_ids:
            raise ValueError("class_ids must be at least one class, got none")
        self.ignore_index = check_void("ignore_index", ignore_index)
        self.class_names = checked_names(class_names)
        self.reset()

    def reset(self) -> None:
        """Forget all episodes."""
        self._counts: Tensor | None = None  # class, size of the object, `_Counts`
        self._all_processes: Counts | None = None

    @torch.no_grad()
    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        class_ids: int | Sequence[int] | Tensor,
        *,
        object_shares: Tensor | None = None,
    ) -> None:
        """Add a batch of episodes to the counts.

        Args:
            prediction: ``(B, 2, H, W)`` logits, floating point, channel 1 the foreground (a tie is background); or
                ``(B, H, W)`` labels, int or bool: 1 foreground, 0 background.
            target: ``(B, H, W)`` label masks, int or bool: 1 foreground, 0 background, ``ignore_index`` not scored.
            class_ids: ``(B,)``, the class of each episode; or one number for the whole batch. A tensor on the device of
                the predictions avoids a copy to it.
            object_shares: ``(B,)`` floating point, the share of the query image that the object covers, from 0 to 1,
                for the scores by size; pass it if ``target`` was resized, cropped or padded. By default it is measured
                on all pixels of ``target``.

        Raises:
            ValueError: If a shape or a device does not fit, or a class is not among the metric's (on an accelerator,
                `compute` raises it). On a CPU also if a scored pixel has a logit that is NaN, or masks hold other
                labels.
            TypeError: If an argument is of a wrong type or a tensor of a wrong dtype.
        """
        foreground = _foreground(prediction)
        target = check_label_masks("target", target, void=self.ignore_index, warn=False)
        check_sizes("target", target, "B H W", foreground, "prediction")
        batch, device = foreground.shape[0], foreground.device
        rows = copy_to(class_rows(class_ids, self.class_ids, (batch,)), device)
        truth, scored = target == 1, target != self.ignore_index  # B H W
        if prediction.ndim == 4 and has_nan(prediction, scored):
            raise ValueError("prediction must not hold NaN where a pixel is scored, got NaN")
        sizes = _sizes(truth, object_shares)

        both = (foreground & truth & scored).sum(dim=(1, 2))  # B
        either = ((foreground | truth) & scored).sum(dim=(1, 2))
        pixels = scored.sum(dim=(1, 2))
        columns = _Counts[Tensor](
            intersection=both,
            union=either,
            background_intersection=pixels - either,
            background_union=pixels - both,
            episodes=torch.ones_like(both),
            episodes_with_union=(either > 0).long(),
            own_iou=(both * _ONE + either // 2) // either.clamp_min(1),
        )
        shape = (len(self.class_ids) + 1, 1 + len(SIZES), len(columns))
        counts = foreground.new_zeros(shape, dtype=torch.int64) if self._counts is None else self._counts.to(device)
        places = rows * shape[1] + sizes
        self._counts = counts.flatten(0, 1).index_add(0, places, torch.stack(list(columns), dim=1)).view(shape)
        self._all_processes = None

    def sync(self) -> None:
        """Add up the counts of all processes of `torch.distributed`, so that `compute` reports on all episodes.

        Every process must call it, also one without episodes. Without a process group nothing happens. Processes keep
        their own counts, so calling it again, or after more updates, counts nothing twice; an update makes `compute`
        report on the process's own episodes again, until the next call.

        Raises:
            ValueError: If the processes score different classes.
        """
        self._all_processes = sum_over_processes(self.class_ids, self._tally())

    def compute(self) -> IoUReport:
        """Compute the scores from all episodes so far; after `sync`, from those of all processes.

        Returns:
            The report. A score without any pixel is NaN, with a warning.

        Raises:
            ValueError: If episodes of unknown classes were counted.
        """
        tally = self._tally() if self._all_processes is None else self._all_processes
        *by_class, strange = [[_Counts[int](*cell) for cell in row] for row in tally]
        unknown = _sum(strange).episodes
        if unknown:
            raise ValueError(
                f"class_ids must be among {shown(self.class_ids)}, got {unknown} episodes of other classes"
            )
        counts = {class_id: _sum(cells) for class_id, cells in zip(self.class_ids, by_class, strict=True)}
        total = _sum(counts.values())
        per_class = {class_id: share(count.intersection, count.union) for class_id, count in counts.items()}
        missing = [str(self.class_names.get(key, key)) for key, iou in per_class.items() if math.isnan(iou)]
        missing += [] if total.background_union else ["background"]
        if missing:
            warnings.warn(
                f"nothing to score for {', '.join(missing)}: NaN, and left out of the mean over classes", stacklevel=2
            )
        foreground = share(total.intersection, total.union)
        background = share(total.background_intersection, total.background_union)
        return IoUReport(
            miou=mean(list(per_class.values())),
            fb_iou=(foreground + background) / 2,
            per_class=per_class,
            episodes=total.episodes,
            episode_miou=_episode_miou(total),
            episodes_per_class={class_id: count.episodes for class_id, count in counts.items()},
            class_names=self.class_names,
            by_size={size: _of_size([cells[place] for cells in by_class]) for place, size in enumerate(SIZES, start=1)},
        )

    def _tally(self) -> Counts:
        """Return the counts by class and size; the last row holds unknown classes, possible on an accelerator."""
        if self._counts is None:
            none = [[0] * len(_Counts._fields) for _ in (None, *SIZES)]
            return [none for _ in (*self.class_ids, None)]
        return self._counts.tolist()


def _sizes(truth: Tensor, object_shares: Tensor | None) -> Tensor:
    """Return ``(B,)``: 0 for an object that the query does not show, else 1 plus the position among `SIZES`."""
    if object_shares is None:
        area, pixels = truth.sum(dim=(1, 2)), truth.shape[1] * truth.shape[2]
        seen, medium, large = area > 0, 50 * area >= pixels, 10 * area > pixels
    else:
        check_tensor("object_shares", object_shares, "B")
        check_floating("object_shares", object_shares)
        if len(object_shares) != len(truth):
            raise ValueError(f"object_shares must be {len(truth)} for the batch, got {len(object_shares)}")
        shares = copy_to(object_shares, truth.device)
        seen, medium, large = shares > 0, shares >= 0.02, shares > 0.1
    return seen.long() + medium.long() + large.long()


def _sum(counts: Iterable[_Counts[int]]) -> _Counts[int]:
    return _Counts[int](*(sum(column) for column in zip(*counts, strict=True)))


def _of_size(by_class: Sequence[_Counts[int]]) -> SizeIoU:
    total = _sum(by_class)
    miou = mean([share(count.intersection, count.union) for count in by_class])
    return SizeIoU(miou, _episode_miou(total), total.episodes)


def _episode_miou(count: _Counts[int]) -> float:
    return share(count.own_iou, count.episodes_with_union * _ONE)


def _foreground(prediction: Tensor) -> Tensor:
    check_tensor("prediction", prediction, "B 2 H W", "B H W")
    if prediction.ndim == 3:
        check_labels("prediction of shape (B, H, W)", prediction)
        look_at_indices("labels in prediction", prediction.long(), 2)
        return prediction == 1
    if prediction.shape[1] != 2 or not prediction.is_floating_point():
        raise ValueError(
            f"prediction of four axes must be floating-point logits (B, 2, H, W), "
            f"got {prediction.dtype} of shape {tuple(prediction.shape)}"
        )
    return prediction[:, 1] > prediction[:, 0]
