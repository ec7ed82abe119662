"""PFENet's training-free prior: how similar each query location is to the supports' foreground."""

import math
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor

from fewshotseg._checks import check_floating, check_sizes, check_tensor
from fewshotseg.ops._precision import at_least_float32, inverse_norm, is_eager_cpu, without_autocast
from fewshotseg.ops.resizing import RESIZED_ZERO, foreground_weights

MAX_PRODUCTS = 2**24
"""Cosines in memory at a time on an accelerator: 64 MiB in float32."""

ALIGNED = 16
"""Rows of the products are split at multiples of this: from other addresses a GPU's matrix units load slowly."""


@torch.no_grad()
def prior_mask(query: Tensor, support: Tensor, support_masks: Tensor) -> Tensor:
    r"""Compute the largest cosine of every query location with a support's foreground, scaled to 0..1, mean over shots.

    For each shot $c_j = \max_i \cos(q_j, m_i s_i)$ over all support locations $i$, where locations outside the
    foreground count as zero vectors; then min-max normalised over the image, $(c - \min c) / (\max c - \min c +
    10^{-7})$.

    Args:
        query: ``(B, C, H, W)`` high-level features, floating point.
        support: ``(B, S, C, h, w)`` high-level features of the supports.
        support_masks: ``(B, S, h', w')`` label masks (1 foreground), bool masks or floating-point weights, of any
            size; resized to ``h x w`` bilinearly with aligned corners.

    Returns:
        ``(B, 1, H, W)`` in 0..1, float32 (float64 for float64 features), without gradient. A shot without foreground
        adds a map of zeros to the mean. Support features outside the foreground have no effect, even NaN and infinity.
        A query location with NaN or infinity gets 0 and does not affect the others.

    Raises:
        ValueError: If a shape or a device does not fit, there is no shot, or weights on a CPU are not from 0 to 1.
        TypeError: If features are not floating point or masks complex.

    Example:
        >>> import torch
        >>> query = torch.tensor([[[[1.0, 0.0, 1.0]], [[0.0, 1.0, 1.0]]]])
        >>> support = torch.tensor([[[[[1.0, 0.0]], [[0.0, 1.0]]]]])
        >>> prior_mask(query, support, torch.tensor([[[[1, 0]]]]))
        tensor([[[[1.0000, 0.0000, 0.7071]]]])
    """
    check_tensor("query", query, "B C H W")
    check_floating("query", query)
    check_tensor("support", support, "B S C H W")
    check_floating("support", support)
    check_sizes("support", support, "B S C", query, "query", "B C")
    check_tensor("support_masks", support_masks, "B S H W")
    check_sizes("support_masks", support_masks, "B S", support, "support")
    height = query.shape[2]

    with without_autocast(query):
        on_cpu = is_eager_cpu(query, support)
        if on_cpu or query.dtype != support.dtype:
            query = at_least_float32(query)
        points = rearrange(query, "b c h w -> b c (h w)")  # B C N
        images = torch.split(points, 1) if on_cpu else [points]  # one by one: small temporaries
        inverse_lengths = torch.cat([inverse_norm(at_least_float32(image), dim=1) for image in images])  # B 1 N
        finite = inverse_lengths.isfinite()
        priors = []
        for shot, masks in zip(support.unbind(1), support_masks.unbind(1), strict=True):
            weights = foreground_weights(masks, (shot.shape[2], shot.shape[3]))
            foreground = rearrange(weights, "b h w -> b (h w)") > RESIZED_ZERO
            candidates = rearrange(shot.to(points.dtype), "b c h w -> b (h w) c")
            best = _best_match(candidates, foreground, points) * inverse_lengths  # B 1 N
            low = torch.where(finite, best, torch.inf).amin(dim=2, keepdim=True)
            high = torch.where(finite, best, -torch.inf).amax(dim=2, keepdim=True)
            priors.append(torch.where(finite, (best - low) / (high - low + 1e-7), 0))
        prior = torch.stack(priors).mean(dim=0)
    return rearrange(prior, "b 1 (h w) -> b 1 h w", h=height)


def _best_match(support: Tensor, foreground: Tensor, query: Tensor) -> Tensor:
    """Find the largest product of each query column with a support row of unit length, zero outside the foreground.

    ``(B, M, C)``, ``(B, M)``, ``(B, C, N)`` -> ``(B, 1, N)``. On a CPU the products with background rows, which are
    zero, are skipped; elsewhere selecting rows would force a host-device synchronisation.
    """
    if not is_eager_cpu(support, foreground, query):
        # Not a product with the foreground: 0 * NaN is NaN.
        directions, scales = _directions(torch.where(foreground[..., None], support, 0).contiguous())
        batch, rows = query.shape[0], support.shape[1]
        # An exported program for any batch size must not split: the number of parts would depend on the batch.
        chunk = max(1, MAX_PRODUCTS // max(batch * query.shape[2], 1)) if isinstance(batch, int) else rows
        chunk = chunk // ALIGNED * ALIGNED or chunk
        pairs = zip(torch.split(directions, chunk, dim=1), torch.split(scales, chunk, dim=1), strict=True)
        return reduce(torch.maximum, [_largest(part, scale, query) for part, scale in pairs])
    best = query.new_empty(query.shape[0], 1, query.shape[2])
    for image, (rows, inside, columns) in enumerate(zip(support, foreground, query, strict=True)):
        chosen = rows[inside]
        chosen = chosen * inverse_norm(chosen)
        if len(chosen) < len(rows):
            chosen = torch.cat([chosen, rows.new_zeros(1, rows.shape[1])])
        best[image] = (chosen @ columns).amax(dim=0, keepdim=True)
    return best


def _directions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split unit vectors into rows and scales ``(B, M, 1)``, so that half-precision rows need no rounding."""
    inverse_lengths = inverse_norm(at_least_float32(rows))
    if rows.dtype == inverse_lengths.dtype:
        return rows * inverse_lengths, torch.ones_like(inverse_lengths)
    # Scaling by a power of two is exact, and keeps products from overflowing.
    limit = math.log2(torch.finfo(rows.dtype).max) // 1 - 1
    powers = torch.where(inverse_lengths > 0, inverse_lengths, 1).log2().floor().clamp(-limit, limit).exp2()
    return rows * powers.to(rows.dtype), inverse_lengths / powers


def _largest(rows: Tensor, scales: Tensor, columns: Tensor) -> Tensor:
    """Find the largest scaled product of each column: ``(B, m, C)``, ``(B, m, 1)``, ``(B, C, N)`` -> ``(B, 1, N)``.

    CUDA multiplies half-precision numbers directly, in a tenth of the time: their products are exact in float32.
    """
    dtype = scales.dtype
    if rows.dtype == dtype:
        return (rows @ columns).amax(dim=1, keepdim=True)
    if rows.device.type == "cuda" and hasattr(torch.ops.aten.bmm, "dtype"):  # from torch 2.8 on
        products = torch.bmm(rows, columns, out_dtype=dtype)
    else:
        products = rows.to(dtype) @ columns.to(dtype)
    return (products * scales).amax(dim=1, keepdim=True)
