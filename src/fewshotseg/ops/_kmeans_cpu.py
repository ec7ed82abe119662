"""The rounds of k-means on a CPU: the same numbers as `kmeans._rounds`, without the work that values make needless."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, max_pool2d

from fewshotseg.ops._precision import inverse_norm

FEW = (1, 2, 3, 5)
"""Numbers of centroids for which one product of matrices is fastest: less the first they are 0, 1, 2 or 4 columns."""

PIECES = 4
"""Of the points, for any other number: a batch of products."""


def rounds_on_cpu(
    points: Tensor, centroids: Tensor, valid: Tensor | None, num_iters: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Centroids, labels and counts after ``num_iters`` rounds.

    One image after the other: its points stay in the cache for all rounds, and it stops when its own points rest.
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
    """``(N, C)``, ``(K, C)``, ``(N,)``: one image.

    A centroid's sum differs from that of the round before by the points that came and went, mostly a few in a
    hundred, so only these are added and subtracted. When none does, centroids and labels are what they would stay.
    """
    points = points.contiguous()  # rows in one piece: each is read in every round
    num_clusters = len(centroids)
    weights = inverse_lengths(points)
    if valid is not None:
        weights = weights * valid[:, None]
    scores = points.new_zeros(len(points), num_clusters)

    labels = _nearest(points, centroids, scores)
    sums, lengths, some_zero = _sum(points, weights, labels, num_clusters)
    largest = lengths
    for number in range(1, num_iters + 1):
        means = sums / lengths
        if some_zero:  # an empty cluster keeps its centroid, one of zero vectors does not
            means = torch.where(_count(labels, valid, num_clusters)[:, None] > 0, means, centroids)
        centroids = means
        before, labels = labels, _nearest(points, centroids, scores)
        moved = (before != labels).nonzero()[:, 0]
        if len(moved) == 0:
            break
        if number < num_iters:
            rows = points.index_select(0, moved).mul_(weights.index_select(0, moved))
            sums.index_add_(0, labels.index_select(0, moved), rows)
            sums.index_add_(0, before.index_select(0, moved), rows, alpha=-1)
            lengths = _lengths(sums)
            largest = torch.maximum(largest, lengths)
            if float((largest / lengths).max()) > 8:  # little is left but the rounding of all that went
                sums, lengths, some_zero = _sum(points, weights, labels, num_clusters)
                largest = lengths
    return centroids, labels, _count(labels, valid, num_clusters)


def _count(labels: Tensor, valid: Tensor | None, num_clusters: int) -> Tensor:
    return (labels if valid is None else labels[valid]).bincount(minlength=num_clusters)


def _nearest(points: Tensor, centroids: Tensor, scores: Tensor) -> Tensor:
    """``(N,)`` int64, the centroid with the largest product with each point, the lowest on a tie.

    Only differences decide, so products of few are taken with differences from the first centroid, whose own stay zero
    in ``scores (N, K)``. That saves a column.
    """
    if len(centroids) not in FEW:
        return _nearest_of_many(points, centroids)
    torch.mm(points, (centroids[1:] - centroids[0]).T, out=scores[:, 1:])
    return scores.max(dim=1).indices


def _nearest_of_many(points: Tensor, centroids: Tensor) -> Tensor:
    """The same by a batch of products, one for each piece of the points, with a row for each centroid.

    One large product with as many is slow, and rounds equal centroids differently. Where points don't divide evenly, a
    piece begins with the last few of the one before. Pooling finds the largest for many points at a time.
    """
    (num_points, channels), num_clusters = points.shape, len(centroids)
    step, rest = divmod(num_points, PIECES)
    pieces = points.as_strided((PIECES, step + rest, channels), (step * channels, channels, 1))
    products = centroids.expand(PIECES, -1, -1) @ pieces.mT
    maps = products[:, :, None].permute(0, 3, 1, 2)
    nearest = max_pool2d(maps, (num_clusters, 1), return_indices=True)[1].flatten(1)
    labels = nearest[:, :step].flatten()
    return torch.cat([labels, nearest[-1, step:]]) if rest else labels


def _sum(points: Tensor, weights: Tensor, labels: Tensor, num_clusters: int) -> tuple[Tensor, Tensor, bool]:
    """The weighted sum of each cluster's points, ``(K, C)``, their lengths, and whether some sum is zero.

    Points are read once and not copied.
    """
    order = labels.int().argsort(stable=True).int()  # 32-bit indices are faster here
    sizes = labels.bincount(minlength=num_clusters)
    starts = (sizes.cumsum(0) - sizes).int()
    sums = embedding_bag(order, points, starts, mode="sum", per_sample_weights=weights[order, 0])
    return sums, _lengths(sums), not sums.any(dim=1).all()


def _lengths(sums: Tensor) -> Tensor:
    """``(K, 1)``, above zero even for a zero vector, to divide by."""
    lengths: Tensor = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    return lengths.clamp_min_(torch.finfo(sums.dtype).tiny)


def inverse_lengths(rows: Tensor) -> Tensor:
    """``(N, C)`` to ``(N, 1)``, what `inverse_norm` gives, from one look at rows of ordinary length."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    limits = torch.finfo(rows.dtype)
    ordinary = (lengths > limits.tiny**0.5 / limits.eps) & (lengths < limits.max)  # no square overflowed or vanished
    if ordinary.all():
        return 1 / lengths
    return torch.where(ordinary, 1 / lengths, inverse_norm(rows))
