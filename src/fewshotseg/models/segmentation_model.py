"""The interface of models for `fewshotseg.FewShotPredictor` and `fewshotseg.evaluate`, and how these run a model."""

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
    """Interface of an ``nn.Module`` that segments in stages, such as `SCNet` and `PrototypeSegmenter`.

    Encodings are named tuples or tuples. Their tensors have the batch as first axis; other values must be the same for
    all images of one size. Optionally, a model also has

    - ``encode_both(images, masks)``, which encodes the same ``(B, 3, H, W)`` images both as one-shot supports and as
      queries, faster than two calls;
    - ``presence_evidence(support, query)``, numbers ``(B,)`` from which the presence scores of images are computed,
      or None; by default it is computed from the logits;
    - ``config`` with ``image_size``, ``mean``, ``std`` and ``threshold``.
    """

    def encode_support(self, images: Tensor, masks: Tensor) -> Any:
        """Encode images ``(B, S, 3, H, W)`` with label masks ``(B, S, H, W)`` as supports."""
        ...

    def merge_shots(self, shots: Sequence[Any]) -> Any:
        """Merge encodings of one shot each into one encoding of all shots."""
        ...

    def encode_query(self, images: Tensor) -> Any:
        """Encode images ``(B, 3, H, W)`` as queries."""
        ...

    def segment(self, support: Any, query: Any) -> Tensor:
        """Compute logits ``(B, 2, H, W)`` from both encodings; channel 1 is foreground."""
        ...


def check_model(model: Any) -> None:
    """Raise `TypeError` unless ``model`` is a module with the methods of `SegmentationModel`."""
    for name in ("encode_support", "merge_shots", "encode_query", "segment"):
        if not isinstance(model, nn.Module) or not hasattr(model, name):
            raise TypeError(
                f"model must be an nn.Module with {name}, such as build_scnet returns, got {type(model).__name__}"
            )


def in_fast_form(model: Any, fast: FastBackbone | None = None) -> Any:
    """Return a copy of a model with frozen backbone that runs the backbone's faster form; return other models as given.

    The copy shares all modules and parameters with the model, which does not change.

    Args:
        model: Any model.
        fast: The faster form of its backbone from an earlier call; created by default.
    """
    if not isinstance(model, FrozenBackboneModel) or model.fast is not None:
        return model
    view = copy.copy(model)
    view.fast = fast or FastBackbone(model.backbone)
    return view


def evidence_of(model: Any, supports: Sequence[Any], query: Any) -> Tensor | None:
    """Compute what the presence scores are computed from, if the model has something better than its logits.

    Args:
        model: The model.
        supports: The encoding of each of K classes, with the batch of the query.
        query: The encoded images.

    Returns:
        ``(B, K)``, or None.
    """
    compute = getattr(model, "presence_evidence", None)
    evidence = [] if compute is None else [compute(support, query) for support in supports]
    return torch.stack(evidence, dim=1).float() if evidence and evidence[0] is not None else None


def threshold_of(model: Any, threshold: float | None) -> float:
    """Return ``threshold`` if given, else the threshold of the model's config, else 0.5.

    Raises:
        ValueError: If ``threshold`` is not between 0 and 1.
        TypeError: If ``threshold`` is not a number.
    """
    if threshold is None:
        return float(getattr(getattr(model, "config", None), "threshold", 0.5))
    return check_share("threshold", threshold, open_ends=True)


def peak_of(model: Any, threshold: float) -> float:
    """Return the peak threshold of the model's config if ``threshold`` is that of the config too, else 0."""
    return _beside(model, "peak_threshold", threshold)


def min_presence_of(model: Any, threshold: float) -> float:
    """Return the smallest presence of the model's config if ``threshold`` is that of the config too, else 0."""
    return _beside(model, "min_presence", threshold)


def _beside(model: Any, setting: str, threshold: float) -> float:
    own = threshold == threshold_of(model, None)
    return float(getattr(getattr(model, "config", None), setting, 0.0)) if own else 0.0


def at_threshold(logits: Tensor, threshold: float) -> Tensor:
    """Shift logits ``(B, 2, H, W)`` so that channel 1 is larger where its probability is above the threshold."""
    if threshold == 0.5:
        return logits
    background, foreground = logits.unbind(1)
    return torch.stack([background, foreground - math.log(threshold / (1 - threshold))], dim=1)
