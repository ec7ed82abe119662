"""Hysteresis thresholding: finds the regions of a prediction that are nowhere sure."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg.models.segmentation_model import peak_of

TILES = 96
"""Regions are connected on a grid of at most this many tiles a side; whatever meets in neighbouring tiles is one."""


def weak_regions(probability: Tensor, threshold: float, peak: float) -> Tensor:
    """Find the pixels of regions whose largest probability is not above a second, higher threshold.

    A region is what is connected, also by a corner, and above ``threshold``.

    Args:
        probability: ``(K, h, w)``, of each class, whose regions are its own.
        threshold: Probability above which a pixel belongs to a region.
        peak: Probability that a region must exceed somewhere not to be weak.

    Returns:
        ``(K, h, w)`` bool.

    Example:
        >>> weak_regions(torch.tensor([[[0.6, 0.7, 0.1, 0.6, 0.9]]]), 0.5, 0.8)
        tensor([[[ True,  True, False, False, False]]])
    """
    above = probability > threshold
    height, width = probability.shape[1:]
    tile = -(-max(height, width) // TILES)
    most = F.max_pool2d(probability, tile, ceil_mode=True)  # K h' w'
    regions, kept = most > threshold, most > max(peak, threshold)
    while True:
        grown = (F.max_pool2d(kept.float(), 3, stride=1, padding=1) > 0) & regions
        if torch.equal(grown, kept):
            break
        kept = grown
    kept = kept.repeat_interleave(tile, dim=1)[:, :height].repeat_interleave(tile, dim=2)[..., :width]
    return above & ~kept


def without_weak_regions(model: Any, probability: Tensor, threshold: float) -> Tensor:
    """Set the pixels of weak regions to 0 if the model has a peak threshold that goes with ``threshold``.

    Args:
        model: The model, for its setting.
        probability: ``(K, h, w)``, of each class; returned as it is if nothing applies.
        threshold: Probability above which a pixel belongs to a region.
    """
    peak = peak_of(model, threshold)
    if peak <= threshold:
        return probability
    return probability.masked_fill(weak_regions(probability, threshold, peak), 0)
