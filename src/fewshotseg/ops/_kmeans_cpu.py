"""Rounds of k-means on a CPU: the result of `kmeans._rounds` in less than half the time.

On a CPU reading a value needs no host-device synchronisation, so the rounds can stop early and skip points.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, max_pool2d

from fewshotseg.ops._precision import inverse_norm
from fewshotseg.ops._values import all_finite

SMALL_K = (1, 2, 3, 5)
"""Values of K for which one matrix product is fastest: it has K - 1 columns, and 1, 2 and 4 columns are fast."""

NUM_CHUNKS = 4
"""Number of chunks that the points are split into, one matrix product each, for any other K."""

CANCELLED = 8
"""An updated sum that has become this many times shorter has lost too many digits, and is computed anew."""


def rounds_on_cpu(
    points: Tensor, centroids: Tensor, valid: Tensor | None, num_iters: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run up to ``num_iters`` rounds; return centroids ``(B, K, C)``, labels ``(B, N)`` and counts ``(B, K)``.

    Images are clustered one by one, so that the points stay in the processor's cache; rounds end when no label changes.
    """
    batch, num_points, _ = points.shape
    centroids = centroids.clone()
    labels = points.new_empty(batch, num_points, dtype=torch.int64)
    counts = points.new_empty(batch, centroids.shape[1], dtype=torch.int64)
    for b in range(batch):
        mask = None if valid is None else valid[b]
        centroids[b], labels[b], counts[b] = _cluster(points[b], centroids[b], mask, num_iters)
    return centroids, labels, counts


def _cluster(points: Tensor, centroids: Tensor, valid: Tensor | None, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster one image: ``(N, C)``, ``(K, C)``, ``(N,)`` -> ``(K, C)``, ``(N,)``, ``(K,)``."""
    points = points.contiguous()  # N C; every round reads whole rows
    num_clusters = len(centroids)
    weights = inverse_lengths(points)  # N 1
    if not all_finite(weights):  # points with NaN or infinity take no part
        finite = weights.isfinite()
        points, weights = torch.where(finite, points, 0), torch.where(finite, weights, 0)
        valid = finite[:, 0] if valid is None else finite[:, 0] & valid
    if valid is not None:
        weights = weights * valid[:, None]

    labels = _nearest(points, centroids)  # N
    sums, lengths, some_zero = _sum(points, weights, labels, num_clusters)  # K C, K 1
    largest = lengths
    for number in range(1, num_iters + 1):
        means = sums / lengths
        if some_zero:  # an empty cluster keeps its centroid, one of zero vectors does not
            means = torch.where(_count(labels, valid, num_clusters)[:, None] > 0, means, centroids)
        centroids = means
        before, labels = labels, _nearest(points, centroids)
        moved = (before != labels).nonzero()[:, 0]  # M
        if len(moved) == 0:  # all later rounds would give the same
            break
        if number < num_iters:
            # A few points in a hundred change their cluster: moving them between sums is faster than summing all anew.
            rows = points.index_select(0, moved).mul_(weights.index_select(0, moved))  # M C
            sums.index_add_(0, labels.index_select(0, moved), rows)
            sums.index_add_(0, before.index_select(0, moved), rows, alpha=-1)
            lengths = lengths_of(sums)
            largest = torch.maximum(largest, lengths)
            if float((largest / lengths).max()) > CANCELLED:
                sums, lengths, some_zero = _sum(points, weights, labels, num_clusters)
                largest = lengths
    return centroids, labels, _count(labels, valid, num_clusters)


def _count(labels: Tensor, valid: Tensor | None, num_clusters: int) -> Tensor:
    return (labels if valid is None else labels[valid]).bincount(minlength=num_clusters)


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Find each point's nearest centroid, ``(N,)``: that of the largest product, the lowest on a tie."""
    if len(centroids) not in SMALL_K:
        return _nearest_of_many(points, centroids)
    # Only differences between scores matter. Relative to the first centroid, whose column is 0, one column is saved.
    scores = points.new_zeros(len(points), len(centroids))  # N K
    torch.mm(points, (centroids[1:] - centroids[0]).T, out=scores[:, 1:])
    return scores.max(dim=1).indices


def _nearest_of_many(points: Tensor, centroids: Tensor) -> Tensor:
    """Find the same as `_nearest` by `NUM_CHUNKS` products of all centroids with a chunk of the points each.

    One large product is slower for these K, and may round equal centroids differently. If the points do not divide
    evenly, each chunk but the first begins with the last few points of the previous one.
    """
    (num_points, channels), num_clusters = points.shape, len(centroids)
    step, rest = divmod(num_points, NUM_CHUNKS)
    chunks = points.as_strided((NUM_CHUNKS, step + rest, channels), (step * channels, channels, 1))
    scores = centroids.expand(NUM_CHUNKS, -1, -1) @ chunks.mT  # chunks K points
    maps = scores[:, :, None].permute(0, 3, 1, 2)  # chunks points K 1: max pooling is the fastest argmax
    nearest = max_pool2d(maps, (num_clusters, 1), return_indices=True)[1].flatten(1)  # chunks points
    labels = nearest[:, :step].flatten()
    return torch.cat([labels, nearest[-1, step:]]) if rest else labels


def _sum(points: Tensor, weights: Tensor, labels: Tensor, num_clusters: int) -> tuple[Tensor, Tensor, bool]:
    """Sum each cluster's weighted points: sums ``(K, C)``, their lengths ``(K, 1)``, and whether some sum is zero."""
    order = labels.argsort(stable=True)
    sizes = labels.bincount(minlength=num_clusters)
    starts = sizes.cumsum(0) - sizes
    # embedding_bag sums weighted rows without a copy of them.
    sums = embedding_bag(order, points, starts, mode="sum", per_sample_weights=weights[order, 0])
    return sums, lengths_of(sums), not sums.any(dim=1).all()


def lengths_of(sums: Tensor) -> Tensor:
    """Compute the length of rows, ``(..., C)`` -> ``(..., 1)``, at least the smallest positive number, to divide by."""
    lengths: Tensor = torch.linalg.vector_norm(sums, dim=-1, keepdim=True)
    return lengths.clamp_min_(torch.finfo(sums.dtype).tiny)


def inverse_lengths(rows: Tensor) -> Tensor:
    """Compute `inverse_norm`, ``(N, C)`` -> ``(N, 1)``, in one pass if no square overflows or underflows."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    limits = torch.finfo(rows.dtype)
    ordinary = (lengths > limits.tiny**0.5 / limits.eps) & (lengths < limits.max)  # no square over- or underflowed
    if ordinary.all():
        return 1 / lengths
    return torch.where(ordinary, 1 / lengths, inverse_norm(rows))
