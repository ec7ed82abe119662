"""Checks that a module follows a backbone protocol, and that its maps have the declared shapes."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshotseg._checks import check_at_least


def can_be_cut(backbone: object) -> bool:
    """Whether a backbone follows `Backbone`, and not only `WholeBackbone`."""
    return hasattr(backbone, "mid") and hasattr(backbone, "high")


def check_backbone(backbone: Any) -> None:
    """Raise unless a backbone follows `Backbone` or `WholeBackbone`."""
    module, kind = backbone, type(backbone).__name__
    if not isinstance(module, nn.Module):
        raise TypeError(f"backbone must be an nn.Module, got {kind}")
    if not can_be_cut(backbone) and not hasattr(backbone, "mid_and_high"):
        lacks = [name for name in ("mid", "high") if not hasattr(backbone, name)]
        raise TypeError(f"backbone must have mid and high, or mid_and_high, but {kind} lacks {' and '.join(lacks)}")
    if not hasattr(backbone, "mid_channels"):
        raise TypeError(f"backbone must have mid_channels, the channels of its mid-level maps, but {kind} lacks it")
    check_at_least("backbone.mid_channels", backbone.mid_channels, 1)


def check_mid(backbone: Any, maps: Any, images: Tensor) -> None:
    """Raise unless types and shapes are those of mid-level maps of ``images``."""
    name = "backbone.mid" if can_be_cut(backbone) else "the mid-level maps of backbone.mid_and_high"
    if not isinstance(maps, tuple | list) or not maps:
        raise TypeError(f"{name} must be a tuple of one or more maps, got {_shown(maps)}")
    for number, features in enumerate(maps):
        check_map(f"map {number} of {name}", features, images)
    found = [features.shape[1] for features in maps]
    if sum(found) != backbone.mid_channels:
        last = sum(features.shape[3] for features in maps) == backbone.mid_channels
        hint = "; they seem to be last: permute(0, 3, 1, 2) brings them second" if last else ""
        raise ValueError(
            f"{name} must have backbone.mid_channels={backbone.mid_channels} channels, "
            f"got {' + '.join(map(str, found))}{hint}"
        )


def check_map(name: str, features: Any, images: Tensor) -> None:
    """Raise unless ``features`` is a floating-point map ``(B, C, h, w)`` with the batch size of ``images``."""
    if not isinstance(features, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(features).__name__}")
    if features.ndim != 4 or features.shape[0] != images.shape[0]:
        hint = "; tokens have to be laid out as a grid" if features.ndim == 3 else ""
        raise ValueError(
            f"{name} must have shape (B, C, h, w) with B={images.shape[0]}, got {tuple(features.shape)}{hint}"
        )
    if not features.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {features.dtype}")


def check_whole(answer: Any) -> None:
    """Raise unless ``answer`` is a pair, as ``mid_and_high`` must return."""
    if not isinstance(answer, tuple | list) or len(answer) != 2 or isinstance(answer[0], torch.Tensor):
        raise TypeError(
            f"backbone.mid_and_high must give a tuple of mid-level maps and a high-level map, got {_shown(answer)}"
        )


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(part).__name__ for part in value[:5]) or 'nothing'}"
    return type(value).__name__
