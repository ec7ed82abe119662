"""The presence score: how sure a model is that an image shows the object at all."""

from typing import Any

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_tensor

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
    scale, bias = getattr(getattr(model, "config", None), "presence", (1.0, 0.0))
    flat = log_odds.float().flatten(1)
    surest = flat.topk(max(1, round(SHARE * flat.shape[1])), dim=1).values.mean(dim=1)
    return torch.sigmoid(scale * surest + bias)
