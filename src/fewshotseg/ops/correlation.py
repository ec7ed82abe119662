"""Correlation of every query location with every support location, for several layers (HSNet, VAT)."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from fewshotseg._checks import check_floating, check_sizes, check_tensor
from fewshotseg.ops._precision import unit, without_autocast
from fewshotseg.ops.resizing import RESIZED_ZERO, foreground_weights


def correlation(
    query_maps: Sequence[Tensor], support_maps: Sequence[Tensor], support_masks: Tensor | None = None
) -> tuple[Tensor, ...]:
    r"""Compute the positive part of the cosine of each query location with each support location, layer by layer.

    $$c_l(x, y) = \max(0, \cos(F^q_l(x), M(y) F^s_l(y)))$$

    The input of HSNet (Min et al., ICCV 2021) and VAT (Hong et al., ECCV 2022). Layers of equal size are stacked.

    Args:
        query_maps: A list of maps ``(B, C, h, w)``, one for each layer, floating point; C, h and w may differ between
            layers.
        support_maps: As many maps ``(B, C, h', w')``, each with as many channels as the query's.
        support_masks: ``(B, H, W)`` label masks (1 foreground), bool masks or weights from 0 to 1, of any size. They
            are resized to each layer bilinearly with aligned corners; locations outside the foreground get correlation
            0. None uses all locations.

    Returns:
        One tensor ``(B, L, h, w, h', w')`` for each pair of sizes, in order of first appearance, where L is the number
        of layers of these sizes. Values are in 0..1, float32 (float64 for float64 maps). Vectors that are zero or hold
        NaN or infinity have cosine 0. Differentiable in the maps.

    Raises:
        ValueError: If there is no layer, numbers of layers differ, a shape or a device does not fit, or weights on a
            CPU are not from 0 to 1.
        TypeError: If maps are no lists of floating-point tensors or masks are complex.

    Example:
        >>> import torch
        >>> layers = [torch.rand(1, 8, 6, 6), torch.rand(1, 16, 3, 3), torch.rand(1, 16, 3, 3)]
        >>> masks = torch.ones(1, 48, 48, dtype=torch.long)
        >>> [tuple(volume.shape) for volume in correlation(layers, layers, masks)]
        [(1, 1, 6, 6, 6, 6), (1, 2, 3, 3, 3, 3)]
    """
    _check_layers("query_maps", query_maps)
    _check_layers("support_maps", support_maps)
    if len(query_maps) != len(support_maps):
        raise ValueError(
            f"support_maps must have as many layers as query_maps, {len(query_maps)}, got {len(support_maps)}"
        )
    if support_masks is not None:
        check_tensor("support_masks", support_masks, "B H W")
        check_sizes("support_masks", support_masks, "B", support_maps[0], "support_maps")
    of_sizes: dict[tuple[torch.Size, torch.Size], list[Tensor]] = {}
    for number, (query, support) in enumerate(zip(query_maps, support_maps, strict=True)):
        check_sizes(f"layer {number} of support_maps", support, "B C", query, "query_maps")
        sizes = (query.shape[2:], support.shape[2:])
        of_sizes.setdefault(sizes, []).append(_correlate(query, support, support_masks))
    return tuple(torch.stack(volumes, dim=1) for volumes in of_sizes.values())


def _correlate(query: Tensor, support: Tensor, masks: Tensor | None) -> Tensor:
    """Correlate one layer: ``(B, C, h, w)``, ``(B, C, h', w')`` -> ``(B, h, w, h', w')``."""
    with without_autocast(query):
        dtype = torch.promote_types(torch.promote_types(query.dtype, support.dtype), torch.float32)
        rows, columns = unit(query.to(dtype), dim=1), unit(support.to(dtype), dim=1)
        if masks is not None:
            inside = foreground_weights(masks, (support.shape[2], support.shape[3])) > RESIZED_ZERO
            columns = torch.where(inside[:, None], columns, 0)
        products = rows.flatten(2).mT @ columns.flatten(2)  # B hw h'w'
    h, w, height, width = *query.shape[2:], *support.shape[2:]
    return rearrange(products.clamp(min=0), "b (h w) (i j) -> b h w i j", h=h, w=w, i=height, j=width)


def _check_layers(name: str, maps: Any) -> None:
    if not isinstance(maps, tuple | list):
        raise TypeError(f"{name} must be a list of maps (B, C, h, w), one per layer, got {type(maps).__name__}")
    if not maps:
        raise ValueError(f"{name} must hold at least one layer, got none")
    for number, features in enumerate(maps):
        check_tensor(f"layer {number} of {name}", features, "B C H W")
        check_floating(f"layer {number} of {name}", features)
