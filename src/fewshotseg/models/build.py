"""Builds models and backbones by name."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor, nn

from fewshotseg.models.backbones import AnyBackbone, StagedBackbone, WholeTimmBackbone, is_timm_name, make_backbone
from fewshotseg.models.config import SCNetConfig, check_settings
from fewshotseg.models.prototype_config import PrototypeConfig
from fewshotseg.models.scnet import SCNet
from fewshotseg.models.segmenter import PrototypeSegmenter
from fewshotseg.models.settings import PrototypeSettings, SCNetSettings
from fewshotseg.models.weights import load_backbone_weights, load_weights, timm_with_weights


def build_scnet(
    backbone: str | AnyBackbone = "resnet50",
    *,
    backbone_weights: str | Path | Mapping[str, Tensor] | bool | None = None,
    weights: str | Path | None = None,
    **settings: Unpack[SCNetSettings],
) -> SCNet:
    """Build SCNet; nothing is downloaded unless ``backbone_weights`` asks for it.

    Args:
        backbone: ``"resnet50"``, ``"resnet101"``, ``"vgg16_bn"``, ``"mobilenet_v2"`` (torchvision's networks),
            ``"efficientnet_lite0"``, ``"efficientnet_lite2"`` (timm's, extra ``lite``), ``"resnet50s"``,
            ``"resnet101s"`` (PFENet's, with a deep stem), ``"tiny"`` (a small network for tests, without weights),
            ``"timm/<name>"`` for a model of timm (extra ``timm``; see `list_backbones`), or a module that follows
            `Backbone` or `WholeBackbone`.
        backbone_weights: Weights of the backbone alone: the name of torchvision weights such as ``"IMAGENET1K_V1"``
            (downloaded by torchvision), True or ``"timm"`` for a model of timm (downloaded by timm), ``"package"`` for
            both EfficientNets (the file that the extra ``lite`` installs), the path of a file, or a state dict.
            Classifier entries are ignored.
        weights: The path of a checkpoint of the whole model, SCNet's or PFENet's; see `load_weights`.
        **settings: Fields of `SCNetConfig`.

    Returns:
        The model in training mode, like any new ``nn.Module``; call ``eval()`` before segmenting. Warns if a backbone
        that was given by name has random weights: it is frozen, so little can be learned from it.

    Raises:
        ValueError: If a name, setting or file does not fit.
        TypeError: If a setting does not exist.
        ImportError: If the backbone or its weights need a package that is not installed.
        OSError: If a file does not exist, or weights cannot be downloaded.

    Example:
        >>> import torch
        >>> model = build_scnet("mobilenet_v2", hidden_channels=32, bins=(1.0, 0.5)).eval()
        >>> images, masks = torch.rand(1, 2, 3, 65, 65), torch.randint(0, 2, (1, 2, 65, 65))
        >>> model(images, masks, torch.rand(1, 3, 97, 65)).logits.shape
        torch.Size([1, 2, 97, 65])
    """
    check_settings(settings)
    name = backbone if isinstance(backbone, str) else None
    config = SCNetConfig(backbone=name, **settings)
    network = _with_weights(backbone, backbone_weights)
    if name is not None and backbone_weights is None and weights is None:
        _warn_of_random_weights()
    model = SCNet(network, config)
    if weights is not None:
        load_weights(model, weights)
    return model


def build_prototype_segmenter(
    backbone: str | AnyBackbone,
    *,
    backbone_weights: str | Path | Mapping[str, Tensor] | bool | None = None,
    **settings: Unpack[PrototypeSettings],
) -> PrototypeSegmenter:
    """Build the training-free model; nothing is downloaded unless ``backbone_weights`` asks for it.

    Args:
        backbone: As in `build_scnet`: a name, such as ``"efficientnet_lite0"`` or ``"timm/<name>"``, or a module.
        backbone_weights: As in `build_scnet`. By default a backbone that is given by name has random weights.
        **settings: Fields of `PrototypeConfig`.

    Returns:
        The model in training mode, like any new ``nn.Module``; it behaves the same in both modes.

    Raises:
        ValueError: If a name, setting or file does not fit.
        TypeError: If a setting does not exist.
        ImportError: If the backbone or its weights need a package that is not installed.
        OSError: If a file does not exist, or weights cannot be downloaded.

    Example:
        >>> import torch
        >>> model = build_prototype_segmenter("mobilenet_v2", score="cosine")
        >>> images, masks = torch.rand(1, 2, 3, 65, 65), torch.randint(0, 2, (1, 2, 65, 65))
        >>> model(images, masks, torch.rand(1, 3, 97, 65)).shape
        torch.Size([1, 2, 97, 65])
    """
    check_settings(settings, PrototypeConfig)
    name = backbone if isinstance(backbone, str) else None
    config = PrototypeConfig(backbone=name, **settings)
    network = _with_weights(backbone, backbone_weights)
    if name is not None and backbone_weights is None:
        _warn_of_random_weights()
    return PrototypeSegmenter(network, config)


def _warn_of_random_weights() -> None:
    warnings.warn(
        "the frozen backbone has random weights: pass backbone_weights (the name of torchvision's, True for "
        "timm's, a path or a state dict) to learn or segment anything useful",
        stacklevel=3,
    )


def _with_weights(backbone: str | AnyBackbone, weights: str | Path | Mapping[str, Tensor] | bool | None) -> Any:
    name = backbone if isinstance(backbone, str) else None
    if name is not None and is_timm_name(name) and weights is not None:
        return timm_with_weights(name, weights)
    network = backbone if name is None else make_backbone(name)
    if not isinstance(network, nn.Module):
        raise TypeError(f"backbone must be a name or an nn.Module, got {type(network).__name__}")
    if weights is not None:
        load_backbone_weights(network, weights, name=name)
    return network


def build_backbone(
    name: str, *, backbone_weights: str | Path | Mapping[str, Tensor] | bool | None = None
) -> StagedBackbone | WholeTimmBackbone:
    """Build a backbone for your own model; nothing is downloaded unless ``backbone_weights`` asks for it.

    ResNets are dilated to stride 8, as in PFENet.

    Args:
        name: As in `build_scnet`; `list_backbones` lists the names.
        backbone_weights: As in `build_scnet`; random by default.

    Returns:
        A module that follows `Backbone` or `WholeBackbone`, not frozen and in training mode, like any new
        ``nn.Module``. `feature_maps` gives the maps of all its blocks.

    Raises:
        ValueError: If a name or file does not fit.
        TypeError: If ``name`` is not a string.
        ImportError: If the backbone or its weights need a package that is not installed.
        OSError: If a file does not exist, or weights cannot be downloaded.

    Example:
        >>> import torch
        >>> backbone = build_backbone("resnet50").eval().requires_grad_(False)
        >>> deepest, finer = backbone.mid(torch.zeros(1, 3, 65, 65))  # layer3 and layer2
        >>> deepest.shape, finer.shape, backbone.high(deepest).shape
        (torch.Size([1, 1024, 9, 9]), torch.Size([1, 512, 9, 9]), torch.Size([1, 2048, 9, 9]))
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be the name of a backbone, got {type(name).__name__}")
    network: StagedBackbone | WholeTimmBackbone = _with_weights(name, backbone_weights)
    return network
