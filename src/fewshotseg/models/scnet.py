"""SCNet: two branches that share one comparison head; the parts are in ops, losses and comparison."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg._checks import check_generator, check_tensor
from fewshotseg.losses import SelfContrastiveLoss, SelfContrastivePairs, background_target, segmentation_loss
from fewshotseg.models.backbones import AnyBackbone, image_statistics
from fewshotseg.models.comparison import Comparison, ComparisonHead
from fewshotseg.models.config import SCNetConfig
from fewshotseg.models.encodings import (
    Query,
    SCNetOutput,
    Support,
    check_annotated,
    check_batch,
    check_episodes,
    check_images,
    merged,
    repeated,
    shot_by_shot,
)
from fewshotseg.models.fast.conv3x3 import layout_for_training
from fewshotseg.models.frozen import FrozenBackbone
from fewshotseg.models.frozen_model import FrozenBackboneModel
from fewshotseg.models.parts import branch_losses, reducer, self_contrast_of
from fewshotseg.models.point_map import PointMap, point_channels
from fewshotseg.models.points import points_of
from fewshotseg.models.presence import found_again
from fewshotseg.ops import (
    density_logits,
    expand_prototypes,
    foreground_weights,
    masked_average_pool,
    prior_mask,
    resize_bilinear,
)

PROTOTYPE_EPS = 5e-4
"""PFENet adds this to the area of a support mask."""

MISSING = "support and query must be encoded by a model with the settings of this one, got them without "


class SCNet(FrozenBackboneModel):
    """PFENet with a class-agnostic branch that learns from the query's own background.

    `build_scnet` builds one by name. The backbone is frozen: it gets no gradient and keeps its norm statistics.

    Args:
        backbone: A module that follows `Backbone` or `WholeBackbone`.
        config: All other settings; by default the paper's.

    Attributes:
        config: The settings, completed by the backbone's ``mean`` and ``std`` if they were None.
        memory: Set it to a `FeatureMemory` to cache the backbone's features for images that come again.
        fast: The faster form of the backbone, set by `fuse`; None runs the backbone itself.

    Raises:
        TypeError: If the backbone follows neither protocol.
    """

    def __init__(self, backbone: AnyBackbone, config: SCNetConfig | None = None) -> None:
        super().__init__(backbone)
        config = config or SCNetConfig()
        statistics = image_statistics(backbone)
        self.config = replace(config, mean=config.mean or statistics["mean"], std=config.std or statistics["std"])
        self.reduce_query = reducer(backbone.mid_channels, config)
        self.reduce_support = reducer(backbone.mid_channels, config)
        self.head = ComparisonHead(config.hidden_channels, config.bins, dropout=config.classifier_dropout)
        self.self_contrast = self_contrast_of(config)
        self.point_map = PointMap(point_channels(backbone)) if config.learned_points else None
        self.train(self.training)

    if TYPE_CHECKING:  # a module's call has no types; `__call__ = forward` would not give it any

        def __call__(
            self,
            support_images: Tensor,
            support_masks: Tensor,
            query_images: Tensor,
            query_masks: Tensor | None = None,
            *,
            generator: torch.Generator | None = None,
        ) -> SCNetOutput:
            """As `forward`."""

    @property
    @override
    def trains_norms(self) -> bool:
        return self.config.norm_stats == "batch"

    @override
    def forward(
        self,
        support_images: Tensor,
        support_masks: Tensor,
        query_images: Tensor,
        query_masks: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> SCNetOutput:
        """Segment the queries of a batch of episodes; with query masks, compute the loss too (Eq. 9).

        Args:
            support_images: ``(B, S, 3, H, W)`` normalised images, with sides of at least 32 pixels.
            support_masks: ``(B, S, H, W)`` label masks. One without foreground gives a zero prototype and prior.
            query_images: ``(B, 3, H', W')`` normalised images; their size may differ from the supports'.
            query_masks: ``(B, H'', W'')`` label masks for the loss, of any size, best that of the images.
            generator: Source of the random numbers of the class-agnostic branch; by default torch's.

        Returns:
            Logits, which depend on the class-specific branch only, and with query masks the loss and its parts.

        Raises:
            ValueError: If a shape does not fit or a side is below 32 pixels.
            TypeError: If images are not floating point, or query masks hold neither integers nor bools.
        """
        check_episodes(support_images, query_images, query_masks)
        check_generator(generator)
        # The query first: PFENet's order of norm updates in its training mode.
        query = self.encode_query(query_images, for_loss=query_masks is not None)
        support = self.encode_support(support_images, support_masks)
        if query_masks is None:
            return SCNetOutput(self.segment(support, query))
        prototypes, prior = self._class_specific(support, query)
        if self.self_contrast is None:
            answer, targets = self.head(query.features, prototypes, prior, with_aux=True), [query_masks]
        else:
            background, target = self._class_agnostic(self.self_contrast, support, query, query_masks, generator)
            answer, targets = self._compare_both(query, prototypes, prior, background), [query_masks, target]
        main, aux = branch_losses(answer, targets)  # one number for each branch
        branches = main + self.config.aux_weight * aux
        losses = {"main": main[0], "aux": aux[0]}
        loss = branches[0]
        if self.self_contrast is not None:
            weight = self.config.self_contrast_weight
            loss = (1 - weight) * branches[0] + weight * branches[1]
            losses |= {"self_contrast_main": main[1], "self_contrast_aux": aux[1]}
        if self.point_map is not None:
            losses["points"] = segmentation_loss(two_logits(self._ratio(support, query, self.point_map)), query_masks)
            loss = loss + losses["points"]
            if self.training and query.deepest is not None:
                self.point_map.remember(query.deepest, query_masks, generator)
        specific = answer.logits[: len(query_masks)]
        return SCNetOutput(resize_bilinear(specific, query.size), loss, losses)

    def encode_support(self, images: Tensor, masks: Tensor) -> Support:
        """Encode annotated examples once, for any number of queries.

        Args:
            images: ``(B, S, 3, H, W)`` normalised images, sides from 32 pixels up.
            masks: ``(B, S, H, W)`` label masks: 1 foreground, 0 background, 255 void.

        Returns:
            The prototypes, averaged over the shots, and what the prior compares: the high-level features of each shot,
            or its points.

        Raises:
            ValueError: If a shape does not fit, there is no shot, or a side is below 32 pixels.
            TypeError: If images are not floating point.
        """
        check_annotated(images, masks, kind="support ", axes="B S")
        check_images("support images", images, self._weight)
        frozen = self._frozen

        # One shot at a time with batch statistics: PFENet's order of norm updates.
        def encode(image: Tensor, mask: Tensor) -> Support:
            # Features around the masks only are not enough if the background is used too.
            around = self.config.background_source == "query" and not self.compares_points
            return self._shot(frozen, *(frozen.mid_around(image, mask) if around else frozen.mid(image)), mask)

        return shot_by_shot(encode, images, masks, at_once=not (self.training and self.config.norm_stats == "batch"))

    @staticmethod
    def merge_shots(shots: Sequence[Support]) -> Support:
        """Merge supports of one shot each into one; equal to `encode_support` of all shots together.

        Raises:
            ValueError: If there is no shot.
        """
        if not shots:
            raise ValueError("shots must hold at least one support, got none")
        return merged(shots, len(shots))

    def encode_query(self, images: Tensor, *, for_loss: bool = False) -> Query:
        """Encode images to segment once, for any number of supports. Raises as `encode_support` does.

        Args:
            images: ``(B, 3, H, W)`` normalised images, sides from 32 pixels up.
            for_loss: Keep what only a training step needs: the mid-level maps, for ``background_reducer="support"``,
                and with ``prior="density"`` the high-level features, for k-means.
        """
        check_tensor("query images", images, "B 3 H W")
        check_images("query images", images, self._weight)
        frozen = self._frozen
        return self._query(frozen, *frozen.mid(images), images, for_loss=for_loss)

    def encode_both(self, images: Tensor, masks: Tensor) -> tuple[Support, Query]:
        """Encode annotated images as supports of one shot each and as queries; the first step runs once for both.

        Args:
            images: ``(B, 3, H, W)`` normalised images, sides from 32 pixels up.
            masks: ``(B, H, W)`` label masks: 1 foreground, 0 background, 255 void.

        Returns:
            The results of `encode_support` and `encode_query`, with the same errors.
        """
        check_annotated(images, masks)
        check_images("images", images, self._weight)
        frozen = self._frozen
        maps, deepest = frozen.mid(images)
        return self._shot(frozen, maps, deepest, masks), self._query(frozen, maps, deepest, images)

    def segment(self, support: Support, query: Query) -> Tensor:
        """Segment encoded queries with encoded supports; the class-agnostic branch does not run.

        Args:
            support: From `encode_support`; with batch 1 it is used for every query of the batch.
            query: From `encode_query`.

        Returns:
            ``(B, 2, H, W)`` logits at the queries' size, channel 1 foreground.
        """
        batch = query.features.shape[0]
        check_batch(support.prototype, batch)
        support = repeated(support, batch)
        density = self._ratio(support, query) if self.config.prior == "density" else None  # B 1 h w
        prototypes, prior = self._class_specific(support, query, density)
        logits = self.head(query.features, prototypes, prior).logits
        if self.config.density_weight:
            if density is None or self.point_map is not None:
                density = self._ratio(support, query, self.point_map)
            logits = logits + two_logits(self.config.density_weight * density).to(logits.dtype)
        return resize_bilinear(logits, query.size)

    def presence_evidence(self, support: Support, query: Query) -> Tensor | None:
        """Compute the numbers ``(B,)`` that the presence score is computed from; see `found_again`.

        They say better than the logits whether an image shows the object at all, as the comparison head finds whatever
        is most like the object. None if the model compares no points; the score is then computed from the logits.

        Args:
            support: From `encode_support`; with batch 1 it is used for every query of the batch.
            query: From `encode_query`.
        """
        support = repeated(support, query.features.shape[0])
        if support.points is None or support.point_foreground is None or query.deepest is None:
            return None
        return found_again(query.deepest, support.points, support.point_foreground)

    @property
    def compares_points(self) -> bool:
        """Whether the model uses densities, so that queries are compared with all points of the supports too."""
        return self.config.density_weight > 0 or self.config.prior == "density" or self.point_map is not None

    @property
    def _weight(self) -> Tensor:
        """A parameter, whose device and dtype images must have."""
        return next(self.reduce_query.parameters())

    def _query(
        self, frozen: FrozenBackbone, maps: Tensor, deepest: Tensor, images: Tensor, *, for_loss: bool = False
    ) -> Query:
        features = layout_for_training(self.reduce_query(maps))  # B C h w
        high = frozen.high(deepest) if for_loss or self.config.prior != "density" else None
        size = (images.shape[2], images.shape[3])
        seen = deepest if self.compares_points else None
        return Query(features, high, size, maps if for_loss else None, seen)

    def _shot(self, frozen: FrozenBackbone, maps: Tensor, deepest: Tensor, masks: Tensor) -> Support:
        size = (maps.shape[2], maps.shape[3])
        foreground = foreground_weights(masks, size)  # B h w
        features = self.reduce_support(maps)  # B C h w
        prototype = masked_average_pool(features, foreground, eps=PROTOTYPE_EPS)  # B C
        high = None if self.config.prior == "density" else frozen.high_of_masked(deepest, foreground)
        weights = foreground if high is None else foreground_weights(masks, (high.shape[2], high.shape[3]))
        background = None
        if self.config.background_source == "support":
            background = masked_average_pool(features, foreground_weights(masks == 0, size), eps=PROTOTYPE_EPS)
        points = points_of(deepest, masks, 1) if self.compares_points else ()
        return Support(prototype, None if high is None else high[:, None], weights[:, None], background, *points)

    def _ratio(self, support: Support, query: Query, point_map: PointMap | None = None) -> Tensor:
        """Compute the log-density of the supports' foreground minus that of their background: ``(B, 1, h, w)``."""
        points, *sides = support.points, support.point_foreground, support.point_background
        if points is None or query.deepest is None:
            raise ValueError(
                f"{MISSING}points, which prior='density', density_weight and learned_points need; encode both anew"
            )
        shares = (side.flatten(1, 2) for side in sides if side is not None)
        if point_map is None:
            densities = density_logits(query.deepest, points.flatten(1, 2), *shares)
            ratio = densities[:, 1:] - densities[:, :1]
        else:
            ratio = point_map(query.deepest, points.flatten(1, 2), *shares)
        return ratio

    def _class_specific(self, support: Support, query: Query, density: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the inputs of the class-specific branch: E^s (Eq. 2), constant and so as a 1x1 map, and the prior.

        ``density`` is the result of `_ratio` if it is known already.
        """
        size = (query.features.shape[2], query.features.shape[3])
        if self.config.prior == "density":
            prior = torch.sigmoid((self._ratio(support, query) if density is None else density) / 2)
        elif query.high is None or support.high is None:
            raise ValueError(f"{MISSING}high-level features, which prior='similarity' needs; encode both anew")
        else:
            prior = prior_mask(query.high, support.high, support.weights)
        prior = resize_bilinear(prior, size).to(query.features.dtype)
        return expand_prototypes(support.prototype, (1, 1)), prior

    def _class_agnostic(
        self,
        self_contrast: SelfContrastiveLoss,
        support: Support,
        query: Query,
        query_masks: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the map of background prototypes E^q for the class-agnostic branch (Eq. 7), and its target."""
        if support.background is not None:
            return expand_prototypes(support.background, (1, 1)), background_target(query_masks)
        pooled_from = query.features
        if self.config.background_reducer == "support":
            pooled_from = self.reduce_support(query.maps)
        assert query.high is not None  # `forward` keeps it
        pairs: SelfContrastivePairs = self_contrast.pairs(pooled_from, query.high, query_masks, generator=generator)
        return pairs.prototype_map, pairs.target

    def _compare_both(self, query: Query, prototypes: Tensor, prior: Tensor, background: Tensor) -> Comparison:
        """Run the comparison head on both branches, of which the class-specific one comes first in the batch.

        In training that is one pass; in evaluation mode two, which keep the logits of the class-specific branch
        bit-identical to inference.
        """
        choices = {"zeros": torch.zeros_like, "shared": torch.clone, "complement": lambda prior: 1 - prior}
        background_prior = choices[self.config.background_prior](prior)
        if not self.training:
            specific = self.head(query.features, prototypes, prior, with_aux=True)
            agnostic = self.head(query.features, background, background_prior, with_aux=True)
            aux = (torch.cat(scale) for scale in zip(specific.aux, agnostic.aux, strict=True))
            return Comparison(torch.cat([specific.logits, agnostic.logits]), tuple(aux))
        both: Comparison = self.head(
            torch.cat([query.features, query.features]),  # 2B C h w
            torch.cat([prototypes.expand_as(background), background]),
            torch.cat([prior, background_prior]),
            with_aux=True,
        )
        return both


def two_logits(ratio: Tensor) -> Tensor:
    """Make logits of background and foreground ``(B, 2, h, w)`` of their difference ``(B, 1, h, w)``."""
    return torch.cat([torch.zeros_like(ratio), ratio], dim=1)
