"""Builds parts of SCNet from its config, and computes the losses of its branches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewshotseg.losses import SelfContrastiveLoss
from fewshotseg.models.comparison import Comparison
from fewshotseg.models.config import SCNetConfig
from fewshotseg.ops import CosineKMeans, GridPartition
from fewshotseg.ops._cross_entropy import cross_entropies
from fewshotseg.ops._values import check_label_masks


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


def branch_losses(answer: Comparison, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the main loss and the mean auxiliary loss (0 without auxiliary logits) of each branch: ``(branches,)``.

    Args:
        answer: The logits of all branches: those of the first branch's images first.
        targets: Label masks ``(B, H, W)`` for each branch.
    """
    masks = torch.stack([check_label_masks("query_masks", target, void=255) for target in targets])
    losses = cross_entropies([answer.logits, *answer.aux], masks, 255)  # logits, branches
    return losses[0], losses[1:].sum(dim=0) / max(len(answer.aux), 1)
