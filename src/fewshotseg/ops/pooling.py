"""Masked average pooling, MAP: from a feature map and masks to prototypes (Eq. 1 and 6)."""

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_sizes, check_tensor
from fewshotseg.ops._precision import at_least_float32, without_autocast


def masked_average_pool(features: Tensor, masks: Tensor, *, eps: float = 0.0) -> Tensor:
    r"""The mean feature inside each mask: one prototype a mask.

    $$p = \frac{\sum_{ij} F_{ij} M_{ij}}{\sum_{ij} M_{ij} + \varepsilon}$$

    Args:
        features: ``(B, C, H, W)``, floating point.
        masks: ``(B, H, W)`` for one mask an image or ``(B, K, H, W)`` for several, on the grid of the features; bool
            or weights from 0 to 1. Label masks with void (255) have to be turned into these first: ``mask == 1``.
        eps: Added to the area of every mask. 0 gives the exact mean; PFENet adds 5e-4.

    Returns:
        ``(B, C)`` or ``(B, K, C)`` in the dtype of ``features``. Sums are taken in at least float32. An empty mask
        gives a zero vector. Differentiable in ``features`` and in floating-point ``masks``.

    Raises:
        ValueError: If a shape does not fit, or ``eps`` is negative.
        TypeError: If ``features`` is not floating point.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> masked_average_pool(features, torch.tensor([[[True, True], [False, False]]]))
        tensor([[2.]])
        >>> masked_average_pool(features, torch.zeros(1, 2, 2))
        tensor([[0.]])
    """
    check_tensor("features", features, "B C H W")
    check_floating("features", features)
    check_tensor("masks", masks, "B H W", "B K H W")
    if masks.ndim == 3:
        return masked_average_pool(features, masks[:, None], eps=eps)[:, 0]
    check_sizes("masks", masks, "B K H W", features, "features", "B C H W")
    if not eps >= 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")

    with without_autocast(features):
        values = at_least_float32(features)
        weights = masks.to(values.dtype)
        sums = torch.einsum("bchw,bkhw->bkc", values, weights)
        areas = weights.sum(dim=(2, 3)) + eps
        return (sums / torch.where(areas > 0, areas, 1)[..., None]).to(features.dtype)
