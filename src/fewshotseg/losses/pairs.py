"""Inputs and target of the class-agnostic branch, where a query meets prototypes of its own background (Sec. 3.2.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_sizes, check_tensor, check_void
from fewshotseg.ops import (
    Partition,
    assign_prototypes,
    background_regions,
    masked_average_pool,
    sample_nearest,
)
from fewshotseg.ops._random import uniform
from fewshotseg.ops._values import check_label_masks
from fewshotseg.ops.partition import check_partition, label_regions


class SelfContrastivePairs(NamedTuple):
    """The prototypes that a query is compared with in the class-agnostic branch, and the target of that comparison.

    Attributes:
        prototypes: ``(B, K, C)``, the mean feature of each background region, zero for an empty region (Eq. 6).
        valid: ``(B, K)`` bool, which regions are not empty.
        prototype_map: ``(B, C, h, w)``, the prototype that each location is compared with (Eq. 7).
        target: ``(B, H, W)`` int64, ``1 - M`` at the masks' resolution; void stays void.
    """

    prototypes: Tensor
    valid: Tensor
    prototype_map: Tensor
    target: Tensor


def background_target(query_masks: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Invert label masks, ``1 - M``: 1 on the background, 0 on the foreground; void stays void.

    Args:
        query_masks: ``(B, H, W)`` label masks.
        ignore_index: The label of void, neither 0 nor 1.

    Returns:
        ``(B, H, W)`` int64.

    Raises:
        ValueError: If a shape does not fit, or masks on a CPU hold other labels than 0, 1 and void.
        TypeError: If masks hold neither integers nor bools.

    Example:
        >>> import torch
        >>> background_target(torch.tensor([[[0, 1, 255]]]))
        tensor([[[  1,   0, 255]]])
    """
    ignore_index = check_void("ignore_index", ignore_index)
    return _complement(check_label_masks("query_masks", query_masks, void=ignore_index), ignore_index)


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

    The partition splits the whole query into regions. Foreground and void are removed from each (Eq. 5), and the rest
    is averaged into a prototype (Eq. 6). A background location is paired with the prototype of its region, target 1.
    All foreground locations of an image are paired with one prototype, drawn uniformly from the image's valid ones,
    target 0 (Eq. 7). A void location is paired like a background location, or with the drawn prototype if its region
    is empty.

    Args:
        features: ``(B, C, h, w)``, floating point; prototypes are pooled from them, and gradients flow through them.
        cluster_features: ``(B, C', h', w')``, floating point, the input of the partition, in the paper the high-level
            map; no gradient. The regions are resized to ``h x w`` by nearest sampling with aligned corners.
        query_masks: ``(B, H, W)`` label masks of the query: 1 foreground, 0 background, ``ignore_index`` void. They
            are sampled at the features' positions, with aligned corners. With several classes, pass one at a time:
            ``labels == way``.
        partition: Splits the cluster features into regions.
        generator: Source of the random numbers for the partition and the drawn prototype; by default torch's, the
            only one that ``torch.compile`` supports.
        ignore_index: The label of void, neither 0 nor 1.

    Returns:
        Prototypes, which of them are valid, their map, and the target. If an image has no background at the features'
        positions, its target is void everywhere, so that it adds nothing to a loss. Features outside a region have no
        effect on its prototype, even NaN and infinity.

    Raises:
        ValueError: If a shape or a device does not fit, or masks on a CPU hold other labels than 0, 1 and void.
        TypeError: If features are not floating point, masks hold neither integers nor bools, or another argument is of
            a wrong type.

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
    ignore_index = check_void("ignore_index", ignore_index)
    query_masks = check_label_masks("query_masks", query_masks, void=ignore_index)  # B H W
    check_sizes("query_masks", query_masks, "B", features, "features")
    check_partition(partition)
    size = (features.shape[2], features.shape[3])  # h w

    labels = sample_nearest(label_regions(partition, cluster_features.detach(), generator), size)  # B h w
    masks = sample_nearest(query_masks, size)  # B h w
    regions = background_regions(labels, masks, partition.num_regions, ignore_index=ignore_index)  # B K h w
    prototypes = masked_average_pool(features, regions)  # B K C
    valid = regions.flatten(2).any(dim=2)  # B K

    drawn = _draw(valid, generator)[:, None, None]
    region_is_valid = valid.gather(1, labels.flatten(1)).view_as(labels)
    paired = torch.where((masks != 1) & region_is_valid, labels, drawn)
    has_background = valid.any(dim=1)[:, None, None]
    target = _complement(query_masks, ignore_index)
    return SelfContrastivePairs(
        prototypes=prototypes,
        valid=valid,
        prototype_map=assign_prototypes(prototypes, paired),
        target=torch.where(has_background, target, ignore_index),
    )


def _complement(masks: Tensor, ignore_index: int) -> Tensor:
    return torch.where(masks == ignore_index, ignore_index, (masks != 1).long())


def _draw(valid: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw the index of one true entry in every row of ``(B, K)``, uniformly; 0 for a row without any."""
    order = uniform((valid.shape[0], valid.shape[1]), valid.device, generator)
    return torch.where(valid, order, -1.0).argmax(dim=1)
