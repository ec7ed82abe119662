"""Functions on tensors, and the two partitions as modules; none has parameters.

Shapes in all docstrings: ``B`` episodes, ``S`` shots, ``K`` regions or prototypes, ``C`` channels, ``H W`` height and
width of a map, ``N = H * W`` points. Label masks hold 1 foreground, 0 background, 255 void.
"""

from fewshotseg.ops.correlation import correlation
from fewshotseg.ops.kmeans import KMeansResult, cosine_kmeans, sample_centroids
from fewshotseg.ops.partition import CosineKMeans, GridPartition, Partition
from fewshotseg.ops.pooling import masked_average_pool
from fewshotseg.ops.prior import prior_mask
from fewshotseg.ops.prototypes import assign_prototypes, background_regions, expand_prototypes
from fewshotseg.ops.resizing import foreground_weights, resize_bilinear, sample_nearest
from fewshotseg.ops.scores import cosine_logits, density_logits
from fewshotseg.ops.self_support import local_prototypes, self_support_masks
from fewshotseg.ops.shots import gram_distance, vote_shots
from fewshotseg.ops.square import fitted_size, restore_size

__all__ = [
    "CosineKMeans",
    "GridPartition",
    "KMeansResult",
    "Partition",
    "assign_prototypes",
    "background_regions",
    "correlation",
    "cosine_kmeans",
    "cosine_logits",
    "density_logits",
    "expand_prototypes",
    "fitted_size",
    "foreground_weights",
    "gram_distance",
    "local_prototypes",
    "masked_average_pool",
    "prior_mask",
    "resize_bilinear",
    "restore_size",
    "sample_centroids",
    "sample_nearest",
    "self_support_masks",
    "vote_shots",
]
