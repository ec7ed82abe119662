"""High-level features of masked supports, computed only where the mask lets anything through."""

from typing import Any

import torch
from torch import Tensor

from fewshotseg.ops._precision import is_at_hand


def masked_high(backbone: Any, deepest: Tensor, foreground: Tensor) -> Tensor:
    """What a backbone's last step makes of maps times masks, right where the masks are positive.

    On a CPU a backbone that says how far it looks (``halo``) runs on the box around each mask with so many cells more,
    which gives the values of the whole map inside the mask. Elsewhere finding the box would make the host wait.

    Args:
        backbone: What follows `Backbone`.
        deepest: ``(B, C, h, w)``, the first map of ``backbone.mid``.
        foreground: ``(B, h, w)`` masks from 0 to 1 on the same grid.

    Returns:
        ``(B, C', h', w')``; values outside a mask mean nothing.
    """
    masked = deepest * foreground[:, None].to(deepest.dtype)
    halo = getattr(backbone, "halo", None)
    if halo is None or backbone.training or not is_at_hand(masked):
        high: Tensor = backbone.high(masked)
        return high
    return torch.cat(
        [_inside_box(backbone, features[None], mask, halo) for features, mask in zip(masked, foreground, strict=True)]
    )


def _inside_box(backbone: Any, masked: Tensor, mask: Tensor, halo: int) -> Tensor:
    rows, columns = (_extent(mask.amax(dim=axis), halo) for axis in (1, 0))
    part: Tensor = backbone.high(masked[..., rows, columns])
    if part.shape[2:] == mask.shape:
        return part
    high = part.new_zeros(*part.shape[:2], *mask.shape)
    high[..., rows, columns] = part
    return high


def _extent(line: Tensor, halo: int) -> slice:
    """From the first to the last positive entry and ``halo`` more on both sides; the first alone if none is."""
    positive = line.nonzero()
    first, last = (int(positive[0]), int(positive[-1])) if len(positive) else (0, 0)
    return slice(max(first - halo, 0), last + halo + 1)
