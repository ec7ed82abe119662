"""The presence score: how sure a model is that an image shows the object at all, and evidence for it."""

from typing import Any

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_tensor
from fewshotseg.ops._precision import is_eager_cpu, unit, without_autocast

SHARE = 0.01
"""Share of the locations that the score is computed from, those with the largest log-odds."""


def presence_of(model: Any, log_odds: Tensor) -> Tensor:
    """Compute the presence score of each map: sigmoid of the mean log-odds of its 1 % largest locations.

    The mean is multiplied by the scale and added to the bias of ``model.config.presence``, which are fitted to
    photographs with and without the object. With the default, 1 and 0, the score is not a calibrated probability.

    Args:
        model: Any model; without that setting, scale 1 and bias 0 are used.
        log_odds: ``(K, h, w)``, foreground logits minus background logits of an image without its padding.

    Returns:
        ``(K,)`` float32 from 0 to 1.

    Raises:
        ValueError: If ``log_odds`` is not three-dimensional.
        TypeError: If it is not floating point.

    Example:
        >>> import torch
        >>> log_odds = torch.zeros(1, 10, 20)
        >>> log_odds[0, 4, 7:9] = 3.0
        >>> presence_of(None, log_odds)
        tensor([0.9526])
    """
    check_tensor("log_odds", log_odds, "K h w")
    check_floating("log_odds", log_odds)
    flat = log_odds.float().flatten(1)
    return presence_from(model, flat.topk(max(1, round(SHARE * flat.shape[1])), dim=1).values.mean(dim=1))


def presence_from(model: Any, evidence: Tensor) -> Tensor:
    """Compute the presence score from evidence of any kind, such as `found_again`: sigmoid of scale times it plus bias.

    Args:
        model: Any model; its ``config.presence`` is used if there is one, else scale 1 and bias 0.
        evidence: Floating point, of any shape.
    """
    scale, bias = getattr(getattr(model, "config", None), "presence", (1.0, 0.0))
    return torch.sigmoid(scale * evidence + bias)


def found_again(features: Tensor, points: Tensor, foreground: Tensor) -> Tensor:
    """Compute how well the examples' objects are found again in images: the mean of their points' best matches.

    For each point of an object it is the largest cosine with any location of the image; the mean over the object is
    weighted by ``foreground``, and all examples count the same. Unlike the largest log-odds it asks for the whole
    object, not for some location that is like a part of it.

    Args:
        features: ``(B, C, h, w)`` of the images.
        points: ``(B, S, N, C)``, the features at all N locations of each example.
        foreground: ``(B, S, N)``, how much each location belongs to the object.

    Returns:
        ``(B,)`` from -1 to 1, in at least float32. Examples without foreground are left out; 0 if no example has any.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # two locations, (1, 0) and (0, 1)
        >>> points = torch.tensor([[[[0.0, 2.0], [0.6, 0.8], [-1.0, 0.0]]]])
        >>> found_again(image, points, torch.tensor([[[1.0, 1.0, 0.0]]]))  # 1 and 0.8
        tensor([0.9000])
    """
    with without_autocast(features):
        dtype = torch.promote_types(features.dtype, torch.float32)
        locations = unit(features.to(dtype), dim=1).flatten(2)  # B C hw
        weights = foreground.to(dtype)
        totals = weights.sum(dim=2)  # B S
        # One example at a time, so that memory does not grow with their number.
        each = zip(points.unbind(dim=1), weights.unbind(dim=1), strict=True)
        sums = [_sum_of_best(shot, weight, locations) for shot, weight in each]
        means = torch.stack(sums, dim=1) / torch.where(totals > 0, totals, 1)
        return means.sum(dim=1) / (totals > 0).sum(dim=1).clamp(min=1)


def _sum_of_best(points: Tensor, weights: Tensor, locations: Tensor) -> Tensor:
    """Sum the largest cosines of points ``(B, N, C)`` with ``(B, C, hw)``, times their weights ``(B, N)``: ``(B,)``."""
    if is_eager_cpu(weights):  # most points have no weight and change nothing
        some = (weights != 0).any(dim=0)
        points, weights = points[:, some], weights[:, some]
    best = (unit(points.to(weights.dtype), dim=2) @ locations).amax(dim=2)
    return (best * weights).sum(dim=1)
