"""Backbones: the protocols that they follow, and networks by name."""

from fnmatch import fnmatchcase
from typing import Any

from torchvision import models as tv

from fewshotseg._checks import shown
from fewshotseg.models.backbones.checks import can_be_cut, check_backbone
from fewshotseg.models.backbones.feature_maps import feature_maps
from fewshotseg.models.backbones.lite import PACKAGES, efficientnet_lite
from fewshotseg.models.backbones.protocol import AnyBackbone, Backbone, WholeBackbone, image_statistics
from fewshotseg.models.backbones.staged import StagedBackbone
from fewshotseg.models.backbones.timm import TimmBackbone
from fewshotseg.models.backbones.timm_names import is_timm_name, timm_backbone, timm_names
from fewshotseg.models.backbones.timm_whole import WholeTimmBackbone
from fewshotseg.models.backbones.tiny import tiny
from fewshotseg.models.backbones.torchvision import mobilenet_v2, resnet, vgg16_bn

__all__ = [
    "BACKBONES",
    "AnyBackbone",
    "Backbone",
    "StagedBackbone",
    "TimmBackbone",
    "WholeBackbone",
    "WholeTimmBackbone",
    "can_be_cut",
    "check_backbone",
    "feature_maps",
    "image_statistics",
    "is_timm_name",
    "list_backbones",
    "make_backbone",
    "timm_backbone",
]

BACKBONES = (
    "resnet50",
    "resnet101",
    "vgg16_bn",
    "mobilenet_v2",
    *PACKAGES,
    "resnet50s",
    "resnet101s",
    "tiny",
)
"""Names that `build_scnet` knows beside timm's; ``"resnet50s"`` and ``"resnet101s"`` are PFENet's, with a deep stem."""


def list_backbones(pattern: str = "") -> list[str]:
    """List the names of backbones: the package's own, and ``"timm/..."`` for every model of timm if it is installed.

    Some models of timm cannot be backbones, most of them because they take images of one size only; building one
    raises. A name may end in a tag of timm's weights, such as ``"timm/resnet50.a1_in1k"``.

    Args:
        pattern: List only names that match it: ``*`` stands for anything, ``?`` for one character.

    Example:
        >>> list_backbones("resnet*")
        ['resnet50', 'resnet101', 'resnet50s', 'resnet101s']
        >>> "timm/vit_small_patch14_dinov2" in list_backbones("*dinov2*")
        True
    """
    names = [*BACKBONES, *timm_names()]
    return [name for name in names if not pattern or fnmatchcase(name, pattern)]


def make_backbone(name: str) -> StagedBackbone | WholeTimmBackbone:
    """Make a backbone by name, with random weights.

    Args:
        name: One of `BACKBONES`, or ``"timm/..."``, see `timm_backbone`.

    Raises:
        ValueError: If there is no backbone of that name, or the model of timm cannot be one.
        ImportError: If it needs timm, which is not installed.
    """
    if is_timm_name(name):
        return timm_backbone(name)
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, timm/NAME or a module, got {shown(name)}")
    if name in PACKAGES:
        return efficientnet_lite(name)
    if name == "tiny":
        return tiny()
    net: Any = getattr(tv, name.removesuffix("s"))(weights=None)
    if name == "vgg16_bn":
        return vgg16_bn(net)
    if name == "mobilenet_v2":
        return mobilenet_v2(net)
    return resnet(net, deep_stem=name.endswith("s"))
