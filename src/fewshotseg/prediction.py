"""The output of a predictor, and its computation from a model's logits."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg._regions import without_weak_regions
from fewshotseg.models.presence import presence_from, presence_of
from fewshotseg.models.segmentation_model import min_presence_of
from fewshotseg.ops import fitted_size, restore_size


class Prediction(NamedTuple):
    """The prediction of `FewShotPredictor` for an image, on the CPU and at the image's own size.

    Attributes:
        mask: ``(H, W)`` int64: 0 background, 1 the class; with several classes 1, 2, ... in their order.
        probability: ``(H, W)`` float32, the probability of the class; with several classes ``(K, H, W)``, that of each
            against its own background.
        presence: Scalar float32 from 0 to 1, how sure the model is that the image shows the object at all; with several
            classes ``(K,)``. It is a calibrated probability only if ``model.config.presence`` was fitted to photographs
            like yours with and without the object; those of the package's SCNets were fitted. Otherwise use it to rank
            images.
    """

    mask: Tensor
    probability: Tensor
    presence: Tensor


def prediction_of(
    model: Any,
    logits: Tensor,
    original: tuple[int, int],
    size: int,
    threshold: float,
    *,
    several: bool,
    evidence: Tensor | None = None,
) -> Prediction:
    """Compute the prediction for one image from its logits.

    Args:
        model: The model, for its settings.
        logits: ``(K, 2, S, S)``, of each class against its background; S is ``size``.
        original: Height and width of the image.
        size: Side in pixels of the square that the image was fitted into.
        threshold: Probability above which a pixel belongs to a class.
        several: Whether probability and presence have an axis of classes.
        evidence: ``(K,)``, what to compute the presence from; None computes it from the logits.
    """
    height, width = inner = fitted_size(original, size)
    log_odds = (logits[:, 1:] - logits[:, :1])[..., :height, :width]  # K 1 h w
    presence = presence_of(model, log_odds[:, 0]) if evidence is None else presence_from(model, evidence)
    presence = presence.cpu()
    probability = restore_size(log_odds, original, inner=inner)[:, 0].sigmoid_().cpu()  # K H W
    found = without_weak_regions(model, probability, threshold)
    absent = presence < min_presence_of(model, threshold)
    best, label = torch.where(absent[:, None, None], 0, found).max(dim=0)
    mask = torch.where(best > threshold, label + 1, 0)
    return Prediction(mask, probability, presence) if several else Prediction(mask, probability[0], presence[0])
