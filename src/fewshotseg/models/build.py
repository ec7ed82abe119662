"""SCNet from names and numbers: every setting in one place."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from fewshotseg._checks import check_at_least, check_choice
from fewshotseg.losses import Partition
from fewshotseg.models.backbones import Backbone, make_backbone
from fewshotseg.models.checkpoints import load_backbone_weights, load_weights
from fewshotseg.models.comparison import ComparisonHead
from fewshotseg.models.scnet import SCNet
from fewshotseg.ops import CosineKMeans, GridPartition


@dataclass(frozen=True, kw_only=True)
class SCNetConfig:
    """Every number and choice of SCNet; the defaults are the paper's, and PFENet's where the paper is silent.

    Attributes:
        hidden_channels: C, of prototypes and of every layer of the head.
        bins: Scales of the head, fine to coarse: cells a side, or shares of the feature map's sides up to 1.
            PFENet takes (60, 30, 15, 8) on PASCAL-5i and (1.0, 0.5, 0.25, 0.125) on COCO-20i.
        num_prototypes: n, background regions of a query; 0 is PFENet.
        kmeans_iters: Rounds of k-means.
        grid_bins: Regions from a grid of that many rows and columns in place of k-means (Table 6); its square then
            stands for n.
        self_contrast_weight: Lambda of Eq. 9, from 0 to 1; 0 is PFENet.
        aux_weight: Weight of the deep supervision within each branch.
        norm_stats: ``"frozen"`` leaves the backbone's norm statistics alone; ``"batch"`` uses and updates batch
            statistics in training, as PFENet does.
        background_source: ``"support"`` takes the one background prototype from the support (Table 4; n = 1 only).
        background_reducer: Which reducer's features background prototypes are pooled from; the paper is silent.
        background_prior: What the class-agnostic branch gets as prior: zeros, the supports' (``"shared"``), or 1
            minus it (``"complement"``); the paper is silent.

    Raises:
        ValueError: If a number is out of range, a choice is unknown, or choices exclude each other.
        TypeError: If a count is not an integer, or ``bins`` no sequence.
    """

    hidden_channels: int = 256
    bins: tuple[float, ...] = (60, 30, 15, 8)
    num_prototypes: int = 3
    kmeans_iters: int = 10
    grid_bins: int | None = None
    self_contrast_weight: float = 0.5
    aux_weight: float = 1.0
    norm_stats: Literal["frozen", "batch"] = "frozen"
    background_source: Literal["query", "support"] = "query"
    background_reducer: Literal["query", "support"] = "query"
    background_prior: Literal["zeros", "shared", "complement"] = "zeros"

    def __post_init__(self) -> None:
        if not isinstance(self.bins, Sequence):
            raise TypeError(f"bins must be a sequence of numbers, got {type(self.bins).__name__}")
        object.__setattr__(self, "bins", tuple(self.bins))  # a list, after a trip through JSON
        check_at_least("hidden_channels", self.hidden_channels, 1)
        check_at_least("num_prototypes", self.num_prototypes, 0)
        check_at_least("kmeans_iters", self.kmeans_iters, 0)
        if self.grid_bins is not None:
            check_at_least("grid_bins", self.grid_bins, 1)
        if not self.bins or min(self.bins) <= 0:
            raise ValueError(f"bins must be one or more positive numbers, got {self.bins}")
        if not 0 <= self.self_contrast_weight <= 1:
            raise ValueError(f"self_contrast_weight must be from 0 to 1, got {self.self_contrast_weight}")
        if self.aux_weight < 0:
            raise ValueError(f"aux_weight must not be negative, got {self.aux_weight}")
        check_choice("norm_stats", self.norm_stats, ("frozen", "batch"))
        check_choice("background_source", self.background_source, ("query", "support"))
        check_choice("background_reducer", self.background_reducer, ("query", "support"))
        check_choice("background_prior", self.background_prior, ("zeros", "shared", "complement"))
        if self.background_source == "support" and (self.num_prototypes > 1 or self.grid_bins is not None):
            raise ValueError(
                "background_source='support' must go with num_prototypes=1 and no grid_bins, "
                f"got num_prototypes={self.num_prototypes} and grid_bins={self.grid_bins}"
            )


def build_scnet(
    backbone: str | Backbone = "resnet50",
    *,
    backbone_weights: str | Path | Mapping[str, Tensor] | None = None,
    weights: str | Path | None = None,
    **settings: Any,
) -> SCNet:
    """Build SCNet, without any download unless ``backbone_weights`` names torchvision's.

    Args:
        backbone: ``"resnet50"``, ``"resnet101"``, ``"vgg16_bn"``, ``"mobilenet_v2"`` (torchvision's networks),
            ``"efficientnet_lite0"`` (timm's, extra ``lite``), ``"resnet50s"``, ``"resnet101s"`` (PFENet's, with a deep
            stem), or a module that follows `Backbone`.
        backbone_weights: For the backbone alone: the name of torchvision weights such as ``"IMAGENET1K_V1"``
            (downloaded by torchvision), ``"package"`` for ``"efficientnet_lite0"`` (the file that the extra ``lite``
            installed), the path of a file, or a state dict. Classifier entries are left out.
        weights: The path of a checkpoint of the whole model, ours or PFENet's; see `load_weights`.
        **settings: Fields of `SCNetConfig`.

    Returns:
        The model in training mode, as any ``nn.Module``; call ``eval()`` to segment. Warns when the frozen backbone of
        a name was left with random weights, from which little can be learned.

    Raises:
        ValueError: If a name, setting or file does not fit.
        TypeError: If a setting does not exist.
        ImportError: If the backbone or its weights need a package that is not installed.

    Example:
        >>> import torch
        >>> model = build_scnet("mobilenet_v2", hidden_channels=32, bins=(1.0, 0.5)).eval()
        >>> images, masks = torch.rand(1, 2, 3, 65, 65), torch.randint(0, 2, (1, 2, 65, 65))
        >>> model(images, masks, torch.rand(1, 3, 97, 65)).logits.shape
        torch.Size([1, 2, 97, 65])
    """
    config = SCNetConfig(**settings)
    named = isinstance(backbone, str)
    network = make_backbone(backbone) if isinstance(backbone, str) else backbone
    if not isinstance(network, nn.Module):
        raise TypeError(f"backbone must be a name or an nn.Module, got {type(network).__name__}")
    if backbone_weights is not None:
        load_backbone_weights(network, backbone_weights, name=backbone if isinstance(backbone, str) else None)
    elif named and weights is None:
        warnings.warn(
            "the frozen backbone has random weights: pass backbone_weights (a torchvision weights name, a path or a "
            "state dict) to learn or segment anything useful",
            stacklevel=2,
        )

    model = SCNet(
        network,
        reduce_query=_reducer(network.mid_channels, config.hidden_channels),
        reduce_support=_reducer(network.mid_channels, config.hidden_channels),
        head=ComparisonHead(config.hidden_channels, config.bins),
        partition=_partition(config),
        self_contrast_weight=config.self_contrast_weight,
        aux_weight=config.aux_weight,
        norm_stats=config.norm_stats,
        background_source=config.background_source,
        background_reducer=config.background_reducer,
        background_prior=config.background_prior,
    )
    if weights is not None:
        load_weights(model, weights)
    return model


def _reducer(mid_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(mid_channels, channels, 1, bias=False), nn.ReLU(inplace=True), nn.Dropout2d(0.5))


def _partition(config: SCNetConfig) -> Partition | None:
    if config.num_prototypes == 0:
        return None
    if config.grid_bins is not None:
        return GridPartition(config.grid_bins)
    return CosineKMeans(config.num_prototypes, num_iters=config.kmeans_iters)
