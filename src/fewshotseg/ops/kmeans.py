"""Spherical k-means: groups the vectors of a feature map by their cosine (Eq. 4)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import check_at_least, check_floating, check_sizes, check_tensor
from fewshotseg.ops._kmeans_cpu import lengths_of, rounds_on_cpu
from fewshotseg.ops._precision import at_least_float32, inverse_norm, is_eager_cpu, without_autocast
from fewshotseg.ops._random import uniform
from fewshotseg.ops._values import all_finite

MAX_CLUSTERS, MAX_ITERS = 2**16, 10_000
"""Limits that catch mistakes, before memory runs out or the call takes for ever."""


class KMeansResult(NamedTuple):
    """The clusters that `cosine_kmeans` found.

    Attributes:
        centroids: ``(B, K, C)`` of unit length, float32 (float64 for float64 points).
        labels: ``(B, N)`` int64, the cluster of every point, valid or not; 0 for a point with NaN or infinity.
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
    """Draw distinct valid points uniformly, for each image separately, to start k-means from.

    Args:
        points: ``(B, N, C)``.
        num_clusters: K, how many points to draw from each image, from 1 to 65536.
        valid: ``(B, N)`` bool, which points may be drawn; all by default. Points with NaN or infinity never are.
        generator: Source of the random numbers, on any device; by default torch's, the only one that ``torch.compile``
            supports.

    Returns:
        ``(B, K, C)`` in the dtype of ``points``. If fewer than K points are valid, they repeat in turn. If none is, all
        points count as valid, and NaN and infinity as 0. No gradient.

    Raises:
        ValueError: If a shape or a device does not fit, ``num_clusters`` is out of range or there is no point at all.
        TypeError: If ``points`` is not floating point, ``valid`` not bool, or another argument of a wrong type.

    Example:
        >>> import torch
        >>> points = torch.arange(4.0).reshape(1, 4, 1)
        >>> valid = torch.tensor([[False, True, True, False]])
        >>> sample_centroids(points, 2, valid=valid).sort(dim=1).values.flatten()
        tensor([1., 2.])
    """
    _check_points(points, valid)
    num_clusters = check_at_least("num_clusters", num_clusters, 1, MAX_CLUSTERS)
    order = uniform((points.shape[0], points.shape[1]), points.device, generator)
    drawn = _first_in_order(points, order, num_clusters, valid)
    if all_finite(drawn):  # so leaving out points that are not finite would change nothing
        return drawn
    finite = points.isfinite().all(dim=2)
    drawn = _first_in_order(points, order, num_clusters, finite if valid is None else finite & valid)
    return torch.where(drawn.isfinite(), drawn, 0)


@torch.no_grad()
def cosine_kmeans(points: Tensor, init: Tensor, *, valid: Tensor | None = None, num_iters: int = 10) -> KMeansResult:
    r"""Cluster points by direction: k-means with cosine distance, for a batch of images.

    Points are scaled to unit vectors $x_i$ (a zero vector stays zero). Each round labels every point with the centroid
    of the largest $\langle x_i, u_k \rangle$, on a tie the lowest k, and then moves every centroid to
    $u_k = \mathrm{unit}(\sum_{i \in k} x_i)$ over its valid points. A cluster without valid points keeps its centroid.
    After the last round the points are labelled once more. Nothing is random; `sample_centroids` draws an ``init``.

    Args:
        points: ``(B, N, C)``, floating point.
        init: ``(B, K, C)``, the first centroids, of any length.
        valid: ``(B, N)`` bool, which points move centroids; all by default. Every point gets a label. Points with NaN
            or infinity are never valid.
        num_iters: Number of rounds, 10 in the paper, at most 10000.

    Returns:
        Centroids, labels and counts, without gradient. With a finite ``init`` there is never NaN: more clusters than
        points, equal points and zero vectors only leave clusters empty.

    Raises:
        ValueError: If a shape or a device does not fit, or ``num_iters`` is out of range.
        TypeError: If ``points`` or ``init`` is not floating point, ``valid`` not bool or ``num_iters`` no integer.

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
    num_iters = check_at_least("num_iters", num_iters, 0, MAX_ITERS)

    with without_autocast(points):
        points = at_least_float32(points)
        tensors = [points, init.detach(), *([] if valid is None else [valid])]  # a detached parameter is a plain tensor
        rounds = rounds_on_cpu if is_eager_cpu(*tensors) else _rounds
        return KMeansResult(*rounds(points, _unit(init.to(points.dtype)), valid, num_iters))


def _rounds(points: Tensor, centroids: Tensor, valid: Tensor | None, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Run Eq. 4 as written, with shapes that do not depend on values: no host-device synchronisation."""
    # A point's length does not change its nearest centroid, so the points themselves are never normalised.
    weights = inverse_norm(points)  # B N 1
    finite = weights.isfinite()
    points, weights = torch.where(finite, points, 0), torch.where(finite, weights, 0).mT  # 0 * NaN is NaN
    valid = finite.mT if valid is None else finite.mT & valid[:, None]  # B 1 N
    weights = weights * valid  # B 1 N
    clusters = torch.arange(centroids.shape[1], device=points.device)[:, None]  # K 1
    open_to = torch.where(valid, clusters, -1)  # B K N; a point that is not valid is no member of any
    # Few kernels in each round: launching one takes longer than running it.
    for _ in range(num_iters):
        members = _nearest(points, centroids) == open_to  # B K N
        sums = (members * weights) @ points  # B K C
        occupied = members.any(dim=2, keepdim=True)
        centroids = torch.where(occupied, sums / lengths_of(sums), centroids)
    labels = _nearest(points, centroids)
    return centroids, labels[:, 0], (labels == open_to).sum(dim=2)


def _first_in_order(points: Tensor, order: Tensor, count: int, valid: Tensor | None) -> Tensor:
    """Take the ``count`` valid points with the largest numbers in ``order (B, N)``; if too few, repeat them in turn."""
    batch, num_points, channels = points.shape
    available = torch.full((batch,), num_points, device=points.device)
    if valid is not None:
        order = torch.where(valid, order, -1.0)
        num_valid = valid.sum(dim=1)
        available = torch.where(num_valid > 0, num_valid, num_points)
    drawn = order.topk(min(count, num_points), dim=1).indices
    turn = torch.arange(count, device=points.device) % available[:, None]
    chosen = drawn.gather(1, turn)
    return points.gather(1, chosen[..., None].expand(-1, -1, channels))


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Find the index of the centroid with the largest product, the lowest on a tie: ``(B, 1, N)``."""
    return (centroids @ points.mT).argmax(dim=1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return vectors * inverse_norm(vectors)


def _check_points(points: Tensor, valid: Tensor | None) -> None:
    check_tensor("points", points, "B N C")
    check_floating("points", points)
    if valid is not None:
        check_tensor("valid", valid, "B N")
        check_sizes("valid", valid, "B N", points, "points", "B N C")
        if valid.dtype != torch.bool:
            raise TypeError(f"valid must be a bool tensor, got {valid.dtype}")
