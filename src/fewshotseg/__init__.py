"""Few-shot segmentation in PyTorch: reusable components, and SCNet built from them."""

from importlib.metadata import version

from fewshotseg.losses import (
    SelfContrastiveLoss,
    SelfContrastivePairs,
    segmentation_loss,
    self_contrastive_pairs,
)
from fewshotseg.ops import (
    CosineKMeans,
    GridPartition,
    KMeansResult,
    assign_prototypes,
    background_regions,
    cosine_kmeans,
    expand_prototypes,
    masked_average_pool,
    prior_mask,
    sample_centroids,
)

__version__ = version("fewshotseg")

__all__ = [
    "CosineKMeans",
    "GridPartition",
    "KMeansResult",
    "SelfContrastiveLoss",
    "SelfContrastivePairs",
    "assign_prototypes",
    "background_regions",
    "cosine_kmeans",
    "expand_prototypes",
    "masked_average_pool",
    "prior_mask",
    "sample_centroids",
    "segmentation_loss",
    "self_contrastive_pairs",
]
