"""Masked average pooling, MAP: from a feature map and masks to prototypes (Eq. 1 and 6)."""

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_number, check_real, check_sizes, check_tensor
from fewshotseg.ops._precision import at_least_float32, is_eager_cpu, without_autocast
from fewshotseg.ops._values import all_finite, look_at_weights


def masked_average_pool(features: Tensor, masks: Tensor, *, eps: float = 0.0) -> Tensor:
    r"""Average the features inside each mask: one prototype a mask.

    $$p = \frac{\sum_{ij} F_{ij} M_{ij}}{\sum_{ij} M_{ij} + \varepsilon}$$

    Args:
        features: ``(B, C, H, W)``, floating point.
        masks: ``(B, H, W)`` for one mask an image or ``(B, K, H, W)`` for several, on the grid of the features; bool
            or weights from 0 to 1. Label masks with void (255) have to be turned into these first: ``mask == 1``.
        eps: Added to the area of every mask. 0 gives the exact mean; PFENet adds 5e-4.

    Returns:
        ``(B, C)`` or ``(B, K, C)`` in the dtype of ``features``. Sums are taken in at least float32. An empty mask
        gives a zero vector. Features outside a mask don't matter to it, NaN and infinity neither; inside they make
        its mean NaN. Differentiable in ``features`` and in floating-point ``masks``.

    Raises:
        ValueError: If a shape or a device does not fit, ``eps`` is negative or not finite, or masks on a CPU hold
            anything but 0 to 1.
        TypeError: If ``features`` is not floating point, ``masks`` is complex or ``eps`` no number.

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
    check_real("masks", masks)
    check_sizes("masks", masks, "B H W" if masks.ndim == 3 else "B K H W", features, "features", "B C H W")
    eps = check_number("eps", eps, 0)
    look_at_weights("masks", masks)
    if masks.ndim == 3:
        return _pool(features, masks[:, None], eps)[:, 0]
    return _pool(features, masks, eps)


def _pool(features: Tensor, masks: Tensor, eps: float) -> Tensor:
    with without_autocast(features):
        values = at_least_float32(features)  # B C H W
        weights = masks.to(values.dtype)  # B K H W
        sums = _weighted_sums(values, weights)  # B K C
        areas = weights.sum(dim=(2, 3)) + eps  # B K
        return (sums / torch.where(areas > 0, areas, 1)[..., None]).to(features.dtype)


def _weighted_sums(values: Tensor, weights: Tensor) -> Tensor:
    """Sum to ``(B, K, C)``, NaN where a value that isn't finite has weight, and only there."""
    if is_eager_cpu(values):
        sums = _products(values, weights)
        if all_finite(sums):
            return sums
    # 0 * NaN is NaN: such values are left out of the sums, and put in again where they have weight.
    finite = values.isfinite()
    sums = _products(torch.where(finite, values, 0), weights)
    spoiled = _products((~finite).to(values.dtype), (weights != 0).to(values.dtype)) > 0
    return sums.masked_fill(spoiled, torch.nan)


def _products(values: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bchw,bkhw->bkc", values, weights)
