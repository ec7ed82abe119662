"""What `fewshotseg.FewShotPredictor` and `fewshotseg.evaluate` ask of a model, and how they run it."""

import copy
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewshotseg._checks import check_share
from fewshotseg.models.fast.backbone import FastBackbone
from fewshotseg.models.frozen_model import FrozenBackboneModel


class SegmentationModel(Protocol):
    """An ``nn.Module`` that segments in stages; `SCNet` and `PrototypeSegmenter` are two.

    Encodings are named tuples or tuples; their tensors have the batch as first axis, whatever else they hold is the
    same for all images of a size. A model may also have ``encode_both(images, masks)``, which gives supports of one
    shot and queries of the same ``(B, 3, H, W)`` images for less than the two apart; a ``config`` with ``image_size``,
    ``mean``, ``std`` and ``threshold``.
    """

    def encode_support(self, images: Tensor, masks: Tensor) -> Any:
        """``(B, S, 3, H, W)`` images and ``(B, S, H, W)`` label masks to whatever the model needs of them."""
        ...

    def merge_shots(self, shots: Sequence[Any]) -> Any:
        """Encodings of one shot each to an encoding of all."""
        ...

    def encode_query(self, images: Tensor) -> Any:
        """``(B, 3, H, W)`` images to whatever the model needs of them."""
        ...

    def segment(self, support: Any, query: Any) -> Tensor:
        """Both to ``(B, 2, H, W)`` logits, channel 1 foreground."""
        ...


def check_model(model: Any) -> None:
    """Raise `TypeError` unless ``model`` has what `SegmentationModel` asks for."""
    for name in ("encode_support", "merge_shots", "encode_query", "segment"):
        if not isinstance(model, nn.Module) or not hasattr(model, name):
            raise TypeError(
                f"model must be an nn.Module with {name}, such as build_scnet gives, got {type(model).__name__}"
            )


def in_fast_form(model: Any, fast: FastBackbone | None = None) -> Any:
    """A view of a model on a frozen backbone that runs it in its faster form; other models as they are.

    It shares all modules and parameters with the model, which does not change.

    Args:
        model: Any model.
        fast: The faster form of its backbone, from an earlier call; made anew by default.
    """
    if not isinstance(model, FrozenBackboneModel) or model.fast is not None:
        return model
    view = copy.copy(model)
    view.fast = fast or FastBackbone(model.backbone)
    return view


def threshold_of(model: Any, threshold: float | None) -> float:
    """The threshold that was asked for, or else the model's own, or else one half.

    Raises:
        ValueError: If it is not between 0 and 1.
        TypeError: If it is no number.
    """
    if threshold is None:
        return float(getattr(getattr(model, "config", None), "threshold", 0.5))
    check_share("threshold", threshold, open_ends=True)
    return threshold


def at_threshold(logits: Tensor, threshold: float) -> Tensor:
    """``(B, 2, H, W)`` logits of which channel 1 is the larger where its probability was above the threshold."""
    if threshold == 0.5:
        return logits
    background, foreground = logits.unbind(1)
    return torch.stack([background, foreground - math.log(threshold / (1 - threshold))], dim=1)
