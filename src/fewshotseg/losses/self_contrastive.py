"""SCNet's self-contrastive loss: compares a query with prototypes of its own background (Sec. 3.3)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_number, check_sizes, check_void
from fewshotseg.losses.pairs import SelfContrastivePairs, self_contrastive_pairs
from fewshotseg.ops import CosineKMeans, Partition, sample_nearest
from fewshotseg.ops._cross_entropy import cross_entropies
from fewshotseg.ops._values import all_finite, check_logits
from fewshotseg.ops.kmeans import MAX_CLUSTERS
from fewshotseg.ops.partition import check_partition


class SelfContrastiveLoss(nn.Module):
    """The loss of SCNet's class-agnostic branch (L2 of Eq. 9), for any model that compares features with a prototype.

    It has no parameters. Add it to a model's own loss during training:

    ```python
    loss = (1 - weight) * loss + weight * self_contrastive(features, high_level_features, query_masks, compare)
    ```

    Args:
        num_prototypes: Number of regions that k-means splits a query into, n in the paper.
        num_iters: Rounds of k-means.
        partition: Splits a query into regions in another way; ``num_prototypes`` and ``num_iters`` are then ignored.
        aux_weight: Weight of auxiliary logits (deep supervision), if ``compare`` returns several: the loss is that of
            the first plus this times the mean of the others. PFENet uses 1.
        ignore_index: The label of void, neither 0 nor 1.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> import torch
        >>> self_contrastive = SelfContrastiveLoss(num_prototypes=3)
        >>> features = torch.rand(2, 16, 9, 9, requires_grad=True)
        >>> def compare(features, prototype_map):
        ...     similarity = torch.cosine_similarity(features, prototype_map, dim=1)
        ...     return 10 * torch.stack([0.5 - similarity, similarity - 0.5], dim=1)
        >>> loss = self_contrastive(features, features, torch.randint(0, 2, (2, 65, 65)), compare)
        >>> loss.backward()
    """

    def __init__(
        self,
        num_prototypes: int = 3,
        *,
        num_iters: int = 10,
        partition: Partition | None = None,
        aux_weight: float = 1.0,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if partition is None:
            check_at_least("num_prototypes", num_prototypes, 1, MAX_CLUSTERS)
            partition = CosineKMeans(num_prototypes, num_iters=num_iters)
        check_partition(partition)
        self.partition = partition
        self.aux_weight = check_number("aux_weight", aux_weight, 0)
        self.ignore_index = check_void("ignore_index", ignore_index)

    def pairs(
        self,
        features: Tensor,
        cluster_features: Tensor,
        query_masks: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> SelfContrastivePairs:
        """Compute `self_contrastive_pairs` with the partition and void label of this loss."""
        return self_contrastive_pairs(
            features,
            cluster_features,
            query_masks,
            partition=self.partition,
            generator=generator,
            ignore_index=self.ignore_index,
        )

    @override
    def forward(
        self,
        features: Tensor,
        cluster_features: Tensor,
        query_masks: Tensor,
        compare: Callable[[Tensor, Tensor], Tensor | Sequence[Tensor]],
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the cross entropy of comparing the query with prototypes of its own background.

        Args:
            features: ``(B, C, h, w)`` query features in the space of the model's prototypes; gradients flow through
                them. NaN and infinity under void count as 0.
            cluster_features: ``(B, C', h', w')`` features to find regions in, best high-level ones; no gradient.
            query_masks: ``(B, H, W)`` label masks of the query.
            compare: The model's comparison head. ``compare(features, prototype_map)`` takes two ``(B, C, h, w)`` maps
                and returns logits ``(B, 2, h', w')`` of any size, channel 1 for "matches the prototype"; or a tuple or
                list of such logits, first the main ones, then auxiliary ones.
            generator: Source of the random numbers for the partition and the drawn prototype; by default torch's.

        Returns:
            The cross entropy with ``1 - M``, a scalar; 0 if no image has background. See `self_contrastive_pairs`.

        Raises:
            ValueError: If a shape or a device does not fit, or masks on a CPU hold other labels than 0, 1 and void.
            TypeError: If features are not floating point, masks hold neither integers nor bools, or another argument,
                or what ``compare`` returns, is of a wrong type.
        """
        if not callable(compare):
            raise TypeError(f"compare must be a function of features and a prototype map, got {type(compare).__name__}")
        pairs = self.pairs(features, cluster_features, query_masks, generator=generator)
        answer = compare(_without_void(features, query_masks, self.ignore_index), pairs.prototype_map)
        logits = _all_logits(answer, like=features)
        losses = cross_entropies(logits, pairs.target[None], self.ignore_index)[:, 0]
        return losses[0] + self.aux_weight * losses[1:].mean() if len(losses) > 1 else losses[0]


def _all_logits(answer: Any, *, like: Tensor) -> list[Tensor]:
    """Check what ``compare`` returned, and make it a list of one or more logits."""
    name = "what compare returns"
    if not isinstance(answer, tuple | list):
        named = [(name, answer)]
    elif not answer:
        raise ValueError(f"{name} must be logits (B, 2, h, w) or a tuple of one or more, got an empty one")
    else:
        named = [(f"number {number} of {name}", logits) for number, logits in enumerate(answer)]
    for each, logits in named:
        check_logits(each, logits)
        check_sizes(each, logits, "B", like, "features")
    return [logits for _, logits in named]


def _without_void(features: Tensor, query_masks: Tensor, ignore_index: int) -> Tensor:
    """Set features under void to 0 if they are not finite, as they would make gradients NaN despite their weight 0."""
    if all_finite(features):
        return features
    masks = sample_nearest(query_masks.long(), (features.shape[2], features.shape[3]))  # B h w
    return features.masked_fill((masks == ignore_index)[:, None] & ~features.isfinite(), 0)
