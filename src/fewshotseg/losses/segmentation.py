"""The supervised segmentation loss: cross entropy over the labelled pixels."""

from torch import Tensor

from fewshotseg._checks import check_sizes, check_void
from fewshotseg.ops._cross_entropy import cross_entropies
from fewshotseg.ops._values import check_label_masks, check_logits


def segmentation_loss(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Compute the cross entropy over the labelled pixels of a batch, at the target's resolution.

    Logits are resized to the target's size bilinearly with aligned corners; labels are never resized. Logits of void
    pixels have no effect, even NaN and infinity.

    Args:
        logits: ``(B, 2, h, w)``, floating point, channel 1 foreground.
        target: ``(B, H, W)`` label masks: 0, 1 or ``ignore_index``.
        ignore_index: The label of void pixels, neither 0 nor 1.

    Returns:
        The mean over all labelled pixels, a scalar of at least float32; 0 if there are none.

    Raises:
        ValueError: If a shape or a device does not fit, or a target on a CPU holds other labels than 0, 1 and void.
        TypeError: If ``logits`` is not floating point, or ``target`` holds neither integers nor bools.

    Example:
        >>> import torch
        >>> segmentation_loss(torch.zeros(1, 2, 3, 3), torch.ones(1, 9, 9, dtype=torch.long))
        tensor(0.6931)
        >>> segmentation_loss(torch.zeros(1, 2, 3, 3), torch.full((1, 9, 9), 255))
        tensor(0.)
    """
    ignore_index = check_void("ignore_index", ignore_index)
    check_logits("logits", logits)
    target = check_label_masks("target", target, void=ignore_index)
    check_sizes("target", target, "B", logits, "logits")
    return cross_entropies([logits], target[None], ignore_index)[0, 0]
