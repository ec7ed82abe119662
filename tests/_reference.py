"""What the tensor operations and losses should give, written out naively: plain loops over float64 arrays.

Nothing here is shared with the package, nothing is vectorised beyond one vector of channels, and positions on
a grid are exact fractions of integers. Slow on purpose; for small inputs.
"""

from typing import NamedTuple

import numpy as np
import torch

VOID = 255


def array(tensor: torch.Tensor) -> np.ndarray:
    """The values of any tensor; floating-point ones as float64, which holds every smaller type exactly."""
    tensor = tensor.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


# Grids


def aligned_position(index: int, size: int, new_size: int) -> tuple[int, int, int]:
    """Where output ``index`` lies in the input, corners aligned: (whole part, numerator, denominator)."""
    if new_size == 1:
        return 0, 0, 1
    whole, numerator = divmod(index * (size - 1), new_size - 1)
    return whole, numerator, new_size - 1


def nearest_indices(size: int, new_size: int) -> list[set[int]]:
    """For each output position the nearest input position; two of them when it lies exactly half-way."""
    indices = []
    for index in range(new_size):
        whole, numerator, denominator = aligned_position(index, size, new_size)
        nearest = set()
        if 2 * numerator <= denominator:
            nearest.add(whole)
        if 2 * numerator >= denominator:
            nearest.add(whole + 1)
        indices.append(nearest)
    return indices


def sample_nearest(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., H, W) -> (..., h, w), corners aligned. Only for sizes where no output lies half-way."""
    rows, columns = nearest_indices(grid.shape[-2], size[0]), nearest_indices(grid.shape[-1], size[1])
    assert all(len(candidates) == 1 for candidates in rows + columns), "a tie: the reference doesn't choose"
    return grid[..., [min(row) for row in rows], :][..., [min(column) for column in columns]]


def resize_bilinear(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., H, W) -> (..., h, w), corners aligned."""
    height, width = grid.shape[-2:]
    resized = np.zeros((*grid.shape[:-2], *size))
    for i in range(size[0]):
        top, numerator, denominator = aligned_position(i, height, size[0])
        down, bottom = numerator / denominator, min(top + 1, height - 1)
        for j in range(size[1]):
            left, numerator, denominator = aligned_position(j, width, size[1])
            across, right = numerator / denominator, min(left + 1, width - 1)
            # A weight of exactly 0 takes no part, as in the formula: 0 * infinity would.
            for row, y in ((top, 1 - down), (bottom, down)):
                for column, x in ((left, 1 - across), (right, across)):
                    if y * x != 0:
                        resized[..., i, j] += y * x * grid[..., row, column]
    return resized


# Prototypes


def masked_average_pool(features: np.ndarray, masks: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Eq. 1 and 6: (B, C, H, W) with (B, H, W) -> (B, C), or with (B, K, H, W) -> (B, K, C)."""
    if masks.ndim == 3:
        return masked_average_pool(features, masks[:, None], eps)[:, 0]
    batch, channels, height, width = features.shape
    pooled = np.zeros((batch, masks.shape[1], channels))
    for b in range(batch):
        for k in range(masks.shape[1]):
            total, area = np.zeros(channels), 0.0
            for i in range(height):
                for j in range(width):
                    weight = float(masks[b, k, i, j])
                    total += features[b, :, i, j] * weight
                    area += weight
            if area > 0:
                pooled[b, k] = total / (area + eps)
    return pooled


def background_regions(labels: np.ndarray, masks: np.ndarray, num_regions: int) -> np.ndarray:
    """Eq. 5, void removed too: (B, H, W) labels and masks -> (B, K, H, W) bool."""
    regions = np.zeros((len(labels), num_regions, *labels.shape[1:]), dtype=bool)
    for b, i, j in np.ndindex(*labels.shape):
        if masks[b, i, j] not in (1, VOID) and 0 <= labels[b, i, j] < num_regions:
            regions[b, labels[b, i, j], i, j] = True
    return regions


def expand_prototypes(prototypes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """E^s of Eq. 2: (B, C) -> (B, C, H, W)."""
    expanded = np.zeros((*prototypes.shape, *size))
    for i, j in np.ndindex(*size):
        expanded[:, :, i, j] = prototypes
    return expanded


def assign_prototypes(prototypes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """E^q of Eq. 7: (B, K, C) and (B, H, W) -> (B, C, H, W)."""
    batch, height, width = labels.shape
    assigned = np.zeros((batch, prototypes.shape[2], height, width))
    for b, i, j in np.ndindex(batch, height, width):
        assigned[b, :, i, j] = prototypes[b, labels[b, i, j]]
    return assigned


# Regions


class KMeans(NamedTuple):
    centroids: np.ndarray
    labels: np.ndarray
    counts: np.ndarray


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length one; zero stays zero."""
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0:
        return np.zeros_like(vector)
    vector = vector / largest  # so that no square over- or underflows
    return vector / np.sqrt((vector * vector).sum())


def nearest_centroid(point: np.ndarray, centroids: np.ndarray) -> int:
    """Eq. 4 with cosine similarity; the lowest on a tie."""
    best = 0
    for k in range(1, len(centroids)):
        if point @ centroids[k] > point @ centroids[best]:
            best = k
    return best


def cosine_kmeans(points: np.ndarray, init: np.ndarray, valid: np.ndarray | None = None, num_iters: int = 10) -> KMeans:
    """Spherical k-means: (B, N, C) and (B, K, C) -> centroids (B, K, C), labels (B, N), counts (B, K)."""
    batch, num_points, _ = points.shape
    num_clusters = init.shape[1]
    valid = np.ones((batch, num_points), dtype=bool) if valid is None else valid
    result = KMeans(np.zeros(init.shape), np.zeros(valid.shape, int), np.zeros(init.shape[:2], int))
    for b in range(batch):
        directions = [unit(point) for point in points[b]]
        centroids = [unit(centroid) for centroid in init[b]]
        for _ in range(num_iters):
            labels = [nearest_centroid(direction, centroids) for direction in directions]
            for k in range(num_clusters):
                members = [directions[n] for n in range(num_points) if valid[b, n] and labels[n] == k]
                if members:
                    centroids[k] = unit(np.sum(members, axis=0))
        for n, direction in enumerate(directions):
            result.labels[b, n] = nearest_centroid(direction, centroids)
            result.counts[b, result.labels[b, n]] += bool(valid[b, n])
        result.centroids[b] = centroids
    return result


def objective(points: np.ndarray, centroids: np.ndarray, valid: np.ndarray | None = None) -> float:
    """What spherical k-means raises: the sum over valid points of the cosine with the nearest centroid."""
    total = 0.0
    for b, n in np.ndindex(*points.shape[:2]):
        if valid is None or valid[b, n]:
            total += max(unit(points[b, n]) @ centroid for centroid in centroids[b])
    return total


def grid_labels(height: int, width: int, bins: int) -> np.ndarray:
    """(H, W): bins x bins cells of equal height and width, numbered row by row."""
    labels = np.zeros((height, width), dtype=int)
    for i, j in np.ndindex(height, width):
        labels[i, j] = (i * bins // height) * bins + (j * bins // width)
    return labels


# Prior


def prior_mask(query: np.ndarray, support: np.ndarray, support_masks: np.ndarray) -> np.ndarray:
    """PFENet's prior over every support position: (B,C,H,W), (B,S,C,h,w), (B,S,H',W') -> (B, 1, H, W)."""
    batch, _, height, width = query.shape
    shots, size = support.shape[1], support.shape[-2:]
    prior = np.zeros((batch, 1, height, width))
    for b in range(batch):
        for s in range(shots):
            mask = support_masks[b, s]
            weights = resize_bilinear(mask if mask.dtype.kind == "f" else (mask == 1).astype(float), size)
            masked = support[b, s] * weights
            best = np.full((height, width), -np.inf)
            for i, j in np.ndindex(height, width):
                for y, x in np.ndindex(*size):
                    lengths = np.linalg.norm(masked[:, y, x]) * np.linalg.norm(query[b, :, i, j])
                    cosine = masked[:, y, x] @ query[b, :, i, j] / (lengths + 1e-7)
                    best[i, j] = max(best[i, j], cosine)
            prior[b, 0] += (best - best.min()) / (best.max() - best.min() + 1e-7) / shots
    return prior


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """0 for a zero vector."""
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths > 0 else 0.0


def cosine_logits(features: np.ndarray, prototypes: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """The best of each class's prototypes: (B,C,h,w), (B,K,P,C) -> (B,K,h,w)."""
    batch, _, height, width = features.shape
    logits = np.zeros((batch, prototypes.shape[1], height, width))
    for b, k, i, j in np.ndindex(*logits.shape):
        logits[b, k, i, j] = scale * max(cosine(features[b, :, i, j], each) for each in prototypes[b, k]) + bias
    return logits


def density_logits(features: np.ndarray, points: np.ndarray, sides: np.ndarray, kappa: float) -> np.ndarray:
    """Logs of weighted means of exp(kappa cosine): (B,C,h,w), (B,M,C), (B,2,M) -> (B,2,h,w)."""
    batch, _, height, width = features.shape
    logits = np.zeros((batch, 2, height, width))
    for b, side, i, j in np.ndindex(*logits.shape):
        weights = sides[b, side]
        kernels = [np.exp(kappa * cosine(features[b, :, i, j], point)) for point in points[b]]
        nothing = -kappa * (1, 2)[side]
        logits[b, side, i, j] = np.log(weights @ kernels / weights.sum()) if weights.sum() > 0 else nothing
    return logits


# Losses


class Pairs(NamedTuple):
    prototypes: np.ndarray
    valid: np.ndarray
    prototype_map: np.ndarray
    target: np.ndarray


def self_contrastive_pairs(
    features: np.ndarray, labels: np.ndarray, masks: np.ndarray, num_regions: int, drawn: np.ndarray
) -> Pairs:
    """Eq. 5 to 7, given the region labels and, for each image, which prototype was drawn for its foreground.

    A void location whose region is empty, and every location of an image without background, is NaN in the
    map: there the exact value isn't prescribed.
    """
    batch, _, height, width = features.shape
    size = (height, width)
    labels, small_masks = sample_nearest(labels, size), sample_nearest(masks, size)
    regions = background_regions(labels, small_masks, num_regions)
    prototypes = masked_average_pool(features, regions)
    valid = regions.any(axis=(2, 3))
    prototype_map = np.full(features.shape, np.nan)
    target = np.full(masks.shape, VOID)
    for b in range(batch):
        if not valid[b].any():
            continue
        for i, j in np.ndindex(height, width):
            region = drawn[b] if small_masks[b, i, j] == 1 else labels[b, i, j]
            if valid[b, region]:
                prototype_map[b, :, i, j] = prototypes[b, region]
        for i, j in np.ndindex(*masks.shape[1:]):
            target[b, i, j] = VOID if masks[b, i, j] == VOID else 1 - masks[b, i, j]
    return Pairs(prototypes, valid, prototype_map, target)


def segmentation_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """Mean cross-entropy of the resized logits over the pixels of the batch that aren't void; else 0."""
    logits = resize_bilinear(logits, target.shape[-2:])
    losses = []
    for b, i, j in np.ndindex(*target.shape):
        if target[b, i, j] != VOID:
            scores = logits[b, :, i, j]
            losses.append(np.logaddexp.reduce(scores) - scores[target[b, i, j]])
    return float(np.mean(losses)) if losses else 0.0
