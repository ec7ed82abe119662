"""The self-contrastive loss: a query compared with prototypes of its own background (Sec. 3.2.2 and 3.3)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_floating, check_labels, check_sizes, check_tensor
from fewshotseg.ops import (
    CosineKMeans,
    Partition,
    assign_prototypes,
    background_regions,
    masked_average_pool,
    resize_bilinear,
    sample_nearest,
)
from fewshotseg.ops._precision import at_least_float32, without_autocast
from fewshotseg.ops._random import uniform

__all__ = [
    "Partition",
    "SelfContrastiveLoss",
    "SelfContrastivePairs",
    "background_target",
    "segmentation_loss",
    "self_contrastive_pairs",
]


class SelfContrastivePairs(NamedTuple):
    """What the class-agnostic branch compares, and what it should answer.

    Attributes:
        prototypes: ``(B, K, C)``, the mean feature of each background region; zero for an empty one (Eq. 6).
        valid: ``(B, K)`` bool, which regions are not empty.
        prototype_map: ``(B, C, h, w)``, the prototype that each location is compared with (Eq. 7).
        target: ``(B, H, W)`` int64, ``1 - M`` at the masks' own resolution, void kept.
    """

    prototypes: Tensor
    valid: Tensor
    prototype_map: Tensor
    target: Tensor


def background_target(query_masks: Tensor, *, ignore_index: int = 255) -> Tensor:
    """``1 - M``: 1 where the background is, 0 on the foreground, void stays void.

    Args:
        query_masks: ``(B, H, W)`` label masks.
        ignore_index: The label of void.

    Returns:
        ``(B, H, W)`` int64.

    Example:
        >>> import torch
        >>> background_target(torch.tensor([[[0, 1, 255]]]))
        tensor([[[  1,   0, 255]]])
    """
    return torch.where(query_masks == ignore_index, ignore_index, (query_masks != 1).long())


def self_contrastive_pairs(
    features: Tensor,
    cluster_features: Tensor,
    query_masks: Tensor,
    *,
    partition: Partition,
    generator: torch.Generator | None = None,
    ignore_index: int = 255,
) -> SelfContrastivePairs:
    """Pair every location of a query with a prototype of the query's own background (Eq. 4 to 7).

    The partition cuts the whole query into regions, foreground and void are taken out of each (Eq. 5), and what
    remains is averaged into a prototype (Eq. 6). A background location is paired with the prototype of its region,
    so that it should answer 1; all foreground locations of an image are paired with one prototype, drawn uniformly
    from the image's valid ones, so that they should answer 0 (Eq. 7). A void location is paired like a background one,
    or with the drawn prototype where its region is empty.

    Args:
        features: ``(B, C, h, w)``, what prototypes are pooled from; gradients flow through them.
        cluster_features: ``(B, C', h', w')``, what the partition looks at, in the paper the high-level map; without
            gradient. Their labels are brought to ``h x w`` by nearest sampling with aligned corners.
        query_masks: ``(B, H, W)`` label masks of the query: 1 foreground, 0 background, ``ignore_index`` void. They
            are sampled at the features' positions, corners aligned.
        partition: Cuts the cluster features into regions.
        generator: For the partition's start and the drawn prototype; torch's default generator otherwise.
        ignore_index: The label of void.

    Returns:
        Prototypes, their validity, the map of prototypes, and the target at the masks' resolution. The target of
        an image without background at the features' positions is void throughout, so that it adds nothing to a loss.

    Raises:
        ValueError: If a shape does not fit.
        TypeError: If features are not floating point, or masks hold neither integers nor bools.

    Example:
        >>> import torch
        >>> from fewshotseg import CosineKMeans
        >>> features, masks = torch.rand(2, 16, 9, 9), torch.randint(0, 2, (2, 65, 65))
        >>> pairs = self_contrastive_pairs(features, features, masks, partition=CosineKMeans(3))
        >>> pairs.prototypes.shape, pairs.prototype_map.shape, pairs.target.shape
        (torch.Size([2, 3, 16]), torch.Size([2, 16, 9, 9]), torch.Size([2, 65, 65]))
    """
    check_tensor("features", features, "B C H W")
    check_floating("features", features)
    check_tensor("cluster_features", cluster_features, "B C H W")
    check_floating("cluster_features", cluster_features)
    check_sizes("cluster_features", cluster_features, "B", features, "features")
    check_tensor("query_masks", query_masks, "B H W")
    check_labels("query_masks", query_masks)
    check_sizes("query_masks", query_masks, "B", features, "features")
    size = (features.shape[2], features.shape[3])

    labels = sample_nearest(partition(cluster_features.detach(), generator=generator), size)
    masks = sample_nearest(query_masks, size)
    regions = background_regions(labels, masks, partition.num_regions, ignore_index=ignore_index)
    prototypes = masked_average_pool(features, regions)
    valid = regions.flatten(2).any(dim=2)

    drawn = _draw(valid, generator)[:, None, None]
    region_is_valid = valid.gather(1, labels.flatten(1)).view_as(labels)
    paired = torch.where((masks != 1) & region_is_valid, labels, drawn)
    has_background = valid.any(dim=1)[:, None, None]
    target = background_target(query_masks, ignore_index=ignore_index)
    return SelfContrastivePairs(
        prototypes=prototypes,
        valid=valid,
        prototype_map=assign_prototypes(prototypes, paired),
        target=torch.where(has_background, target, ignore_index),
    )


class SelfContrastiveLoss(nn.Module):
    """The loss of SCNet's class-agnostic branch, for any model with a comparison head of its own (L2 of Eq. 9).

    It has no parameters. Add it to the loss of an existing model during training:

    ```python
    loss = (1 - weight) * loss + weight * self_contrastive(features, high_level_features, query_masks, compare)
    ```

    Args:
        num_prototypes: n, the number of regions that k-means makes of a query.
        num_iters: Rounds of k-means.
        partition: Cuts a query into regions in another way; ``num_prototypes`` and ``num_iters`` then do not count.
        ignore_index: The label of void.

    Raises:
        ValueError: If ``num_prototypes`` is below 1 or ``num_iters`` negative.

    Example:
        >>> import torch
        >>> self_contrastive = SelfContrastiveLoss(num_prototypes=3)
        >>> features = torch.rand(2, 16, 9, 9, requires_grad=True)
        >>> def compare(features, prototype_map):
        ...     similarity = torch.cosine_similarity(features, prototype_map, dim=1)
        ...     return 10 * torch.stack([-similarity, similarity], dim=1)
        >>> loss = self_contrastive(features, features, torch.randint(0, 2, (2, 65, 65)), compare)
        >>> loss.backward()
    """

    def __init__(
        self,
        num_prototypes: int = 3,
        *,
        num_iters: int = 10,
        partition: Partition | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if partition is None:
            check_at_least("num_prototypes", num_prototypes, 1)
            partition = CosineKMeans(num_prototypes, num_iters=num_iters)
        self.partition = partition
        self.ignore_index = ignore_index

    @override
    def forward(
        self,
        features: Tensor,
        cluster_features: Tensor,
        query_masks: Tensor,
        compare: Callable[[Tensor, Tensor], Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compare the query with its own background and say how wrong the answer is.

        Args:
            features: ``(B, C, h, w)`` query features in the space of the model's prototypes; gradients flow through.
            cluster_features: ``(B, C', h', w')`` features to find regions in, best high-level ones; no gradient.
            query_masks: ``(B, H, W)`` label masks of the query.
            compare: The model's comparison head: ``compare(features, prototype_map)`` with two ``(B, C, h, w)`` maps
                gives ``(B, 2, h', w')`` logits of any size, channel 1 for "matches the prototype".
            generator: For the regions' start and the drawn prototype.

        Returns:
            The cross entropy with ``1 - M``, a scalar; 0 if no image has background. See `self_contrastive_pairs`.
        """
        pairs = self_contrastive_pairs(
            features,
            cluster_features,
            query_masks,
            partition=self.partition,
            generator=generator,
            ignore_index=self.ignore_index,
        )
        logits = compare(features, pairs.prototype_map)
        check_tensor("what compare returns", logits, "B 2 H W")
        check_sizes("what compare returns", logits, "B", features, "features")
        return segmentation_loss(logits, pairs.target, ignore_index=self.ignore_index)


def segmentation_loss(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Cross entropy over the labelled pixels of a batch, at the target's resolution.

    Logits are brought to the target's size bilinearly with aligned corners; labels are never resized.

    Args:
        logits: ``(B, 2, h, w)``, floating point.
        target: ``(B, H, W)`` label masks: 0, 1 or ``ignore_index``.
        ignore_index: The label of pixels that do not count.

    Returns:
        The mean over all pixels that count, a scalar of at least float32; 0 where none does.

    Raises:
        ValueError: If a shape does not fit.
        TypeError: If ``logits`` is not floating point, or ``target`` holds neither integers nor bools.

    Example:
        >>> import torch
        >>> segmentation_loss(torch.zeros(1, 2, 3, 3), torch.ones(1, 9, 9, dtype=torch.long))
        tensor(0.6931)
        >>> segmentation_loss(torch.zeros(1, 2, 3, 3), torch.full((1, 9, 9), 255))
        tensor(0.)
    """
    check_tensor("logits", logits, "B 2 H W")
    check_floating("logits", logits)
    if logits.shape[1] != 2:
        raise ValueError(f"logits must have 2 channels, background and foreground, got shape {tuple(logits.shape)}")
    check_tensor("target", target, "B H W")
    check_labels("target", target)
    check_sizes("target", target, "B", logits, "logits")
    with without_autocast(logits):
        resized = resize_bilinear(at_least_float32(logits), (target.shape[1], target.shape[2]))
        total = F.cross_entropy(resized, target.long(), ignore_index=ignore_index, reduction="sum")
        return total / (target != ignore_index).sum().clamp_min(1)


def _draw(valid: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index of a true entry in every row of ``(B, K)``, uniformly; 0 in a row without one."""
    order = uniform((valid.shape[0], valid.shape[1]), valid.device, generator)
    return torch.where(valid, order, -1.0).argmax(dim=1)
