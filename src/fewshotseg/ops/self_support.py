"""Self-support prototypes: taken from the query itself, where a first prediction is confident (SSP)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from fewshotseg._checks import (
    check_at_least,
    check_floating,
    check_number,
    check_share,
    check_sizes,
    check_tensor,
)
from fewshotseg.ops._precision import at_least_float32, unit, without_autocast
from fewshotseg.ops._values import check_logits


def self_support_masks(
    logits: Tensor, *, background: float = 0.6, foreground: float = 0.7, fallback: int = 12
) -> Tensor:
    r"""Find the locations where a prediction is confident; the means of their features are self-support prototypes.

    $$\tilde M_k = [\, p_k > \tau_k \,]$$

    From SSP (Fan et al., ECCV 2022): the parts of one object are more similar to each other than to those of another
    object of the class.

    Args:
        logits: ``(B, 2, h, w)`` of a first prediction, channel 1 foreground.
        background: Threshold between 0 and 1: above this probability of background a location counts as background.
        foreground: Likewise for the foreground.
        fallback: If no probability is above a threshold, take this many locations, the most probable ones.

    Returns:
        ``(B, 2, h, w)`` bool, masks of background and foreground, never empty. Locations with NaN or infinity are
        taken only by the fallback.

    Raises:
        ValueError: If a shape does not fit or a number is out of range.
        TypeError: If ``logits`` is not floating point or a threshold is not a number.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[3.0, 0.0, -3.0]], [[-3.0, 0.0, 3.0]]]])
        >>> self_support_masks(logits).int()
        tensor([[[[1, 0, 0]],
        <BLANKLINE>
                 [[0, 0, 1]]]], dtype=torch.int32)
    """
    check_logits("logits", logits)
    thresholds = [
        check_share(name, value, open_ends=True)
        for name, value in (("background", background), ("foreground", foreground))
    ]
    check_at_least("fallback", fallback, 1)
    probabilities = at_least_float32(logits.detach()).flatten(2).softmax(dim=1).nan_to_num(0)  # B 2 N
    sure = torch.stack([probabilities[:, side] > threshold for side, threshold in enumerate(thresholds)], dim=1)
    best = probabilities.topk(min(fallback, probabilities.shape[2]), dim=2).indices
    most_probable = torch.zeros_like(sure).scatter(2, best, value=True)
    return torch.where(sure.any(dim=2, keepdim=True), sure, most_probable).view_as(logits)


def local_prototypes(features: Tensor, masks: Tensor, *, scale: float = 2.0) -> Tensor:
    r"""Compute a prototype for each location: the mean over a mask, weighted by similarity to the location.

    $$p(x) = \sum_y F(y)\, \operatorname{softmax}_{y \in M}(s \cos(F(x), F(y)))$$

    These are SSP's adaptive background prototypes (Fan et al., ECCV 2022): a background shows several things, and the
    mean of all of them resembles none.

    Args:
        features: ``(B, C, h, w)``, floating point.
        masks: ``(B, h, w)`` bool, such as a channel of `self_support_masks`.
        scale: $s$, from 0 (the same mean for all locations) to 1000; 2 in SSP.

    Returns:
        ``(B, C, h, w)`` in the dtype of ``features``, computed in at least float32; 0 for an empty mask. Features
        outside the mask have no effect on other locations. Differentiable in ``features``.

    Raises:
        ValueError: If a shape or a device does not fit, or a number is out of range.
        TypeError: If ``features`` is not floating point, ``masks`` not bool or ``scale`` not a number.

    Example:
        >>> import torch
        >>> features, masks = torch.rand(2, 8, 5, 5), torch.rand(2, 5, 5) > 0.5
        >>> local_prototypes(features, masks).shape
        torch.Size([2, 8, 5, 5])
    """
    check_tensor("features", features, "B C H W")
    check_floating("features", features)
    check_tensor("masks", masks, "B H W")
    check_sizes("masks", masks, "B H W", features, "features", "B C H W")
    if masks.dtype != torch.bool:
        raise TypeError(f"masks must be bool, such as masks == 1, got {masks.dtype}")
    scale = check_number("scale", scale, 0, 1000)
    with without_autocast(features):
        values = rearrange(at_least_float32(features), "b c h w -> b (h w) c")
        inside = masks.flatten(1)[:, None]  # B 1 N
        filled = inside.any(dim=2, keepdim=True)  # B 1 1
        directions = unit(values)
        kept = torch.where(inside.mT, values, 0)  # 0 * NaN is NaN
        # Attention with an empty mask is undefined in some kernels: attend to all there, and discard the result.
        means = F.scaled_dot_product_attention(directions, directions, kept, attn_mask=inside | ~filled, scale=scale)
    maps = torch.where(filled, means, 0).to(features.dtype)
    return rearrange(maps, "b (h w) c -> b c h w", h=features.shape[2])
