"""Masked average pooling (MAP): computes prototypes from a feature map and masks (Eq. 1 and 6)."""

from typing import Literal

import torch
from torch import Tensor

from fewshotseg._checks import check_choice, check_floating, check_number, check_real, check_sizes, check_tensor
from fewshotseg.ops._precision import at_least_float32, is_eager_cpu, without_autocast
from fewshotseg.ops._values import all_finite, check_label_masks, look_at_weights
from fewshotseg.ops.resizing import resize_bilinear, resizing_weights


def masked_average_pool(
    features: Tensor, masks: Tensor, *, eps: float = 0.0, resize: Literal["masks", "features"] | None = None
) -> Tensor:
    r"""Average the features inside each mask into one prototype.

    $$p = \frac{\sum_{ij} F_{ij} M_{ij}}{\sum_{ij} M_{ij} + \varepsilon}$$

    Args:
        features: ``(B, C, h, w)``, floating point.
        masks: ``(B, H, W)``, one mask for each image, or ``(B, K, H, W)`` for several: bool, or weights from 0 to 1.
            With ``resize``, integers are label masks (1 foreground, 0 background, 255 void), of which 1 is pooled;
            without, convert label masks with void to bool first: ``mask == 1``.
        eps: Added to the area of every mask. 0 gives the exact mean; PFENet adds 5e-4.
        resize: Which input to resize to the size of the other, bilinearly with aligned corners. ``"masks"``, as in
            PFENet: an object that falls between the positions of the grid is lost. ``"features"``, as in PANet: every
            pixel counts; the enlarged features are never stored, as each pixel's weight is added to the positions that
            it is interpolated from. None: the sizes must be equal.

    Returns:
        ``(B, C)`` or ``(B, K, C)`` in the dtype of ``features``, summed in at least float32. An empty mask gives a zero
        vector. NaN and infinity inside a mask make its mean NaN; outside they have no effect. Differentiable in
        ``features`` and in floating-point ``masks``.

    Raises:
        ValueError: If a shape or a device does not fit, ``eps`` is negative or not finite, ``resize`` is unknown, or
            masks on a CPU hold anything but 0 to 1 or, as label masks, other labels than 0, 1 and 255.
        TypeError: If ``features`` is not floating point, ``masks`` is complex or ``eps`` no number.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> masked_average_pool(features, torch.tensor([[[True, True], [False, False]]]))
        tensor([[2.]])
        >>> masked_average_pool(features, torch.zeros(1, 2, 2))
        tensor([[0.]])
        >>> labels = torch.tensor([[[1, 1, 0], [0, 0, 0], [0, 0, 255]]])
        >>> masked_average_pool(features, labels, resize="masks")
        tensor([[1.]])
        >>> masked_average_pool(features, labels, resize="features")  # of 1, 2, 3 in the upper row, the first two
        tensor([[1.5000]])
    """
    check_tensor("features", features, "B C H W")
    check_floating("features", features)
    check_tensor("masks", masks, "B H W", "B K H W")
    check_real("masks", masks)
    check_sizes("masks", masks, "B", features, "features")
    check_choice("resize", resize, (None, "masks", "features"))
    eps = check_number("eps", eps, 0)
    if resize is None:
        if masks.shape[-2:] != features.shape[-2:]:
            height, width = features.shape[-2:]
            raise ValueError(
                f"masks must have the size of features, {height}x{width}, got shape {tuple(masks.shape)}; "
                f'resize="masks" resizes them'
            )
        look_at_weights("masks", masks)
    elif masks.is_floating_point():
        look_at_weights("masks", masks)
    else:
        masks = check_label_masks("masks", masks.flatten(0, -3), void=255).view_as(masks) == 1
    several = masks[:, None] if masks.ndim == 3 else masks  # B K H W
    with without_autocast(features):
        if resize is not None:
            several = _on_grid(several, features, spread=resize == "features")  # B K h w
        pooled = _pool(features, several, eps)  # B K C
    return pooled[:, 0] if masks.ndim == 3 else pooled


def _on_grid(masks: Tensor, features: Tensor, *, spread: bool) -> Tensor:
    """Resize masks to the grid of the features, or with ``spread`` add every pixel's weight to the positions near it.

    Spreading is the transpose of resizing the features: the sum of spread masks times features equals the sum of masks
    times resized features.
    """
    weights = masks.to(torch.promote_types(features.dtype, torch.float32))
    size = (features.shape[2], features.shape[3])
    if not spread:
        return resize_bilinear(weights, size)
    rows, columns = resizing_weights(size, (masks.shape[2], masks.shape[3]), weights)  # H h, W w
    return rows.mT @ weights @ columns


def _pool(features: Tensor, masks: Tensor, eps: float) -> Tensor:
    values = at_least_float32(features)  # B C h w
    weights = masks.to(values.dtype)  # B K h w
    sums = _weighted_sums(values, weights)  # B K C
    areas = weights.sum(dim=(2, 3)) + eps  # B K
    return (sums / torch.where(areas > 0, areas, 1)[..., None]).to(features.dtype)


def _weighted_sums(values: Tensor, weights: Tensor) -> Tensor:
    """Compute weighted sums ``(B, K, C)``; a sum is NaN exactly if a value with weight is not finite."""
    if is_eager_cpu(values):
        sums = _products(values, weights)
        if all_finite(sums):
            return sums
    # 0 * NaN is NaN: sum without such values, then set the sums to NaN in which they have weight.
    finite = values.isfinite()
    sums = _products(torch.where(finite, values, 0), weights)
    spoiled = _products((~finite).to(values.dtype), (weights != 0).to(values.dtype)) > 0
    return sums.masked_fill(spoiled, torch.nan)


def _products(values: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bchw,bkhw->bkc", values, weights)
