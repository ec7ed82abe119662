"""Few-shot intersection over union: counted in whole pixels over all episodes of a class, divided once at the end."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fewshotseg._checks import check_labels, check_sizes, check_tensor, check_void, check_whole_numbers, shown
from fewshotseg.ops._precision import is_eager_cpu
from fewshotseg.ops._values import all_finite, check_label_masks, look_at_indices

# An episode's own IoU is added up in units of 2**-32: whole numbers give one sum in any order and on any number of
# processes.
_ONE = 2**32


Number = TypeVar("Number", int, Tensor)


class _Counts(NamedTuple, Generic[Number]):
    """What is counted of a class, one column each: pixels first, then episodes, then the sum of their own IoU."""

    intersection: Number
    union: Number
    background_intersection: Number
    background_union: Number
    episodes: Number
    episodes_with_union: Number
    own_iou: Number


class IoUReport(NamedTuple):
    """What `FewShotIoU` found; all shares are from 0 to 1. Printed, they are percentages.

    Attributes:
        miou: Mean of ``per_class`` over the classes that were drawn.
        fb_iou: FB-IoU: mean of the foreground's and the background's IoU, over all episodes whatever their class.
        per_class: Class id to IoU over all its episodes; NaN for a class without a scored pixel.
        episodes: Number of episodes.
        episode_miou: The other way to average: the mean of the episodes' own foreground IoU, leaving out episodes where
            neither prediction nor target has foreground.
        episodes_per_class: Class id to number of episodes.
        class_names: Class id to name, for printing; may be empty.
    """

    miou: float
    fb_iou: float
    per_class: Mapping[int, float]
    episodes: int
    episode_miou: float
    episodes_per_class: Mapping[int, int]
    class_names: Mapping[int, str]

    def to_dict(self) -> dict[str, object]:
        """The same for JSON: classes by name (by number without one), None for NaN."""
        keys = {class_id: self.class_names.get(class_id, str(class_id)) for class_id in self.per_class}
        return {
            "miou": _or_none(self.miou),
            "fb_iou": _or_none(self.fb_iou),
            "per_class": {keys[class_id]: _or_none(iou) for class_id, iou in self.per_class.items()},
            "episodes": self.episodes,
            "episode_miou": _or_none(self.episode_miou),
            "episodes_per_class": {keys[class_id]: count for class_id, count in self.episodes_per_class.items()},
        }

    def __str__(self) -> str:
        rows = [("mIoU", self.miou, self.episodes), ("FB-IoU", self.fb_iou, self.episodes)]
        rows += [("episode mIoU", self.episode_miou, self.episodes)]
        rows += [
            (self.class_names.get(class_id, f"class {class_id}"), iou, self.episodes_per_class[class_id])
            for class_id, iou in self.per_class.items()
        ]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:<{width}}  {100 * iou:5.1f}  ({count} episodes)" for name, iou, count in rows)


class FewShotIoU:
    """IoU as the few-shot benchmarks measure it.

    For every class, intersections and unions are summed over all of its episodes and divided at the end; mIoU is the
    mean over classes. Counts are int64 and stay on the device of what comes in; `update` never waits for it.
    A class that was never drawn is NaN, is left out of the mean and warned about (PFENet's own code counts it as 0).

    Args:
        class_ids: The classes that are scored, 0 or more.
        ignore_index: The label of target pixels that do not count, neither 0 nor 1.
        class_names: Class id to name, for the report.

    Raises:
        ValueError: If there are no classes, a class or a name stands there twice, or a number is out of range.
        TypeError: If an argument is of a wrong type, such as a class that is no integer.

    Example:
        >>> import torch
        >>> metric = FewShotIoU([7, 9], class_names={7: "cat", 9: "chair"})
        >>> target = torch.tensor([[[1, 1, 0, 255]], [[0, 1, 1, 1]]])
        >>> metric.update(torch.tensor([[[1, 0, 0, 1]], [[0, 1, 1, 1]]]), target, [7, 9])
        >>> print(metric.compute())
        mIoU           75.0  (2 episodes)
        FB-IoU         73.3  (2 episodes)
        episode mIoU   75.0  (2 episodes)
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
        self.class_names = _checked_names(class_names)
        self.reset()

    def reset(self) -> None:
        """Forget all episodes."""
        self._counts: Tensor | None = None
        self._all_processes: list[list[int]] | None = None

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor, class_ids: int | Sequence[int] | Tensor) -> None:
        """Count a batch of episodes.

        Args:
            prediction: ``(B, 2, H, W)`` logits, floating point, channel 1 the foreground (a tie is background); or
                ``(B, H, W)`` labels, int or bool: 1 foreground, 0 background.
            target: ``(B, H, W)`` label masks, int or bool: 1 foreground, 0 background, ``ignore_index`` not scored.
            class_ids: ``(B,)``, the class of each episode; one number for a whole batch of one class. A tensor on the
                device of the predictions keeps `update` from waiting for the device.

        Raises:
            ValueError: If a shape or a device does not fit, or a class is not among the metric's (on an accelerator,
                `compute` raises it). On a CPU also if a scored pixel has a logit that is NaN, or masks hold other
                labels.
            TypeError: If an argument is of a wrong type or a tensor of a wrong dtype.
        """
        foreground = _foreground(prediction)
        target = check_label_masks("target", target, void=self.ignore_index, warn=False)
        check_sizes("target", target, "B H W", foreground, "prediction")
        rows = self._rows(class_ids, foreground.shape[0], foreground.device)
        truth, scored = target == 1, target != self.ignore_index  # B H W
        if prediction.ndim == 4 and _has_nan(prediction, scored):
            raise ValueError("prediction must not hold NaN where a pixel is scored, got NaN")

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
        counts = self._counts
        if counts is None:
            counts = foreground.new_zeros(len(self.class_ids) + 1, len(columns), dtype=torch.int64)
        self._counts = counts.to(foreground.device).index_add(0, rows, torch.stack(list(columns), dim=1))
        self._all_processes = None

    def sync(self) -> None:
        """Add up the counts of all processes of `torch.distributed`, so that `compute` reports on all episodes.

        Every process has to call it, also one without episodes. Without a process group nothing happens. Processes keep
        their own counts, so calling it again, or after more updates, counts nothing twice; an update makes `compute`
        report on the process's own episodes again, until the next call.

        Raises:
            ValueError: If the processes score different classes.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        # Objects rather than tensors: they need no common device, and a process may not have seen one yet.
        shares: list[tuple[tuple[int, ...], list[list[int]]]] = [((), [])] * dist.get_world_size()
        dist.all_gather_object(shares, (self.class_ids, self._tally()))
        if any(class_ids != self.class_ids for class_ids, _ in shares):
            raise ValueError(f"class_ids must be equal in all processes, got {[class_ids for class_ids, _ in shares]}")
        self._all_processes = torch.tensor([counts for _, counts in shares], device="cpu").sum(dim=0).tolist()

    def compute(self) -> IoUReport:
        """Divide what was counted so far; after `sync`, by all processes.

        Returns:
            The report. A share without a pixel to divide by is NaN, with a warning.

        Raises:
            ValueError: If episodes of unknown classes were counted.
        """
        rows = self._tally() if self._all_processes is None else self._all_processes
        *known, unknown = (_Counts[int](*row) for row in rows)
        if unknown.episodes:
            raise ValueError(
                f"class_ids must be among {shown(self.class_ids)}, got {unknown.episodes} episodes of other classes"
            )
        total = _Counts[int](*(sum(column) for column in zip(*known, strict=True)))
        counts = dict(zip(self.class_ids, known, strict=True))
        per_class = {class_id: _share(count.intersection, count.union) for class_id, count in counts.items()}
        missing = [str(self.class_names.get(key, key)) for key, iou in per_class.items() if math.isnan(iou)]
        missing += [] if total.background_union else ["background"]
        if missing:
            warnings.warn(
                f"nothing to score for {', '.join(missing)}: NaN, and left out of the mean over classes", stacklevel=2
            )
        drawn = [iou for iou in per_class.values() if not math.isnan(iou)]
        foreground = _share(total.intersection, total.union)
        background = _share(total.background_intersection, total.background_union)
        return IoUReport(
            miou=_share(math.fsum(drawn), len(drawn)),
            fb_iou=(foreground + background) / 2,
            per_class=per_class,
            episodes=total.episodes,
            episode_miou=_share(total.own_iou, total.episodes_with_union * _ONE),
            episodes_per_class={class_id: count.episodes for class_id, count in counts.items()},
            class_names=self.class_names,
        )

    def _rows(self, class_ids: int | Sequence[int] | Tensor, batch: int, device: torch.device) -> Tensor:
        """The row of the counts that belongs to each episode, the last one for unknown classes."""
        ids = _as_ids(class_ids)
        if tuple(ids.shape) not in {(), (batch,)}:
            raise ValueError(f"class_ids must be one class, or {batch} for the batch, got shape {tuple(ids.shape)}")
        known = torch.tensor(self.class_ids, device="cpu").to(ids.device, non_blocking=True)
        same = ids.reshape(-1, 1) == known
        if is_eager_cpu(ids) and not same.any(dim=1).all():
            raise ValueError(f"class_ids must be among {shown(self.class_ids)}, got {shown(ids.tolist())}")
        rows = torch.where(same.any(dim=1), same.int().argmax(dim=1), len(self.class_ids))
        return rows.to(device, non_blocking=True).expand(batch)

    def _tally(self) -> list[list[int]]:
        """One row a class, and one for episodes of unknown classes: ids on an accelerator are not looked at."""
        if self._counts is None:
            return [[0] * len(_Counts._fields) for _ in range(len(self.class_ids) + 1)]
        return self._counts.tolist()


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


def _as_ids(class_ids: int | Sequence[int] | Tensor) -> Tensor:
    """Class ids as a tensor of integers, where they are if they are a tensor and on the CPU otherwise."""
    try:
        ids = class_ids if isinstance(class_ids, Tensor) else torch.as_tensor(class_ids, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):  # torch's words for what is no number
        raise TypeError(f"class_ids must be integers, got {shown(class_ids)}") from None
    if ids.is_floating_point() or ids.is_complex() or (ids.dtype == torch.bool):
        raise TypeError(f"class_ids must be integers, got {ids.dtype}")
    return ids


def _checked_names(class_names: Mapping[int, str] | None) -> dict[int, str]:
    if class_names is None:
        return {}
    if not isinstance(class_names, Mapping) or not all(isinstance(name, str) for name in class_names.values()):
        raise TypeError(f"class_names must map class ids to names, got {shown(class_names)}")
    if len(set(class_names.values())) < len(class_names):
        raise ValueError(f"class_names must be different, got {shown(list(class_names.values()))}")
    return dict(class_names)


def _has_nan(logits: Tensor, scored: Tensor) -> bool:
    """Whether a scored pixel is known to have a logit that is NaN."""
    if not is_eager_cpu(logits) or all_finite(logits):
        return False
    return bool((logits.isnan().any(dim=1) & scored).any())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
