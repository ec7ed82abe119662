"""Spherical k-means: feature maps grouped by the cosine between their vectors (Eq. 4)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import check_at_least, check_floating, check_sizes, check_tensor
from fewshotseg.ops._kmeans_cpu import rounds_on_cpu
from fewshotseg.ops._precision import at_least_float32, inverse_norm, is_eager_cpu, without_autocast
from fewshotseg.ops._random import uniform


class KMeansResult(NamedTuple):
    """What `cosine_kmeans` found.

    Attributes:
        centroids: ``(B, K, C)`` of unit length, float32 (float64 for float64 points).
        labels: ``(B, N)`` int64, the cluster of every point, valid or not.
        counts: ``(B, K)`` int64, how many valid points each cluster holds.
    """

    centroids: Tensor
    labels: Tensor
    counts: Tensor


@torch.no_grad()
def sample_centroids(
    points: Tensor,
    num_clusters: int,
    *,
    valid: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw different valid points to start k-means from, uniformly and for each image on its own.

    Args:
        points: ``(B, N, C)``.
        num_clusters: K, how many points to draw from each image.
        valid: ``(B, N)`` bool, which points may be drawn; all by default.
        generator: Where the random numbers come from, on any device; torch's default generator otherwise.

    Returns:
        ``(B, K, C)`` in the dtype of ``points``. With fewer than K valid points they repeat in turn; without any,
        all points count as valid. No gradient.

    Raises:
        ValueError: If a shape does not fit, ``num_clusters`` is below 1 or there is no point at all.

    Example:
        >>> import torch
        >>> points = torch.arange(4.0).reshape(1, 4, 1)
        >>> valid = torch.tensor([[False, True, True, False]])
        >>> sample_centroids(points, 2, valid=valid).sort(dim=1).values.flatten()
        tensor([1., 2.])
    """
    _check_points(points, valid)
    check_at_least("num_clusters", num_clusters, 1)
    batch, num_points, channels = points.shape

    order = uniform((batch, num_points), points.device, generator)
    available = torch.full((batch,), num_points, device=points.device)
    if valid is not None:
        order = torch.where(valid, order, -1.0)
        num_valid = valid.sum(dim=1)
        available = torch.where(num_valid > 0, num_valid, num_points)
    drawn = order.topk(min(num_clusters, num_points), dim=1).indices
    turn = torch.arange(num_clusters, device=points.device) % available[:, None]
    chosen = drawn.gather(1, turn)
    return points.gather(1, chosen[..., None].expand(-1, -1, channels))


@torch.no_grad()
def cosine_kmeans(points: Tensor, init: Tensor, *, valid: Tensor | None = None, num_iters: int = 10) -> KMeansResult:
    r"""Group points by the direction they point in: k-means under cosine distance, for a batch of images.

    Points count as unit vectors $x_i$ (a zero vector stays zero). Each round gives every point the label of the
    centroid with the largest $\langle x_i, u_k \rangle$, the lowest such k, and moves every centroid to
    $u_k = \mathrm{unit}(\sum_{i \in k} x_i)$ over its valid points. A cluster without any keeps its centroid. After
    the last round the points are labelled once more. It draws nothing: see `sample_centroids` for a start.

    Args:
        points: ``(B, N, C)``, floating point.
        init: ``(B, K, C)``, the first centroids, of any length.
        valid: ``(B, N)`` bool, which points move centroids; all by default. Every point gets a label.
        num_iters: Rounds, 10 in the paper.

    Returns:
        Centroids, labels and counts, without gradient. Never NaN: more clusters than points, equal points and zero
        vectors only leave clusters empty.

    Raises:
        ValueError: If a shape does not fit or ``num_iters`` is negative.
        TypeError: If ``points`` or ``init`` is not floating point, or ``valid`` not bool.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[1.0, 0.1], [0.1, 1.0], [5.0, 0.0], [0.0, 0.2]]])
        >>> cosine_kmeans(points, init=points[:, :2]).labels
        tensor([[0, 1, 0, 1]])
    """
    _check_points(points, valid)
    check_tensor("init", init, "B K C")
    check_floating("init", init)
    check_sizes("init", init, "B K C", points, "points", "B N C")
    check_at_least("the number of clusters in init", init.shape[1], 1)
    check_at_least("num_iters", num_iters, 0)

    with without_autocast(points):
        points = at_least_float32(points)
        rounds = rounds_on_cpu if is_eager_cpu(points) else _rounds
        return KMeansResult(*rounds(points, _unit(init.to(points.dtype)), valid, num_iters))


def _rounds(points: Tensor, centroids: Tensor, valid: Tensor | None, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 4 as it is written, all rounds in shapes known beforehand: an accelerator never waits for a value."""
    # A point's length does not change its nearest centroid, so the points themselves are never normalised.
    weights = inverse_norm(points).mT
    if valid is not None:
        weights = weights * valid[:, None]
    for _ in range(num_iters):
        members = _members(points, centroids)
        sums = (members * weights) @ points
        centroids = torch.where(_count(members, valid)[..., None] > 0, _unit(sums), centroids)
    members = _members(points, centroids)
    return centroids, members.int().argmax(dim=1), _count(members, valid)


def _members(points: Tensor, centroids: Tensor) -> Tensor:
    """``(B, K, N)`` bool, which cluster each point belongs to: that of the nearest centroid."""
    labels = (centroids @ points.mT).argmax(dim=1, keepdim=True)
    return labels == torch.arange(centroids.shape[1], device=points.device)[:, None]


def _unit(vectors: Tensor) -> Tensor:
    return vectors * inverse_norm(vectors)


def _count(members: Tensor, valid: Tensor | None) -> Tensor:
    return (members if valid is None else members & valid[:, None]).sum(dim=2)


def _check_points(points: Tensor, valid: Tensor | None) -> None:
    check_tensor("points", points, "B N C")
    check_floating("points", points)
    check_at_least("the number of points", points.shape[1], 1)
    if valid is not None:
        check_tensor("valid", valid, "B N")
        check_sizes("valid", valid, "B N", points, "points", "B N C")
        if valid.dtype != torch.bool:
            raise TypeError(f"valid must be a bool tensor, got {valid.dtype}")
