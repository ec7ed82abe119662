"""Losses for few-shot segmentation, usable with any model."""

from fewshotseg.losses.alignment import alignment_loss
from fewshotseg.losses.pairs import SelfContrastivePairs, background_target, self_contrastive_pairs
from fewshotseg.losses.segmentation import segmentation_loss
from fewshotseg.losses.self_contrastive import SelfContrastiveLoss
from fewshotseg.ops import Partition

__all__ = [
    "Partition",
    "SelfContrastiveLoss",
    "SelfContrastivePairs",
    "alignment_loss",
    "background_target",
    "segmentation_loss",
    "self_contrastive_pairs",
]
