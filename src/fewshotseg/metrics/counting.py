"""What all scores share: rows for classes, sums over processes, shares of counts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fewshotseg._checks import shown
from fewshotseg.ops._precision import is_eager_cpu
from fewshotseg.ops._values import all_finite

ClassIds = int | Sequence[int] | Sequence[Sequence[int]] | Tensor

Counts = list[Any]
"""Whole numbers, as `torch.Tensor.tolist` gives them: a row for each class, and a last one for unknown classes."""


def class_rows(class_ids: ClassIds, known: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """The row of each class, int64; the row after the last for classes that are not known.

    On a CPU an unknown class is refused at once. Anywhere else nothing is looked at, so that no device is waited for.

    Args:
        class_ids: One class, or a class for each place of ``shape``.
        known: The classes, in the order of the rows.
        shape: ``(B,)`` or ``(B, N)``.

    Raises:
        ValueError: If a shape does not fit, or a class is known not to be among ``known``.
        TypeError: If ``class_ids`` are no integers.
    """
    ids = as_ids(class_ids)
    if tuple(ids.shape) not in {(), shape}:
        wanted = f"one class, or {shape[0]} for the batch" if len(shape) == 1 else f"of shape {shape}"
        raise ValueError(f"class_ids must be {wanted}, got shape {tuple(ids.shape)}")
    same = ids.unsqueeze(-1) == torch.tensor(known, device="cpu").to(ids.device, non_blocking=True)
    if is_eager_cpu(ids) and not same.any(dim=-1).all():
        raise ValueError(f"class_ids must be among {shown(tuple(known))}, got {shown(ids.tolist())}")
    return torch.where(same.any(dim=-1), same.int().argmax(dim=-1), len(known)).expand(shape)


def as_ids(class_ids: ClassIds) -> Tensor:
    """Class ids as a tensor of integers, where they are if they are a tensor and on the CPU otherwise."""
    try:
        ids = class_ids if isinstance(class_ids, Tensor) else torch.as_tensor(class_ids, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):  # torch's words for what is no number
        raise TypeError(f"class_ids must be integers, got {shown(class_ids)}") from None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"class_ids must be integers, got {ids.dtype}")
    return ids


def sum_over_processes(class_ids: Sequence[int], counts: Counts) -> Counts | None:
    """Add up the counts of all processes of `torch.distributed`; None without a process group.

    Every process has to call it. Objects rather than tensors are exchanged: they need no common device, and a process
    may not have seen one yet.

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
    """Class id to name; raise unless these are names, none twice."""
    if class_names is None:
        return {}
    if not isinstance(class_names, Mapping) or not all(isinstance(name, str) for name in class_names.values()):
        raise TypeError(f"class_names must map class ids to names, got {shown(class_names)}")
    if len(set(class_names.values())) < len(class_names):
        raise ValueError(f"class_names must be different, got {shown(list(class_names.values()))}")
    return dict(class_names)


def has_nan(logits: Tensor, scored: Tensor) -> bool:
    """Whether a scored pixel is known to have a logit that is NaN: ``(B, K, H, W)`` and ``(B, H, W)`` bool."""
    if not is_eager_cpu(logits) or all_finite(logits):
        return False
    return bool((logits.isnan().any(dim=1) & scored).any())


def share(part: float, whole: float) -> float:
    """A part of a whole, NaN of nothing."""
    return part / whole if whole else math.nan


def mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return share(math.fsum(known), len(known))


def or_none(value: float) -> float | None:
    """A value as JSON can hold it."""
    return None if math.isnan(value) else value


def table(rows: Sequence[tuple[str, float, str]]) -> str:
    """Lines of a name, a share in percent and a remark."""
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {100 * value:5.1f}  {remark}".rstrip() for name, value, remark in rows)
