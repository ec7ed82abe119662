"""High-level features of masked supports, computed only where the mask lets anything through."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewshotseg.ops._precision import is_at_hand


def masked_high(backbone: Any, deepest: Tensor, foreground: Tensor) -> Tensor:
    """What a backbone's last step makes of maps times masks, right where the masks are positive.

    On a CPU a backbone whose last step is a chain of ``high_blocks`` runs on the box around each mask, with as many
    cells more as the blocks still to come look beyond a position. That gives the values of the whole map inside the
    mask. Elsewhere finding the box would make the host wait.

    Args:
        backbone: What follows `Backbone`.
        deepest: ``(B, C, h, w)``, the first map of ``backbone.mid``.
        foreground: ``(B, h, w)`` masks from 0 to 1 on the same grid.

    Returns:
        ``(B, C', h', w')``; values outside a mask mean nothing.
    """
    masked = deepest * foreground[:, None].to(deepest.dtype)
    blocks = getattr(backbone, "high_blocks", None)
    if blocks is None or backbone.training or not is_at_hand(masked):
        high: Tensor = backbone.high(masked)
        return high
    images = zip(masked, foreground, strict=True)
    return torch.cat([_inside_box(blocks, maps[None], mask) for maps, mask in images])


def _inside_box(blocks: Sequence[nn.Module], masked: Tensor, mask: Tensor) -> Tensor:
    spans = [mask.amax(dim=axis).nonzero().flatten().tolist() or [0] for axis in (1, 0)]

    def box(halo: int) -> tuple[Any, ...]:
        sides = zip(spans, mask.shape, strict=True)
        return tuple(slice(max(span[0] - halo, 0), min(span[-1] + 1 + halo, side)) for span, side in sides)

    halo = sum(map(_reach, blocks))
    outer = box(halo)
    part = masked[..., *outer]
    for block in blocks:
        halo -= _reach(block)
        inner = box(halo)
        kept = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        part, outer = block(part)[..., *kept], inner
    high = part.new_zeros(*part.shape[:2], *mask.shape)
    high[..., *outer] = part
    return high


def _reach(block: nn.Module) -> int:
    """How many cells a block of stride 1 looks beyond a position: the sum over its convolutions."""
    convs = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    return sum(conv.dilation[0] * (conv.kernel_size[0] // 2) for conv in convs)
