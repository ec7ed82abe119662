"""The training-free model: compares features with those of the examples' foreground and background."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg._checks import check_tensor
from fewshotseg._inference import example_weight
from fewshotseg.models.backbones import AnyBackbone, can_be_cut, image_statistics
from fewshotseg.models.encodings import IMAGES_AT_ONCE, check_annotated, check_batch, check_images, repeated
from fewshotseg.models.frozen_model import FrozenBackboneModel
from fewshotseg.models.points import points_of
from fewshotseg.models.prototype_config import FITTED, PrototypeConfig
from fewshotseg.ops import cosine_kmeans, cosine_logits, density_logits, resize_bilinear
from fewshotseg.ops._precision import at_least_float32, is_eager_cpu, without_autocast


class PrototypeSupport(NamedTuple):
    """Annotated examples of one class, encoded by a `PrototypeSegmenter`.

    Attributes:
        points: ``(B, S, N, C)`` of unit length, the features at all N locations of each shot.
        foreground: ``(B, S, N)``, the share of each location's pixels that is foreground.
        background: ``(B, S, N)``, the share that is background; void pixels are neither.
        prototypes: ``(B, P + Q, C)``, P of the foreground, then Q of the background; zero vectors for one without
            points. None for ``score="density"``.
    """

    points: Tensor
    foreground: Tensor
    background: Tensor
    prototypes: Tensor | None = None


class PrototypeQuery(NamedTuple):
    """Images to segment, encoded by a `PrototypeSegmenter`.

    Attributes:
        features: ``(B, C, h, w)``, the map of the backbone that is compared.
        size: Height and width of the images.
    """

    features: Tensor
    size: tuple[int, int]


class PrototypeSegmenter(FrozenBackboneModel):
    r"""A training-free model: a location is foreground if its features are closer to the supports' foreground.

    It has no parameters besides the backbone's. All locations of all shots count, weighted by their masks; shots are
    not averaged, and their order does not matter. With supports without foreground nothing is found; with supports
    without background everything that resembles them at all. `build_prototype_segmenter` builds one by name.

    Args:
        backbone: A module that follows `Backbone` or `WholeBackbone`. Layers after the compared map do not run.
        config: All settings.

    Attributes:
        config: The settings, where None is replaced: the backbone's ``mean`` and ``std``, the map, scale and bias.
        memory: Set it to a `FeatureMemory` to cache the backbone's features for images that come again.
        fast: The faster form of the backbone, set by `fuse`; None runs the backbone itself.

    Raises:
        TypeError: If the backbone follows neither protocol.
    """

    def __init__(self, backbone: AnyBackbone, config: PrototypeConfig | None = None) -> None:
        super().__init__(backbone)
        config = config or PrototypeConfig()
        statistics, (scale, bias) = image_statistics(backbone), FITTED[config.score]
        self.config = replace(
            config,
            features=config.features or ("mid" if can_be_cut(backbone) else "high"),
            scale=scale if config.scale is None else config.scale,
            bias=bias if config.bias is None else config.bias,
            mean=config.mean or statistics["mean"],
            std=config.std or statistics["std"],
        )
        self.train(self.training)

    @override
    def forward(self, support_images: Tensor, support_masks: Tensor, query_images: Tensor) -> Tensor:
        """Segment the queries of a batch of episodes.

        Args:
            support_images: ``(B, S, 3, H, W)`` normalised images, sides from 32 pixels up.
            support_masks: ``(B, S, H, W)`` label masks.
            query_images: ``(B, 3, H', W')`` normalised images; their size may differ from the supports'.

        Returns:
            ``(B, 2, H', W')`` logits, channel 1 foreground.

        Raises:
            ValueError: If a shape does not fit or a side is below 32 pixels.
            TypeError: If images are not floating point.
        """
        return self.segment(self.encode_support(support_images, support_masks), self.encode_query(query_images))

    def encode_support(self, images: Tensor, masks: Tensor) -> PrototypeSupport:
        """Encode annotated examples once, for any number of queries.

        Args:
            images: ``(B, S, 3, H, W)`` normalised images, sides from 32 pixels up.
            masks: ``(B, S, H, W)`` label masks: 1 foreground, 0 background, 255 void.

        Raises:
            ValueError: If a shape does not fit, there is no shot, or a side is below 32 pixels.
            TypeError: If images are not floating point.
        """
        check_annotated(images, masks, kind="support ", axes="B S")
        check_images("support images", images, example_weight(self))
        shots = masks.shape[1]
        together = images.flatten(0, 1)  # BS 3 H W
        # On a CPU images one by one take as long and less memory.
        count = 1 if is_eager_cpu(images) else IMAGES_AT_ONCE
        features = torch.cat([self._features(some) for some in torch.split(together, count)])
        return self._with_prototypes(PrototypeSupport(*points_of(features, masks.flatten(0, 1), shots)))

    def merge_shots(self, shots: Sequence[PrototypeSupport]) -> PrototypeSupport:
        """Merge supports into one; equal to `encode_support` of all shots together.

        Raises:
            ValueError: If there is no shot.
        """
        if not shots:
            raise ValueError("shots must hold at least one support, got none")
        if len(shots) == 1:
            return shots[0]
        points, foreground, background = (torch.cat(part, dim=1) for part in list(zip(*shots, strict=True))[:3])
        return self._with_prototypes(PrototypeSupport(points, foreground, background))

    def encode_query(self, images: Tensor) -> PrototypeQuery:
        """Encode images to segment once, for any number of supports. Raises as `encode_support` does.

        Args:
            images: ``(B, 3, H, W)`` normalised images, sides from 32 pixels up.
        """
        check_tensor("query images", images, "B 3 H W")
        check_images("query images", images, example_weight(self))
        return PrototypeQuery(self._features(images), (images.shape[2], images.shape[3]))

    def encode_both(self, images: Tensor, masks: Tensor) -> tuple[PrototypeSupport, PrototypeQuery]:
        """Encode annotated images as supports of one shot each and as queries: the backbone runs once.

        Args:
            images: ``(B, 3, H, W)`` normalised images, sides from 32 pixels up.
            masks: ``(B, H, W)`` label masks: 1 foreground, 0 background, 255 void.

        Returns:
            The results of `encode_support` and `encode_query`, with the same errors.
        """
        check_annotated(images, masks)
        query = self.encode_query(images)
        return self._with_prototypes(PrototypeSupport(*points_of(query.features, masks, 1))), query

    def segment(self, support: PrototypeSupport, query: PrototypeQuery) -> Tensor:
        """Segment encoded queries with encoded supports.

        Args:
            support: From `encode_support`; with batch 1 it is used for every query of the batch.
            query: From `encode_query`.

        Returns:
            ``(B, 2, H, W)`` logits at the queries' size, channel 1 foreground, in at least float32.

        Raises:
            ValueError: If batches or channels do not fit.
        """
        batch = query.features.shape[0]
        check_batch(support.points, batch)
        background, foreground = self._scores(repeated(support, batch), query.features).unbind(dim=1)
        scale, bias = self.config.scale, self.config.bias
        assert scale is not None
        assert bias is not None
        logits = torch.stack([scale * background, scale * foreground + bias], dim=1)
        return resize_bilinear(logits, query.size)

    def _scores(self, support: PrototypeSupport, features: Tensor) -> Tensor:
        """Score every location against background and foreground, from -1 to 1: ``(B, 2, h, w)``.

        Without background its score is -1; without foreground its score is -2, so that nothing is found.
        """
        if support.prototypes is None:
            points, foreground, background = _of_all_shots(support)
            kappa = self.config.kappa
            return density_logits(features, points, foreground, background, kappa=kappa) / kappa
        sides = torch.split(support.prototypes, [*self._counts], dim=1)
        cosines = [cosine_logits(features, side[:, None], scale=1.0) for side in sides]
        foreground, background = (
            torch.where((side == 0).all(dim=(1, 2))[:, None, None, None], nothing, cosine)
            for side, cosine, nothing in zip(sides, cosines, (-2.0, -1.0), strict=True)
        )
        return torch.cat([background, foreground], dim=1)

    def _features(self, images: Tensor) -> Tensor:
        assert self.config.features is not None
        return self._frozen.one(images, self.config.features)

    def _with_prototypes(self, support: PrototypeSupport) -> PrototypeSupport:
        """Add the prototypes to a support, if the score needs any."""
        if self.config.score == "density":
            return support
        points, *sides = map(at_least_float32, _of_all_shots(support))
        with without_autocast(points):
            if self.config.score == "cosine":
                made = [weights[:, None] @ points for weights in sides]  # B 1 C
            else:
                foreground, background = (_majority(weights) for weights in sides)
                members = foreground, background & ~foreground  # a location that is half of both is foreground
                made = [
                    _clusters(points, valid, count, self.config.kmeans_iters)
                    for valid, count in zip(members, self._counts, strict=True)
                ]
        return support._replace(prototypes=torch.cat(made, dim=1).to(support.points.dtype))

    @property
    def _counts(self) -> tuple[int, int]:
        """The numbers of foreground and background prototypes."""
        several = self.config.score == "kmeans"
        return (self.config.num_prototypes, self.config.num_background_prototypes) if several else (1, 1)


def _of_all_shots(support: PrototypeSupport) -> tuple[Tensor, Tensor, Tensor]:
    """Flatten the shots: points ``(B, M, C)``, and their foreground and background weights ``(B, M)``."""
    return support.points.flatten(1, 2), support.foreground.flatten(1, 2), support.background.flatten(1, 2)


def _majority(weights: Tensor) -> Tensor:
    """Find points with a weight of at least one half, or if there are none, of the largest: ``(B, M)`` bool."""
    return (weights >= weights.amax(dim=1, keepdim=True).clamp(max=0.5)) & (weights > 0)


def _clusters(points: Tensor, valid: Tensor, count: int, num_iters: int) -> Tensor:
    """Cluster the valid points: ``(B, M, C)``, ``(B, M)`` -> centroids ``(B, count, C)``, zeros if none is valid."""
    found = cosine_kmeans(points, _far_apart(points, valid, count), valid=valid, num_iters=num_iters)
    return torch.where(valid.any(dim=1)[:, None, None], found.centroids, 0)


def _far_apart(points: Tensor, valid: Tensor, count: int) -> Tensor:
    """Choose deterministic first centroids: the most typical valid point, then repeatedly the farthest from all chosen.

    ``(B, M, C)`` of unit length, ``(B, M)`` -> ``(B, count, C)``. The order of the points does not matter.
    """
    nearness = points @ (valid[:, None].to(points.dtype) @ points).mT  # B M 1
    chosen, nearest = [], torch.full_like(nearness, -1)
    for number in range(count):
        wanted = nearness if number == 0 else -nearest
        best = torch.where(valid[..., None], wanted, -torch.inf).argmax(dim=1, keepdim=True)  # B 1 1
        chosen.append(points.gather(1, best.expand(-1, -1, points.shape[2])))
        nearest = torch.maximum(nearest, points @ chosen[-1].mT)
    return torch.cat(chosen, dim=1)
