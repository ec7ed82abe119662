"""Builds parts of SCNet from its config, and computes the loss of a branch."""

import torch
from torch import Tensor, nn

from fewshotseg.losses import SelfContrastiveLoss, segmentation_loss
from fewshotseg.models.comparison import Comparison
from fewshotseg.models.config import SCNetConfig
from fewshotseg.ops import CosineKMeans, GridPartition


def reducer(mid_channels: int, config: SCNetConfig) -> nn.Sequential:
    """Build the layer that reduces the channels of mid-level maps: ``(B, C', h, w)`` -> ``(B, C, h, w)``."""
    return nn.Sequential(
        nn.Conv2d(mid_channels, config.hidden_channels, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Dropout2d(config.reducer_dropout),
    )


def self_contrast_of(config: SCNetConfig) -> SelfContrastiveLoss | None:
    """Build the loss of the class-agnostic branch; None for PFENet, which has no such branch."""
    if config.num_prototypes == 0 or config.self_contrast_weight == 0:
        return None
    if config.grid_bins is not None:
        return SelfContrastiveLoss(partition=GridPartition(config.grid_bins))
    return SelfContrastiveLoss(partition=CosineKMeans(config.num_prototypes, num_iters=config.kmeans_iters))


def supervised(answer: Comparison, target: Tensor, aux_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a branch with deep supervision, and its two parts by name."""
    main = segmentation_loss(answer.logits, target)
    aux = torch.stack([segmentation_loss(logits, target) for logits in answer.aux]).mean()
    return main + aux_weight * aux, {"main": main, "aux": aux}
