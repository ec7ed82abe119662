"""Every tensor operation and loss with one set of inputs, for what must hold of all of them alike."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from _inputs import choice, label_masks, normal, subset, uniform
from fewshotseg import (
    CosineKMeans,
    GridPartition,
    SelfContrastiveLoss,
    alignment_loss,
    assign_prototypes,
    background_regions,
    background_target,
    correlation,
    cosine_kmeans,
    cosine_logits,
    density_logits,
    expand_prototypes,
    gram_distance,
    local_prototypes,
    masked_average_pool,
    prior_mask,
    sample_centroids,
    segmentation_loss,
    self_contrastive_pairs,
    self_support_masks,
    vote_shots,
)
from fewshotseg.ops import foreground_weights, resize_bilinear, sample_nearest


class Case(NamedTuple):
    """An operation and tensors for it; ``call(*tensors)``, with a generator too where it draws."""

    name: str
    call: Callable[..., object]
    tensors: tuple[Tensor, ...]
    draws: bool = False


def compare(features: Tensor, prototype_map: Tensor) -> Tensor:
    score = (features * prototype_map).sum(dim=1)
    return torch.stack([-score, score], dim=1)


def as_tensors(result: object) -> list[Tensor]:
    """The tensors of a result, be it one or a named tuple of several."""
    return [result] if isinstance(result, Tensor) else list(result) if isinstance(result, Iterable) else []


loss = SelfContrastiveLoss(3, num_iters=3)
features, labels, masks = normal(2, 6, 5, 4), choice(range(3), 2, 5, 4), label_masks(2, 17, 13)
LEARNABLE = (features, normal(2, 3, 6, seed=1), normal(2, 3, seed=2))

CASES = [
    Case("masked_average_pool", masked_average_pool, (features, uniform(2, 5, 4))),
    Case("masked_average_pool, several", masked_average_pool, (features, subset(2, 3, 5, 4))),
    Case("masked_average_pool, masks resized", lambda *t: masked_average_pool(*t, resize="masks"), (features, masks)),
    Case(
        "masked_average_pool, features resized",
        lambda *t: masked_average_pool(*t, resize="features"),
        (features, uniform(2, 2, 17, 13)),
    ),
    Case(
        "sample_centroids",
        lambda points, valid, generator=None: sample_centroids(points, 3, valid=valid, generator=generator),
        (normal(2, 20, 6), subset(2, 20)),
        draws=True,
    ),
    Case("cosine_kmeans", lambda *t: cosine_kmeans(*t, num_iters=3), (normal(2, 20, 6), normal(2, 3, 6, seed=1))),
    Case(
        "cosine_kmeans, valid",
        lambda points, init, valid: cosine_kmeans(points, init, valid=valid, num_iters=3),
        (normal(2, 20, 6), normal(2, 3, 6, seed=1), subset(2, 20)),
    ),
    Case("cosine_logits", cosine_logits, (features, normal(2, 3, 6, seed=1))),
    Case("cosine_logits, several", cosine_logits, (features, normal(2, 3, 4, 6, seed=1))),
    Case("cosine_logits, learnable", lambda f, p, s: cosine_logits(f, p, scale=s[0], bias=s[1, 0]), LEARNABLE),
    Case("density_logits", density_logits, (features, normal(2, 9, 6, seed=1), subset(2, 9), uniform(2, 9))),
    Case("background_regions", lambda *t: background_regions(*t, 3), (labels, label_masks(2, 5, 4))),
    Case("expand_prototypes", lambda p: expand_prototypes(p, (5, 4)), (normal(2, 6),)),
    Case("assign_prototypes", assign_prototypes, (normal(2, 3, 6), labels)),
    Case("assign_prototypes, large maps", assign_prototypes, (normal(2, 3, 6), choice([0, 1, 2], 2, 60, 50))),
    Case("prior_mask", prior_mask, (features, normal(2, 2, 6, 3, 7, seed=1), label_masks(2, 2, 9, 13))),
    Case("prior_mask, weights", prior_mask, (features, normal(2, 2, 6, 3, 7, seed=1), uniform(2, 2, 9, 13))),
    Case(
        "correlation",
        lambda f, q, s, r, m: correlation([f, q, f], [s, r, s], m),
        (features, normal(2, 3, 2, 3), normal(2, 6, 3, 2, seed=1), normal(2, 3, 2, 2, seed=2), masks),
    ),
    Case("self_support_masks", self_support_masks, (normal(2, 2, 5, 4),)),
    Case("local_prototypes", local_prototypes, (features, subset(2, 5, 4))),
    Case("vote_shots", vote_shots, (choice([0, 1], 2, 3, 5, 4),)),
    Case("gram_distance", gram_distance, (features, normal(2, 3, 6, 4, 3, seed=1))),
    Case("resize_bilinear", lambda maps: resize_bilinear(maps, (9, 3)), (features,)),
    Case("sample_nearest", lambda m: sample_nearest(m, (5, 4)), (masks,)),
    Case("foreground_weights", lambda m: foreground_weights(m, (5, 4)), (masks,)),
    Case(
        "CosineKMeans",
        lambda f, valid, generator=None: CosineKMeans(3, num_iters=3)(f, valid=valid, generator=generator),
        (features, subset(2, 5, 4)),
        draws=True,
    ),
    Case("GridPartition", GridPartition(2), (features,)),
    Case(
        "self_contrastive_pairs",
        lambda f, c, m, generator=None: self_contrastive_pairs(
            f, c, m, partition=CosineKMeans(3, num_iters=3), generator=generator
        ),
        (features, normal(2, 8, 3, 3, seed=1), masks),
        draws=True,
    ),
    Case(
        "SelfContrastiveLoss",
        lambda f, c, m, generator=None: loss(f, c, m, compare, generator=generator),
        (features, normal(2, 8, 3, 3, seed=1), masks),
        draws=True,
    ),
    Case(
        "SelfContrastiveLoss, several logits",
        lambda f, c, m, generator=None: loss(
            f, c, m, lambda *maps: (compare(*maps), compare(*maps)[..., ::2, ::2]), generator=generator
        ),
        (features, normal(2, 8, 3, 3, seed=1), masks),
        draws=True,
    ),
    Case(
        "alignment_loss",
        alignment_loss,
        (features, normal(2, 2, 5, 4, seed=1), normal(2, 3, 6, 4, 3, seed=2), label_masks(2, 3, 9, 7)),
    ),
    Case("background_target", background_target, (masks,)),
    Case("segmentation_loss", segmentation_loss, (normal(2, 2, 5, 4), masks)),
    Case("segmentation_loss, void", segmentation_loss, (normal(2, 2, 5, 4), torch.full_like(masks, 255))),
]
