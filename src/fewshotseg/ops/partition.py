"""Partitions: modules that split a feature map into regions, each of which gives one background prototype."""

from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_floating, check_labels, check_sizes, check_tensor
from fewshotseg.ops._values import look_at_indices
from fewshotseg.ops.kmeans import MAX_CLUSTERS, MAX_ITERS, cosine_kmeans, sample_centroids


class Partition(Protocol):
    """A callable that splits feature maps into ``num_regions`` regions (1 to 65536), such as `CosineKMeans`.

    Any callable of this signature with this attribute will do, such as your own module.
    """

    num_regions: int

    def __call__(
        self,
        cluster_features: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Label every location of ``(B, C, H, W)`` features: ``(B, H, W)`` int64 from 0 to ``num_regions - 1``."""
        ...


class CosineKMeans(nn.Module):
    """Splits each map into regions of similar features by spherical k-means (Sec. 3.2.2, Eq. 4).

    The first centroids are ``num_regions`` different locations drawn at random. See `cosine_kmeans`.

    Args:
        num_regions: Number of regions, n in the paper, where 3 is best (Table 3); at most 65536.
        num_iters: Rounds of k-means, at most 10000.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If a number is not an integer.

    Example:
        >>> import torch
        >>> partition = CosineKMeans(3)
        >>> partition(torch.rand(2, 16, 9, 9)).shape
        torch.Size([2, 9, 9])
    """

    def __init__(self, num_regions: int = 3, *, num_iters: int = 10) -> None:
        super().__init__()
        self.num_regions = check_at_least("num_regions", num_regions, 1, MAX_CLUSTERS)
        self.num_iters = check_at_least("num_iters", num_iters, 0, MAX_ITERS)

    @override
    def forward(
        self,
        cluster_features: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Label every location with its region.

        Args:
            cluster_features: ``(B, C, H, W)``, floating point; no gradient flows back. A location with NaN or infinity
                moves no centroid and gets label 0.
            valid: ``(B, H, W)`` bool, which locations move centroids; all by default.
            generator: Source of the random numbers for the first centroids; by default torch's.

        Returns:
            ``(B, H, W)`` int64 from 0 to ``num_regions - 1``; a region may be empty.

        Raises:
            ValueError: If a shape or a device does not fit.
            TypeError: If ``cluster_features`` is not floating point, ``valid`` not bool or ``generator`` no generator.
        """
        check_tensor("cluster_features", cluster_features, "B C H W")
        check_floating("cluster_features", cluster_features)
        height = cluster_features.shape[2]
        points = rearrange(cluster_features, "b c h w -> b (h w) c")  # B N C
        if valid is not None:
            check_tensor("valid", valid, "B H W")
            check_sizes("valid", valid, "B H W", cluster_features, "cluster_features", "B C H W")
            valid = rearrange(valid, "b h w -> b (h w)")  # B N
        init = sample_centroids(points, self.num_regions, valid=valid, generator=generator)
        labels = cosine_kmeans(points, init, valid=valid, num_iters=self.num_iters).labels
        return rearrange(labels, "b (h w) -> b h w", h=height)

    @override
    def extra_repr(self) -> str:
        return f"{self.num_regions}, num_iters={self.num_iters}"


class GridPartition(nn.Module):
    """Splits each map into the cells of a regular grid: the spatial prototypes of the paper's Table 6.

    Args:
        bins: Rows and columns of the grid, from 1 to 256; there are ``bins ** 2`` regions.

    Raises:
        ValueError: If ``bins`` is out of range.
        TypeError: If it is not an integer.

    Example:
        >>> import torch
        >>> GridPartition(2)(torch.rand(1, 16, 4, 4))
        tensor([[[0, 0, 1, 1],
                 [0, 0, 1, 1],
                 [2, 2, 3, 3],
                 [2, 2, 3, 3]]])
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = check_at_least("bins", bins, 1, 256)
        self.num_regions = self.bins**2

    @override
    def forward(
        self,
        cluster_features: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Label every location with its cell, counted row by row.

        Args:
            cluster_features: ``(B, C, H, W)``; only the shape matters.
            valid: Ignored; part of the `Partition` protocol.
            generator: Ignored; nothing is random.

        Returns:
            ``(B, H, W)`` int64 from 0 to ``num_regions - 1``; a map with fewer rows than bins leaves cells empty.

        Raises:
            ValueError: If ``cluster_features`` is not four-dimensional.
        """
        check_tensor("cluster_features", cluster_features, "B C H W")
        batch, _, height, width = cluster_features.shape
        rows = torch.arange(height, device=cluster_features.device) * self.bins // height
        columns = torch.arange(width, device=cluster_features.device) * self.bins // width
        return (rows[:, None] * self.bins + columns).expand(batch, -1, -1)

    @override
    def extra_repr(self) -> str:
        return f"{self.bins}"


def label_regions(partition: Partition, cluster_features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Label ``(B, C, H, W)`` features by ``partition``; raise unless it returns ``(B, H, W)`` labels in its range."""
    labels = partition(cluster_features, generator=generator)
    check_tensor("what partition returns", labels, "B H W")
    check_labels("what partition returns", labels)
    check_sizes("what partition returns", labels, "B", cluster_features, "cluster_features")
    look_at_indices("what partition returns", labels, partition.num_regions)
    return labels.long()


def check_partition(partition: Partition) -> None:
    """Raise unless ``partition`` is a `Partition`: callable, with ``num_regions``."""
    if not callable(partition) or not hasattr(partition, "num_regions"):
        raise TypeError(
            f"partition must be a function with num_regions, such as CosineKMeans(3), got {type(partition).__name__}"
        )
    check_at_least("num_regions of partition", partition.num_regions, 1, MAX_CLUSTERS)
