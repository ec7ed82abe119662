"""Combines several shots: votes of their predictions (HSNet), and the distance of each support to the query (BAM)."""

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_labels, check_sizes, check_tensor
from fewshotseg.ops._precision import unit, without_autocast
from fewshotseg.ops._values import look_at_indices


def vote_shots(masks: Tensor) -> Tensor:
    r"""Count how many shots predict each pixel, divided by the largest count in the image.

    $$v = \frac{\sum_s \hat M_s}{\max(1, \max_x \sum_s \hat M_s(x))}$$

    HSNet (Min et al., ICCV 2021) and VAT combine one-shot predictions so, and take ``>= 0.5`` as foreground.

    Args:
        masks: ``(B, S, H, W)``, the prediction of each shot: bools, or integers 0 and 1.

    Returns:
        ``(B, H, W)`` float32 in 0..1; 0 everywhere in an image in which no shot predicts a pixel.

    Raises:
        ValueError: If a shape does not fit, or masks on a CPU hold anything but 0 and 1.
        TypeError: If masks hold neither integers nor bools.

    Example:
        >>> import torch
        >>> vote_shots(torch.tensor([[[[1, 1, 0]], [[1, 0, 0]], [[0, 0, 0]]]]))
        tensor([[[1.0000, 0.5000, 0.0000]]])
    """
    check_tensor("masks", masks, "B S H W")
    check_labels("masks", masks)
    if masks.dtype != torch.bool:
        look_at_indices("masks", masks, 2)
    votes = masks.sum(dim=1).float()  # B H W
    return votes / votes.amax(dim=(1, 2), keepdim=True).clamp_min(1)


def gram_distance(query: Tensor, support: Tensor) -> Tensor:
    r"""Measure the distance in appearance between the query and each support, by the Gram matrices of their channels.

    $$d_s = \frac{1}{C} \lVert G(F^q) - G(F^s) \rVert_F, \qquad G_{ij} = \cos(F_i, F_j)$$

    over the channels $F_i$ as vectors of locations. BAM (Lang et al., CVPR 2022) and HDMNet compute it from low-level
    features, and weigh the shots by it.

    Args:
        query: ``(B, C, h, w)``, floating point.
        support: ``(B, S, C, h', w')``, floating point.

    Returns:
        ``(B, S)``: 0 for equal Gram matrices, at most 1 for features that are never negative and at most 2 for others;
        float32, or float64 for float64 features. A channel that is zero or holds NaN or infinity has cosine 0 with all.
        Differentiable.

    Raises:
        ValueError: If a shape or a device does not fit.
        TypeError: If features are not floating point.

    Example:
        >>> import torch
        >>> query = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # two channels that are never active together
        >>> other = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])  # and always
        >>> gram_distance(query, torch.stack([query, other], dim=1))
        tensor([[0.0000, 0.7071]])
    """
    check_tensor("query", query, "B C H W")
    check_floating("query", query)
    check_tensor("support", support, "B S C H W")
    check_floating("support", support)
    check_sizes("support", support, "B S C", query, "query", "B C")
    dtype = torch.promote_types(torch.promote_types(query.dtype, support.dtype), torch.float32)
    with without_autocast(query):
        difference = _gram(query.to(dtype))[:, None] - _gram(support.to(dtype))  # B S C C
        distances: Tensor = torch.linalg.vector_norm(difference, dim=(2, 3)) / query.shape[1]
    return distances


def _gram(features: Tensor) -> Tensor:
    """Compute the cosine of each channel with each other: ``(..., C, h, w)`` -> ``(..., C, C)``."""
    channels = unit(features.flatten(-2))  # ... C N
    return channels @ channels.mT
