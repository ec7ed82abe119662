"""SCNet: two branches that share one comparison head. Wiring only; the parts live in ops, losses and comparison."""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_labels, check_sizes, check_tensor
from fewshotseg.losses import Partition, background_target, segmentation_loss, self_contrastive_pairs
from fewshotseg.models.backbones import Backbone
from fewshotseg.models.comparison import Comparison, ComparisonHead
from fewshotseg.models.encodings import Query, SCNetOutput, Support, check_images, merged
from fewshotseg.models.fast.backbone import FrozenBackbone
from fewshotseg.models.fast.conv3x3 import trains_channels_last
from fewshotseg.models.fast.feature_memory import FeatureMemory
from fewshotseg.ops import (
    expand_prototypes,
    foreground_weights,
    masked_average_pool,
    prior_mask,
    resize_bilinear,
)

PROTOTYPE_EPS = 5e-4
"""PFENet adds this to the area of a support mask."""


class SCNet(nn.Module):
    """PFENet with a class-agnostic branch that learns from the query's own background.

    `build_scnet` makes one from names and numbers. The backbone is frozen: its parameters need no gradient and its
    norm statistics stay as they are, whatever ``train()`` is called on. Setting ``memory`` to a `FeatureMemory` keeps
    its features for images that come again.

    Args:
        backbone: Gives mid-level and high-level features.
        reduce_query: From the backbone's mid-level maps to C channels, for queries.
        reduce_support: The same for supports.
        head: Compares, for both branches.
        partition: Cuts queries into regions; None trains without the class-agnostic branch, which is PFENet.
        self_contrast_weight: Lambda of Eq. 9; 0 is PFENet.
        aux_weight: Weight of deep supervision within each branch.
        norm_stats: ``"batch"`` lets the backbone's norms use and update batch statistics in training, as PFENet does.
        background_source: Where background prototypes come from, the query or the support (Table 4).
        background_reducer: Which reducer's features background prototypes are pooled from.
        background_prior: The prior channel of the class-agnostic branch: zeros, the supports' prior, or 1 minus it.
    """

    def __init__(
        self,
        backbone: Backbone,
        reduce_query: nn.Module,
        reduce_support: nn.Module,
        head: ComparisonHead,
        partition: Partition | None,
        *,
        self_contrast_weight: float = 0.5,
        aux_weight: float = 1.0,
        norm_stats: Literal["frozen", "batch"] = "frozen",
        background_source: Literal["query", "support"] = "query",
        background_reducer: Literal["query", "support"] = "query",
        background_prior: Literal["zeros", "shared", "complement"] = "zeros",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reduce_query = reduce_query
        self.reduce_support = reduce_support
        self.head = head
        self.partition = partition
        self.self_contrast_weight = self_contrast_weight
        self.aux_weight = aux_weight
        self.norm_stats = norm_stats
        self.background_source = background_source
        self.background_reducer = background_reducer
        self.background_prior = background_prior
        self.memory: FeatureMemory | None = None
        self.backbone.requires_grad_(False)
        self.train(self.training)

    @property
    def _frozen(self) -> FrozenBackbone:
        return FrozenBackbone(self.backbone, self.memory, self.training and self.norm_stats == "batch")

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.train(mode and self.norm_stats == "batch")
        return self

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
        """Segment the queries of a batch of episodes; with their masks, say how wrong that is (Eq. 9).

        Args:
            support_images: ``(B, S, 3, H, W)`` normalised images, sides from 32 pixels up.
            support_masks: ``(B, S, H, W)`` label masks. One without foreground gives a zero prototype and prior.
            query_images: ``(B, 3, H', W')`` normalised images; their size may differ from the supports'.
            query_masks: ``(B, H'', W'')`` label masks, for the loss; of any size, best the images' own.
            generator: For the random choices of the class-agnostic branch; torch's default generator otherwise.

        Returns:
            Logits, which only depend on the class-specific branch, and the loss and its parts where masks were given.

        Raises:
            ValueError: If a shape does not fit or a side is below 32 pixels.
            TypeError: If images are not floating point, or query masks hold neither integers nor bools.
        """
        check_tensor("query_images", query_images, "B 3 H W")
        check_images("query_images", query_images)
        # The query first: PFENet's order of norm updates in its training mode.
        if query_masks is None:
            query = self.encode_query(query_images)
            return SCNetOutput(self.segment(self.encode_support(support_images, support_masks), query))

        check_tensor("query_masks", query_masks, "B H W")
        check_labels("query_masks", query_masks)
        check_sizes("query_masks", query_masks, "B", query_images, "query_images")
        check_tensor("support images", support_images, "B S 3 H W")
        check_sizes("support images", support_images, "B", query_images, "query_images")
        maps, deepest = self._frozen.mid(query_images)
        query = self._query(maps, deepest, query_images)
        support = self.encode_support(support_images, support_masks)
        prototypes, prior = self._class_specific(support, query)
        if self.partition is None or self.self_contrast_weight == 0:
            specific = self.head(query.features, prototypes, prior, with_aux=True)
            loss, losses = self._branch_loss(specific, query_masks)
        else:
            pooled_from = query.features if self.background_reducer == "query" else self.reduce_support(maps)
            background, target = self._class_agnostic(
                support, query, pooled_from, query_masks, self.partition, generator
            )
            specific, agnostic = self._compare_both(query, prototypes, prior, background)
            loss, losses = self._branch_loss(specific, query_masks)
            agnostic_loss, agnostic_losses = self._branch_loss(agnostic, target)
            loss = (1 - self.self_contrast_weight) * loss + self.self_contrast_weight * agnostic_loss
            losses.update({f"self_contrast_{name}": value for name, value in agnostic_losses.items()})
        return SCNetOutput(resize_bilinear(specific.logits, query.size), loss, losses)

    def encode_support(self, images: Tensor, masks: Tensor) -> Support:
        """Encode annotated examples once, for any number of queries.

        Args:
            images: ``(B, S, 3, H, W)`` normalised images, sides from 32 pixels up.
            masks: ``(B, S, H, W)`` label masks: 1 foreground, 0 background, 255 void.

        Returns:
            Prototypes averaged over the shots, and what the prior needs of each shot.

        Raises:
            ValueError: If a shape does not fit, there is no shot, or a side is below 32 pixels.
            TypeError: If images are not floating point.
        """
        check_tensor("support images", images, "B S 3 H W")
        check_tensor("support masks", masks, "B S H W")
        check_sizes("support masks", masks, "B S H W", images, "support images", "B S 3 H W")
        check_images("support images", images)
        if images.shape[1] == 0:
            raise ValueError(f"support images must hold at least one shot, got shape {tuple(images.shape)}")

        # Shot by shot: bounded memory for many shots, and PFENet's order of norm updates in its training mode.
        pairs = zip(images.unbind(1), masks.unbind(1), strict=True)
        shots = (self._shot(*self._mid_of_support(image, mask), mask) for image, mask in pairs)
        return merged(shots, images.shape[1])

    @staticmethod
    def merge_shots(shots: Sequence[Support]) -> Support:
        """Make one support of several that were encoded apart.

        Args:
            shots: Supports of one shot each, from `encode_support`.

        Returns:
            What `encode_support` gives for all of them together.

        Raises:
            ValueError: If there is no shot.
        """
        if not shots:
            raise ValueError("shots must hold at least one support, got none")
        return merged(shots, len(shots))

    def encode_query(self, images: Tensor) -> Query:
        """Encode images to segment once, for any number of supports.

        Args:
            images: ``(B, 3, H, W)`` normalised images, sides from 32 pixels up.

        Raises:
            ValueError: If a shape does not fit or a side is below 32 pixels.
            TypeError: If images are not floating point.
        """
        check_tensor("query images", images, "B 3 H W")
        check_images("query images", images)
        return self._query(*self._frozen.mid(images), images)

    def encode_both(self, images: Tensor, masks: Tensor) -> tuple[Support, Query]:
        """Encode annotated images as supports of one shot each and as queries, sharing what the two have in common.

        Args:
            images: ``(B, 3, H, W)`` normalised images, sides from 32 pixels up.
            masks: ``(B, H, W)`` label masks: 1 foreground, 0 background, 255 void.

        Returns:
            What `encode_support` and `encode_query` give.

        Raises:
            ValueError: If a shape does not fit or a side is below 32 pixels.
            TypeError: If images are not floating point.
        """
        check_tensor("images", images, "B 3 H W")
        check_tensor("masks", masks, "B H W")
        check_sizes("masks", masks, "B H W", images, "images", "B 3 H W")
        check_images("images", images)
        maps, deepest = self._frozen.mid(images)
        return self._shot(maps, deepest, masks), self._query(maps, deepest, images)

    def segment(self, support: Support, query: Query) -> Tensor:
        """Segment encoded queries by encoded supports; nothing of the class-agnostic branch runs.

        Args:
            support: From `encode_support`; with batch 1 it serves every query of the batch.
            query: From `encode_query`.

        Returns:
            ``(B, 2, H, W)`` logits at the queries' size, channel 1 foreground.

        Raises:
            ValueError: If the batches do not fit.
        """
        batch = query.features.shape[0]
        if support.prototype.shape[0] not in (1, batch):
            raise ValueError(f"support must have batch 1 or the query's, {batch}, got {support.prototype.shape[0]}")
        parts = (support.prototype, support.high, support.weights)
        support = Support(*(part.expand(batch, *part.shape[1:]) for part in parts))
        prototypes, prior = self._class_specific(support, query)
        return resize_bilinear(self.head(query.features, prototypes, prior).logits, query.size)

    def _class_specific(self, support: Support, query: Query) -> tuple[Tensor, Tensor]:
        """What the first branch compares the query with: E^s of the prototype (Eq. 2), and the prior.

        One cell of E^s is enough: the head takes it for all.
        """
        size = (query.features.shape[2], query.features.shape[3])
        prior = prior_mask(query.high, support.high, support.weights)
        prior = resize_bilinear(prior, size).to(query.features.dtype)
        return expand_prototypes(support.prototype, (1, 1)), prior

    def _class_agnostic(
        self,
        support: Support,
        query: Query,
        pooled_from: Tensor,
        query_masks: Tensor,
        partition: Partition,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """What the second branch compares the query with, E^q of background prototypes (Eq. 7), and its target."""
        if support.background is not None:
            return expand_prototypes(support.background, (1, 1)), background_target(query_masks)
        pairs = self_contrastive_pairs(pooled_from, query.high, query_masks, partition=partition, generator=generator)
        return pairs.prototype_map, pairs.target

    def _compare_both(
        self, query: Query, prototypes: Tensor, prior: Tensor, background: Tensor
    ) -> tuple[Comparison, Comparison]:
        """Both branches through the head.

        In one pass in training; apart in evaluation, where logits must not depend on the second branch by one bit.
        """
        if self.background_prior == "zeros":
            background_prior = torch.zeros_like(prior)
        else:
            background_prior = prior if self.background_prior == "shared" else 1 - prior
        if not self.training:
            return (
                self.head(query.features, prototypes, prior, with_aux=True),
                self.head(query.features, background, background_prior, with_aux=True),
            )
        both = self.head(
            torch.cat([query.features, query.features]),
            torch.cat([prototypes.expand_as(background), background]),
            torch.cat([prior, background_prior]),
            with_aux=True,
        )
        specific, agnostic = zip(*(logits.chunk(2) for logits in (both.logits, *both.aux)), strict=True)
        return Comparison(specific[0], specific[1:]), Comparison(agnostic[0], agnostic[1:])

    def _branch_loss(self, comparison: Comparison, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        main = segmentation_loss(comparison.logits, target)
        aux = torch.stack([segmentation_loss(logits, target) for logits in comparison.aux]).mean()
        return main + self.aux_weight * aux, {"main": main, "aux": aux}

    def _query(self, maps: Tensor, deepest: Tensor, images: Tensor) -> Query:
        features = self.reduce_query(maps)
        if features.requires_grad and not trains_channels_last(features):
            features = features.contiguous()  # on a CPU convolutions run backwards slowly where channels are last
        return Query(features, self._frozen.high(deepest), (images.shape[2], images.shape[3]))

    def _mid_of_support(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        if self.background_source == "support":
            return self._frozen.mid(images)
        return self._frozen.mid_around(images, masks)

    def _shot(self, maps: Tensor, deepest: Tensor, masks: Tensor) -> Support:
        size = (deepest.shape[2], deepest.shape[3])
        foreground = foreground_weights(masks, size)
        regions = torch.stack([foreground, foreground_weights(masks == 0, size)], dim=1)
        pooled = masked_average_pool(self.reduce_support(maps), regions, eps=PROTOTYPE_EPS)
        high = self._frozen.high_of_masked(deepest, foreground)
        weights = foreground_weights(masks, (high.shape[2], high.shape[3]))
        background = pooled[:, 1] if self.background_source == "support" else None
        return Support(pooled[:, 0], high[:, None], weights[:, None], background)
