"""Resizes maps and labels with aligned corners, as PFENet does everywhere.

With aligned corners the first and the last sample of both grids coincide: from 473 to 60 the step is exactly eight
pixels, so a resized mask stays exactly binary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg._checks import check_floating, check_real, check_size, check_tensor
from fewshotseg.ops._precision import without_autocast
from fewshotseg.ops._values import look_at_weights

RESIZED_ZERO = 1e-6
"""A weight up to this counts as 0: resizing a mask may turn a 0 into such a number by rounding."""


def resize_bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly with aligned corners; maps that have the size already are returned unchanged.

    Args:
        maps: ``(B, C, h, w)``, floating point.
        size: ``(H, W)`` of the result.

    Returns:
        ``(B, C, H, W)`` in the dtype of ``maps``, differentiable.

    Raises:
        ValueError: If ``maps`` is not four-dimensional, or ``size`` is not two numbers from 1 to 65536.
        TypeError: If ``maps`` is not floating point.

    Example:
        >>> import torch
        >>> resize_bilinear(torch.tensor([[[[0.0, 1.0]]]]), (1, 3))
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    check_tensor("maps", maps, "B C H W")
    check_floating("maps", maps)
    size = check_size("size", size)
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def sample_nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize labels by nearest sampling with aligned corners.

    Args:
        labels: ``(B, h, w)``, any dtype; values are kept as they are, so 0, 1 and 255 stay 0, 1 and 255.
        size: ``(H, W)`` of the result.

    Returns:
        ``(B, H, W)`` in the dtype of ``labels``. Halfway between two pixels, the later one is taken.

    Raises:
        ValueError: If ``labels`` is not three-dimensional, or ``size`` is not two numbers from 1 to 65536.

    Example:
        >>> import torch
        >>> sample_nearest(torch.arange(9)[None, None].expand(1, 9, 9), (2, 3))
        tensor([[[0, 4, 8],
                 [0, 4, 8]]])
    """
    check_tensor("labels", labels, "B H W")
    size = check_size("size", size)
    height, width = labels.shape[-2:]
    if (height, width) == size:
        return labels
    rows = _aligned_positions(height, size[0], labels.device)
    columns = _aligned_positions(width, size[1], labels.device)
    return labels[:, rows[:, None], columns]


def foreground_weights(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the foreground of masks to a feature grid, as weights from 0 to 1, as PFENet does.

    Args:
        masks: ``(B, H, W)`` label masks (1 foreground, everything else not), bool masks, or floating-point weights
            in 0..1, which are resized as they are.
        size: ``(h, w)`` of the result.

    Returns:
        ``(B, h, w)`` in 0..1: floating-point masks keep their dtype, others give float32. Exactly binary if the step
        between positions is a whole number of pixels.

    Raises:
        ValueError: If ``masks`` is not three-dimensional, ``size`` is not two numbers from 1 to 65536, or weights on a
            CPU are not from 0 to 1.
        TypeError: If ``masks`` is complex.

    Example:
        >>> import torch
        >>> foreground_weights(torch.tensor([[[0, 255, 1]]]), (1, 2))
        tensor([[[0., 1.]]])
    """
    check_tensor("masks", masks, "B H W")
    check_real("masks", masks)
    if masks.is_floating_point():
        look_at_weights("masks", masks)
        weights = masks
    else:
        weights = (masks == 1).float()
    return resize_bilinear(weights[:, None], size)[:, 0]


def resize_by_products(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute `resize_bilinear` with the matrices of `resizing_weights`, for a better gradient on an accelerator.

    There the gradient of ``F.interpolate`` adds every pixel atomically to the cells around it, which takes long where
    many pixels share a cell, and is not deterministic.
    """
    batch, channels = maps.shape[:2]
    wide = maps.flatten(0, 1) @ columns.mT  # B*C h W
    # bmm, as ``rows @ wide`` would copy the maps to make one product of all.
    return torch.bmm(rows.expand(batch * channels, -1, -1), wide).view(batch, channels, len(rows), len(columns))


def resizing_weights(old: tuple[int, int], new: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Build matrices ``(H, h)`` and ``(W, w)``: ``rows @ map @ columns.mT`` resizes a map ``(h, w)`` to ``(H, W)``."""
    rows = _row_weights(old[0], new[0], like)
    square = (old[0], new[0]) == (old[1], new[1])
    return rows, rows if square else _row_weights(old[1], new[1], like)


def _row_weights(old: int, new: int, like: Tensor) -> Tensor:
    unit = torch.eye(old, dtype=like.dtype, device=like.device)
    return resize_bilinear(unit[None, None], (new, old))[0, 0]


def average_pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute ``F.adaptive_avg_pool2d``, with a deterministic gradient under `torch.use_deterministic_algorithms`."""
    if maps.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled():
        return F.adaptive_avg_pool2d(maps, size)
    with without_autocast(maps):
        rows, columns = (_averages(old, new, maps) for old, new in zip(maps.shape[-2:], size, strict=True))
        return rows @ maps @ columns.mT  # B C h w


def _averages(old: int, new: int, like: Tensor) -> Tensor:
    """Build the matrix ``(new, old)`` that pools a row of ``old`` numbers to ``new``."""
    numbers = torch.arange(new, device=like.device)[:, None]
    first, last = numbers * old // new, ((numbers + 1) * old + new - 1) // new
    places = torch.arange(old, device=like.device)
    return ((places >= first) & (places < last)).to(like.dtype) / (last - first).to(like.dtype)


def _aligned_positions(old: int, new: int, device: torch.device) -> Tensor:
    """Compute, for a corner-aligned grid of ``new`` positions, the nearest index on a grid of ``old``."""
    steps = max(new - 1, 1)
    return (2 * torch.arange(new, device=device) * (old - 1) + steps) // (2 * steps)
