"""Shared parts of the metrics: class ids as rows of counts, sums over processes, shares of counts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fewshotseg._checks import check_labels, shown
from fewshotseg.ops._devices import copy_to
from fewshotseg.ops._precision import is_eager_cpu
from fewshotseg.ops._values import all_finite

ClassIds = int | Sequence[int] | Sequence[Sequence[int]] | Tensor

Counts = list[Any]
"""Nested lists of integers, as `torch.Tensor.tolist` returns them: all that a metric has counted."""


def class_rows(class_ids: ClassIds, known: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return the row of each class, int64; unknown classes get the row after the last.

    On a CPU an unknown class raises at once; on an accelerator that would need a host-device synchronisation.

    Args:
        class_ids: One class, or a tensor or list of classes of the given shape.
        known: The classes, in the order of the rows.
        shape: ``(B,)`` or ``(B, N)``.

    Raises:
        ValueError: If a shape does not fit, or on a CPU a class is not among ``known``.
        TypeError: If ``class_ids`` are not integers.
    """
    ids = as_ids(class_ids)
    if tuple(ids.shape) not in {(), shape}:
        wanted = f"one class, or {shape[0]} for the batch" if len(shape) == 1 else f"of shape {shape}"
        raise ValueError(f"class_ids must be {wanted}, got shape {tuple(ids.shape)}")
    same = ids.unsqueeze(-1) == copy_to(torch.tensor(known, device="cpu"), ids.device)
    if is_eager_cpu(ids) and not same.any(dim=-1).all():
        raise ValueError(f"class_ids must be among {shown(tuple(known))}, got {shown(ids.tolist())}")
    return torch.where(same.any(dim=-1), same.int().argmax(dim=-1), len(known)).expand(shape)


def as_ids(class_ids: ClassIds) -> Tensor:
    """Convert class ids to a tensor of integers; a tensor stays on its device, others go to the CPU."""
    try:
        ids = class_ids if isinstance(class_ids, Tensor) else torch.as_tensor(class_ids, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):  # what torch raises for things that are not numbers
        raise TypeError(f"class_ids must be integers, got {shown(class_ids)}") from None
    if not ids.numel() and not isinstance(class_ids, Tensor):
        return ids.long()  # an empty list would be float32
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"class_ids must be integers, got {ids.dtype}")
    return ids


def sum_over_processes(class_ids: Sequence[int], counts: Counts) -> Counts | None:
    """Add up the counts of all processes of `torch.distributed`; None without a process group.

    Every process must call it. Objects are exchanged, not tensors, as a process without episodes has no tensor yet.

    Raises:
        ValueError: If the processes score different classes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    shares: list[tuple[tuple[int, ...], Counts]] = [((), [])] * dist.get_world_size()
    dist.all_gather_object(shares, (tuple(class_ids), counts))
    if any(others != tuple(class_ids) for others, _ in shares):
        raise ValueError(f"class_ids must be equal in all processes, got {[others for others, _ in shares]}")
    total: Counts = torch.tensor([each for _, each in shares], device="cpu").sum(dim=0).tolist()
    return total


def checked_names(class_names: Mapping[int, str] | None) -> dict[int, str]:
    """Return the class names as a dict; raise unless they are different strings."""
    if class_names is None:
        return {}
    if not isinstance(class_names, Mapping) or not all(isinstance(name, str) for name in class_names.values()):
        raise TypeError(f"class_names must map class ids to names, got {shown(class_names)}")
    if len(set(class_names.values())) < len(class_names):
        raise ValueError(f"class_names must be different, got {shown(list(class_names.values()))}")
    return dict(class_names)


def predicted_labels(prediction: Tensor, channels: int, whose: str) -> Tensor:
    """Return ``(B, H, W)`` int64: a label map as it is, or of logits the channel of the largest.

    Args:
        prediction: ``(B, H, W)`` labels or ``(B, channels, H, W)`` logits.
        channels: The number of channels that logits must have.
        whose: Names the channels in the message.

    Raises:
        ValueError: If logits have other channels or are not floating point.
        TypeError: If labels are not integers or bools.
    """
    if prediction.ndim == 3:
        check_labels("prediction of shape (B, H, W)", prediction)
        return prediction.long()
    if prediction.shape[1] != channels or not prediction.is_floating_point():
        raise ValueError(
            f"prediction of four axes must be floating-point logits (B, {channels}, H, W), for {whose}, "
            f"got {prediction.dtype} of shape {tuple(prediction.shape)}"
        )
    return prediction.argmax(dim=1)


def has_nan(logits: Tensor, scored: Tensor) -> bool:
    """Whether, on a CPU, a scored pixel has a NaN among its logits ``(B, K, H, W)``; ``scored`` is ``(B, H, W)``."""
    if not is_eager_cpu(logits) or all_finite(logits):
        return False
    return bool((logits.isnan().any(dim=1) & scored).any())


def share(part: float, whole: float) -> float:
    """Divide a part by the whole; NaN if the whole is 0."""
    return part / whole if whole else math.nan


def mean(values: Sequence[float]) -> float:
    """Compute the mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return share(math.fsum(known), len(known))


def or_none(value: float) -> float | None:
    """Replace NaN by None, for JSON."""
    return None if math.isnan(value) else value


def table(rows: Sequence[tuple[str, float, str]]) -> str:
    """Write lines with a name, a share in percent and a remark."""
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {100 * value:5.1f}  {remark}".rstrip() for name, value, remark in rows)
