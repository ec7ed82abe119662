"""Checks values on a CPU only: on an accelerator reading them would force a host-device synchronisation."""

import math
import warnings
from functools import cache

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_labels, check_tensor
from fewshotseg.ops._precision import is_eager_cpu

ROUNDING = 1e-3
"""Tolerance for weights outside 0..1, as resizing rounds."""


def all_finite(tensor: Tensor) -> bool:
    """Whether ``tensor`` is known to hold neither NaN nor infinity; False where reading values is not free."""
    if not is_eager_cpu(tensor):
        return False
    # One sum is by far the fastest test. If it overflows, the answer is False, which callers treat as unknown.
    return math.isfinite(tensor.detach().sum(dtype=torch.promote_types(tensor.dtype, torch.float32)))


def check_label_masks(name: str, masks: Tensor, *, void: int, warn: bool = True) -> Tensor:
    """Return masks as int64; raise unless they are ``(B, H, W)`` integers or bools, on a CPU only 0, 1 and ``void``.

    With ``warn`` it warns, once, if masks hold 255 but no 1: 255 then probably means the object, not void.
    """
    check_tensor(name, masks, "B H W")
    check_labels(name, masks)
    if masks.dtype == torch.bool:
        return masks.long()
    masks = masks.long()  # small integers would wrap void round
    if is_eager_cpu(masks):
        _look_at_labels(name, masks, void, warn=warn)
    return masks


def check_logits(name: str, logits: Tensor) -> None:
    """Raise unless ``logits`` is ``(B, 2, H, W)`` and floating point."""
    check_tensor(name, logits, "B 2 H W")
    check_floating(name, logits)
    if logits.shape[1] != 2:
        raise ValueError(f"{name} must have 2 channels, background and foreground, got shape {tuple(logits.shape)}")


def look_at_indices(name: str, indices: Tensor, count: int) -> None:
    """On a CPU, raise unless all ``indices`` are from 0 to ``count - 1``."""
    if is_eager_cpu(indices) and indices.numel():
        lowest, highest = (int(limit) for limit in indices.long().aminmax())
        if lowest < 0 or highest >= count:
            raise ValueError(f"{name} must be from 0 to {count - 1}, got {lowest if lowest < 0 else highest}")


def look_at_weights(name: str, weights: Tensor) -> None:
    """On a CPU, raise unless all ``weights`` are from 0 to 1, up to rounding."""
    if weights.dtype != torch.bool and is_eager_cpu(weights) and weights.numel():
        values = weights.detach() if weights.is_floating_point() else weights.long()
        lowest, highest = (float(limit) for limit in values.aminmax())
        if not (lowest >= -ROUNDING and highest <= 1 + ROUNDING):  # NaN is neither
            raise ValueError(
                f"{name} must be weights from 0 to 1, got {lowest:g} to {highest:g}; for label masks pass masks == 1"
            )


def _look_at_labels(name: str, masks: Tensor, void: int, *, warn: bool) -> None:
    if masks.numel() == 0:
        return
    lowest, highest = (int(limit) for limit in masks.aminmax())
    if lowest >= 0 and highest <= 1:
        return
    if min(lowest, void) >= 0 and max(highest, void) <= 255:
        masks = masks.to(torch.uint8)  # compared in a fraction of the time
    others = (masks != 0) & (masks != 1) & (masks != void)
    if others.any():
        raise ValueError(
            f"{name} must hold 0 (background), 1 (foreground) and {void} (void) only, got {masks[others][0]}; "
            f"with several classes, pass one at a time as masks == class_id"
        )
    if warn and void == 255 and lowest == 0 and not (masks == 1).any():
        _warn_of_white_masks(name)


@cache  # said once
def _warn_of_white_masks(name: str) -> None:
    warnings.warn(
        f"{name} hold 255 but no 1 in a whole batch: 255 is void, which is ignored; if white (255) means the object, "
        f"pass masks > 127",
        stacklevel=5,
    )
