"""Makes points of annotated examples: the features at all locations, with their shares of foreground and background."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from fewshotseg.ops._precision import at_least_float32, inverse_norm


def points_of(features: Tensor, masks: Tensor, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make the points of each episode from the features of its shots.

    Args:
        features: ``(BS, C, h, w)``.
        masks: ``(BS, H, W)`` label masks.
        shots: S.

    Returns:
        Points ``(B, S, h * w, C)`` of unit length, and twice ``(B, S, h * w)``: the share of each location's pixels
        that is foreground, and the share that is background.
    """
    vectors = rearrange(features, "(b s) c h w -> b s (h w) c", s=shots)
    exact = at_least_float32(vectors)
    points = (exact * inverse_norm(exact)).to(features.dtype)
    return points, _shares(masks == 1, features, shots), _shares(masks == 0, features, shots)


def _shares(masks: Tensor, features: Tensor, shots: int) -> Tensor:
    """Compute the share of each location's pixels that is true, so that no object falls between two locations."""
    shares = F.interpolate(masks[:, None].float(), size=features.shape[2:], mode="area")
    return rearrange(shares, "(b s) 1 h w -> b s (h w)", s=shots).to(features.dtype)
