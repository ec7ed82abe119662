"""Converts class masks to the masks of episodes."""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._checks import as_list, check_labels, check_tensor, shown
from fewshotseg.data.episodes.lists import check_class_id
from fewshotseg.data.episodes.sampling import check_class_ids
from fewshotseg.data.sources.source import VOID


def episode_mask(mask: Tensor, class_id: int, *, ignore_classes: Collection[int] = ()) -> tv_tensors.Mask:
    """Convert a class mask to the mask of an episode.

    Args:
        mask: ``(H, W)`` class ids; 0 background, 255 void.
        class_id: The class of the episode, 1 or more and not 255.
        ignore_classes: Other classes that become void.

    Returns:
        ``(H, W)`` int64: 1 the class, 255 void, 0 everything else.

    Raises:
        ValueError: If the class of the episode is among ``ignore_classes``, a class id is not possible, or ``mask`` is
            not two-dimensional.
        TypeError: If ``mask`` is not a tensor of integers, or a class id not an integer.

    Example:
        >>> import torch
        >>> episode_mask(torch.tensor([[0, 3, 7, 9, 255]]), 7, ignore_classes=[9])
        Mask([[  0,   0,   1, 255, 255]])
    """
    check_tensor("mask", mask, "H W")
    check_labels("mask", mask)
    class_id = check_class_id("class_id", class_id)
    ignore_classes = check_class_ids("ignore_classes", ignore_classes)
    if class_id in ignore_classes:
        raise ValueError(f"ignore_classes must not hold the class of the episode, got {class_id}")
    mask = mask.long()  # small integers would wrap a large class id round
    return torch.where(_void(mask, ignore_classes), VOID, (mask == class_id).long()).as_subclass(tv_tensors.Mask)


def labels_of_classes(
    mask: Tensor, class_ids: Iterable[int], *, ignore_classes: Collection[int] = ()
) -> tv_tensors.Mask:
    """Convert a class mask to consecutive labels, such as the targets of a classifier.

    Args:
        mask: ``(H, W)`` or ``(B, H, W)`` class ids; 0 background, 255 void.
        class_ids: The classes in the order of their labels, at most 254: the first becomes 1, the second 2, and so on.
        ignore_classes: Other classes that become void.

    Returns:
        int64 of the same shape: 1 to the number of classes, 255 void, 0 everything else.

    Raises:
        ValueError: If ``class_ids`` holds a class twice, one of ``ignore_classes`` or more than 254, a class id is not
            possible, or the shape does not fit.
        TypeError: If ``mask`` is not a tensor of integers, or a class id not an integer.

    Example:
        >>> import torch
        >>> labels_of_classes(torch.tensor([[0, 3, 7, 9, 255]]), [7, 3])
        Mask([[  0,   2,   1,   0, 255]])
    """
    check_tensor("mask", mask, "H W", "B H W")
    check_labels("mask", mask)
    classes = [check_class_id("every class of class_ids", each) for each in as_list("class_ids", class_ids, "classes")]
    ignore_classes = check_class_ids("ignore_classes", ignore_classes)
    if len(set(classes)) < len(classes) or len(classes) >= VOID:
        raise ValueError(f"class_ids must be up to {VOID - 1} different classes, got {shown(classes)}")
    if both := sorted(set(classes) & set(ignore_classes)):
        raise ValueError(f"ignore_classes must not hold classes that get a label, got {shown(both)}")
    mask = mask.long()
    labels = torch.where(_void(mask, ignore_classes), VOID, 0)
    for label, class_id in enumerate(classes, start=1):
        labels = torch.where(mask == class_id, label, labels)
    return labels.as_subclass(tv_tensors.Mask)


def _void(mask: Tensor, ignore_classes: Iterable[int]) -> Tensor:
    """Find where a class mask is void or shows one of ``ignore_classes``."""
    void = mask == VOID
    for ignored in ignore_classes:  # much faster than torch.isin for a few classes
        void = void | (mask == ignored)
    return void
