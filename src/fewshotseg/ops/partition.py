"""Partitions: modules that cut a feature map into regions, for background prototypes to be pooled from."""

from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_floating, check_sizes, check_tensor
from fewshotseg.ops.kmeans import cosine_kmeans, sample_centroids


class Partition(Protocol):
    """Cuts feature maps into ``num_regions`` regions; `CosineKMeans` and `GridPartition` are two of them."""

    num_regions: int

    def __call__(
        self,
        cluster_features: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Turn ``(B, C, H, W)`` features into ``(B, H, W)`` int64 region labels."""
        ...


class CosineKMeans(nn.Module):
    """Regions of similar features, by spherical k-means on every map of its own (Sec. 3.2.2, Eq. 4).

    Starts from ``num_regions`` different locations drawn at random. See `cosine_kmeans`.

    Args:
        num_regions: n in the paper, whose best is 3 (Table 3).
        num_iters: Rounds of k-means.

    Raises:
        ValueError: If ``num_regions`` is below 1 or ``num_iters`` negative.

    Example:
        >>> import torch
        >>> partition = CosineKMeans(3)
        >>> partition(torch.rand(2, 16, 9, 9)).shape
        torch.Size([2, 9, 9])
    """

    def __init__(self, num_regions: int = 3, *, num_iters: int = 10) -> None:
        super().__init__()
        check_at_least("num_regions", num_regions, 1)
        check_at_least("num_iters", num_iters, 0)
        self.num_regions = num_regions
        self.num_iters = num_iters

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
            cluster_features: ``(B, C, H, W)``, floating point; no gradient flows back.
            valid: ``(B, H, W)`` bool, which locations move centroids; all by default.
            generator: Draws the first centroids; torch's default generator otherwise.

        Returns:
            ``(B, H, W)`` int64 from 0 to ``num_regions - 1``; some region may hold no location.
        """
        check_tensor("cluster_features", cluster_features, "B C H W")
        check_floating("cluster_features", cluster_features)
        height = cluster_features.shape[2]
        points = rearrange(cluster_features, "b c h w -> b (h w) c")
        if valid is not None:
            check_tensor("valid", valid, "B H W")
            check_sizes("valid", valid, "B H W", cluster_features, "cluster_features", "B C H W")
            valid = rearrange(valid, "b h w -> b (h w)")
        init = sample_centroids(points, self.num_regions, valid=valid, generator=generator)
        labels = cosine_kmeans(points, init, valid=valid, num_iters=self.num_iters).labels
        return rearrange(labels, "b (h w) -> b h w", h=height)

    @override
    def extra_repr(self) -> str:
        return f"{self.num_regions}, num_iters={self.num_iters}"


class GridPartition(nn.Module):
    """Regions of equal size on a regular grid: the spatial prototypes that the paper compares with (Table 6).

    Args:
        bins: Rows and columns of the grid; there are ``bins ** 2`` regions.

    Raises:
        ValueError: If ``bins`` is below 1.

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
        check_at_least("bins", bins, 1)
        self.bins = bins
        self.num_regions = bins * bins

    @override
    def forward(
        self,
        cluster_features: Tensor,
        *,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Label every location with its cell, row by row. Only the shape of the features matters.

        Args:
            cluster_features: ``(B, C, H, W)``.
            valid: Taken for the sake of the common interface; the grid does not depend on it.
            generator: Likewise; nothing is drawn.

        Returns:
            ``(B, H, W)`` int64 from 0 to ``num_regions - 1``; a map with fewer rows than bins leaves cells empty.
        """
        check_tensor("cluster_features", cluster_features, "B C H W")
        batch, _, height, width = cluster_features.shape
        rows = torch.arange(height, device=cluster_features.device) * self.bins // height
        columns = torch.arange(width, device=cluster_features.device) * self.bins // width
        return (rows[:, None] * self.bins + columns).expand(batch, -1, -1)

    @override
    def extra_repr(self) -> str:
        return f"{self.bins}"
