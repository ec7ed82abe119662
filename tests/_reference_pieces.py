"""What the pieces of other methods should give, written out naively: plain loops over float64 arrays."""

import numpy as np

from _reference import VOID, masked_average_pool, resize_bilinear, segmentation_loss, unit


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(unit(one) @ unit(other))


def correlation(query: np.ndarray, support: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """One layer: (B, C, h, w), (B, C, h', w') -> (B, h, w, h', w')."""
    batch, _, *size = query.shape
    volume = np.zeros((batch, *size, *support.shape[2:]))
    weights = np.ones((batch, *support.shape[2:])) if masks is None else resize_bilinear(masks, support.shape[2:])
    for b, i, j, y, x in np.ndindex(*volume.shape):
        volume[b, i, j, y, x] = max(0.0, cosine(query[b, :, i, j], weights[b, y, x] * support[b, :, y, x]))
    return volume


def self_support_masks(logits: np.ndarray, thresholds: tuple[float, float], fallback: int) -> np.ndarray:
    """(B, 2, h, w) logits -> bool."""
    masks = np.zeros(logits.shape, dtype=bool)
    batch, _, height, width = logits.shape
    for b in range(batch):
        for side in range(2):
            probabilities = {}
            for i, j in np.ndindex(height, width):
                scores = np.exp(logits[b, :, i, j])
                probabilities[i, j] = scores[side] / scores.sum()
            chosen = [place for place, probability in probabilities.items() if probability > thresholds[side]]
            if not chosen:
                chosen = sorted(probabilities, key=lambda place: -probabilities[place])[:fallback]
            for place in chosen:
                masks[b, side][place] = True
    return masks


def local_prototypes(features: np.ndarray, masks: np.ndarray, scale: float) -> np.ndarray:
    """(B, C, h, w), (B, h, w) -> (B, C, h, w)."""
    prototypes = np.zeros(features.shape)
    batch, _, height, width = features.shape
    for b, i, j in np.ndindex(batch, height, width):
        total = 0.0
        for y, x in np.ndindex(height, width):
            if masks[b, y, x]:
                weight = np.exp(scale * cosine(features[b, :, i, j], features[b, :, y, x]))
                prototypes[b, :, i, j] += weight * features[b, :, y, x]
                total += weight
        if total > 0:
            prototypes[b, :, i, j] /= total
    return prototypes


def vote_shots(masks: np.ndarray) -> np.ndarray:
    """(B, S, H, W) -> (B, H, W)."""
    shares = np.zeros((len(masks), *masks.shape[2:]))
    for b, answers in enumerate(masks):
        votes = sum(answers.astype(float))
        if votes.max() > 0:
            shares[b] = votes / votes.max()
    return shares


def gram_distance(query: np.ndarray, support: np.ndarray) -> np.ndarray:
    """(B, C, h, w), (B, S, C, h', w') -> (B, S)."""
    channels = query.shape[1]
    distances = np.zeros(support.shape[:2])
    for b, s in np.ndindex(*distances.shape):
        total = 0.0
        for i, j in np.ndindex(channels, channels):
            one = cosine(query[b, i].ravel(), query[b, j].ravel())
            other = cosine(support[b, s, i].ravel(), support[b, s, j].ravel())
            total += (one - other) ** 2
        distances[b, s] = total**0.5 / channels
    return distances


def alignment_loss(
    query: np.ndarray, logits: np.ndarray, support: np.ndarray, masks: np.ndarray, scale: float
) -> float:
    """(B, C, h, w), (B, 2, h', w'), (B, S, C, h'', w''), (B, S, H, W) -> a number."""
    answer = resize_bilinear(logits, query.shape[2:])
    predicted = answer[:, 1] > answer[:, 0]
    batch, shots, _, height, width = support.shape
    scores, targets = np.zeros((batch * shots, 2, height, width)), np.full((batch * shots, *masks.shape[2:]), VOID)
    for b in range(batch):
        if not predicted[b].any():
            continue
        prototypes = [masked_average_pool(query[b : b + 1], (predicted[b] == side)[None])[0] for side in (0, 1)]
        for s in range(shots):
            targets[b * shots + s] = masks[b, s]
            for side, i, j in np.ndindex(2, height, width):
                scores[b * shots + s, side, i, j] = scale * cosine(support[b, s, :, i, j], prototypes[side])
    return segmentation_loss(scores, targets)
