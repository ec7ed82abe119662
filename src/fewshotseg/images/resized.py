"""Keeps small objects from vanishing when their mask is resized."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg._checks import check_tensor
from fewshotseg.ops import foreground_weights


def keep_object(mask: Tensor, resized: Tensor) -> Tensor:
    """Restore the object in a resized mask if resizing has lost it.

    Args:
        mask: ``(H, W)`` integers, 1 the object.
        resized: ``(h, w)``, the same mask resized, without padding.

    Returns:
        ``resized`` itself if it shows the object or the mask has none; else a copy in which every pixel that covers
        part of the object is 1.

    Raises:
        ValueError: If a mask is not two-dimensional.

    Example:
        >>> import torch
        >>> mask = torch.zeros(8, 8, dtype=torch.long)
        >>> mask[5, 1] = 1
        >>> keep_object(mask, mask[::4, ::4]).tolist()
        [[0, 0], [1, 0]]
    """
    check_tensor("mask", mask, "H W")
    check_tensor("resized", resized, "H W")
    if (resized == 1).any() or not (mask == 1).any():
        return resized
    covered = F.adaptive_max_pool2d((mask == 1).float()[None], tuple(resized.shape))[0]
    return torch.where(covered > 0, torch.ones_like(resized), resized)


def keep_location(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Enlarge an object that falls between the locations of a feature grid, so that one location sees it.

    Args:
        mask: ``(H, W)`` integers, 1 the object.
        grid: ``(h, w)`` of the feature maps, with aligned corners as in `fewshotseg.ops.foreground_weights`.

    Returns:
        ``mask`` itself if resizing it to the grid keeps the object, or if it has none; else a copy in which the pixels
        around the location nearest to the middle of the object are 1 too, so that this location gets weight 1.

    Raises:
        ValueError: If ``mask`` is not two-dimensional.

    Example:
        >>> import torch
        >>> mask = torch.zeros(17, 17, dtype=torch.long)
        >>> mask[10, 5] = 1
        >>> keep_location(mask, (3, 3)).nonzero().tolist()
        [[8, 8], [10, 5]]
    """
    check_tensor("mask", mask, "H W")
    if not (mask == 1).any() or (foreground_weights(mask[None], grid) > 0).any():
        return mask
    pixels = (mask == 1).nonzero().double()
    middle = pixels[(pixels - pixels.mean(dim=0)).square().sum(dim=1).argmin()]
    around = []
    for position, side, locations in zip(middle.tolist(), mask.shape, grid, strict=True):
        step = (side - 1) / max(locations - 1, 1)
        place = round(position / step) * step if locations > 1 and side > 1 else 0.0
        around.append(slice(int(place), min(int(place) + 1 + (place % 1 > 0), side)))
    seen = mask.clone()
    seen[around[0], around[1]] = 1
    return seen
