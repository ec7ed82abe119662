"""Frozen backbones: the protocol, networks by name, and anything else that makes feature maps."""

from typing import Any

from torchvision import models as tv

from fewshotseg._checks import shown
from fewshotseg.models.backbones.lite import efficientnet_lite0
from fewshotseg.models.backbones.protocol import Backbone, image_statistics
from fewshotseg.models.backbones.staged import StagedBackbone
from fewshotseg.models.backbones.timm import TimmBackbone
from fewshotseg.models.backbones.tiny import tiny
from fewshotseg.models.backbones.torchvision import mobilenet_v2, resnet, vgg16_bn

__all__ = ["BACKBONES", "Backbone", "StagedBackbone", "TimmBackbone", "image_statistics", "make_backbone"]

BACKBONES = (
    "resnet50",
    "resnet101",
    "vgg16_bn",
    "mobilenet_v2",
    "efficientnet_lite0",
    "resnet50s",
    "resnet101s",
    "tiny",
)
"""Names that `build_scnet` knows; ``"resnet50s"`` and ``"resnet101s"`` are PFENet's, with a deep stem."""


def make_backbone(name: str) -> StagedBackbone:
    """A backbone by its name, with random weights.

    Args:
        name: One of `BACKBONES`.

    Raises:
        ValueError: If there is no backbone of that name.
        ImportError: If it needs timm, which is not installed.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)} or a module, got {shown(name)}")
    if name == "efficientnet_lite0":
        return efficientnet_lite0()
    if name == "tiny":
        return tiny()
    net: Any = getattr(tv, name.removesuffix("s"))(weights=None)
    if name == "vgg16_bn":
        return vgg16_bn(net)
    if name == "mobilenet_v2":
        return mobilenet_v2(net)
    return resnet(net, deep_stem=name.endswith("s"))
