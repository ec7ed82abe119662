"""Scores of the locations of a map: cosines with prototypes, and densities of the examples' points."""

import torch
from einops import rearrange
from torch import Tensor

from fewshotseg._checks import check_floating, check_number, check_real, check_sizes, check_tensor
from fewshotseg.ops._precision import at_least_float32, is_eager_cpu, unit, without_autocast
from fewshotseg.ops._values import look_at_weights
from fewshotseg.ops.resizing import RESIZED_ZERO

MAX_KAPPA = 1e4
"""Limit that catches mistakes: above it only the nearest point would count."""

MAX_FACTOR = 1e6
"""Largest scale or bias."""

CHUNK = 2**21
"""Cosines of locations with points in memory at a time, for each image."""


def cosine_logits(
    features: Tensor, prototypes: Tensor, *, scale: float | Tensor = 10.0, bias: float | Tensor = 0.0
) -> Tensor:
    r"""Compute logits of every class: the largest cosine of a location with the prototypes of the class, scaled.

    $$l_k(x) = s \max_p \cos(F(x), P_{kp}) + b$$

    Args:
        features: ``(B, C, h, w)``, floating point.
        prototypes: ``(B, K, C)`` for one prototype of each of K classes, or ``(B, K, P, C)`` for P of each.
        scale: $s$, the factor of the cosine: a number from -1e6 to 1e6, or a floating-point tensor of one element or
            of one for each class.
        bias: $b$, likewise.

    Returns:
        ``(B, K, h, w)`` float32, or float64 if features or prototypes are. A vector that is zero or holds NaN or
        infinity has cosine 0 with everything. Differentiable in all tensors.

    Raises:
        ValueError: If a shape or a device does not fit, or a number is out of range.
        TypeError: If features or prototypes are not floating point, or ``scale`` or ``bias`` is neither number nor
            floating-point tensor.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 0.0, 3.0]], [[0.0, 2.0, 4.0]]]])
        >>> cosine_logits(features, torch.eye(2)[None], scale=1.0)
        tensor([[[[1.0000, 0.0000, 0.6000]],
        <BLANKLINE>
                 [[0.0000, 1.0000, 0.8000]]]])
    """
    check_tensor("features", features, "B C H W")
    check_floating("features", features)
    check_tensor("prototypes", prototypes, "B K C", "B K P C")
    check_floating("prototypes", prototypes)
    several = prototypes if prototypes.ndim == 4 else prototypes[:, :, None]  # B K P C
    check_sizes("prototypes", several, "B K P C", features, "features", "B C H W")
    classes = several.shape[1]
    with without_autocast(features):
        dtype = torch.promote_types(torch.promote_types(features.dtype, prototypes.dtype), torch.float32)
        points = rearrange(unit(features.to(dtype), dim=1), "b c h w -> b c (h w)")
        directions = unit(several.to(dtype), dim=3)
        cosines = rearrange(directions, "b k p c -> b (k p) c") @ points
        best = rearrange(cosines, "b (k p) n -> b k p n", k=classes).amax(dim=2)  # B K N
        logits = _factor("scale", scale, best) * best + _factor("bias", bias, best)
    return rearrange(logits, "b k (h w) -> b k h w", h=features.shape[2])


def density_logits(
    features: Tensor, points: Tensor, foreground: Tensor, background: Tensor, *, kappa: float | Tensor = 40.0
) -> Tensor:
    r"""Compute logits of background and foreground: log densities of the examples' points of each around a location.

    With the weights $w_i$ of the points $r_i$ of one class,

    $$d(x) = \log \frac{\sum_i w_i \exp(\kappa \cos(F(x), r_i))}{\sum_i w_i},$$

    the log of a von Mises-Fisher kernel density, up to a term that both classes share. The softmax over both is the
    probability of foreground if foreground and background are equally likely beforehand.

    Args:
        features: ``(B, C, h, w)`` of the images to segment, floating point.
        points: ``(B, M, C)`` features of the examples, of all shots together.
        foreground: ``(B, M)``, how much each point belongs to the foreground: bool, or weights from 0 to 1, where those
            up to 1e-6 count as 0. Void points have weight 0 in both classes.
        background: ``(B, M)``, likewise for the background.
        kappa: Concentration of the kernel: how fast the influence of a point falls with the angle. A number from 0 to
            10000, or a floating-point tensor of one element.

    Returns:
        ``(B, 2, h, w)``, background and foreground, at most ``kappa``; float32, or float64 if features or points are.
        Differentiable in all floating-point tensors.

        Vectors that are zero, and locations with NaN or infinity, have cosine 0 with everything; points with NaN or
        infinity are left out. If no point is background, its channel is ``-kappa`` everywhere, the least that a point
        can give; if none is foreground, that channel is ``-2 kappa``, so that nothing is found. In float32 no channel
        falls more than 87 plus the log of its class's total weight below ``kappa`` times the largest cosine with a
        point of either class. Without gradients, memory does not grow with the size of the images.

    Raises:
        ValueError: If a shape or a device does not fit, ``kappa`` is out of range, or weights on a CPU are not from 0
            to 1.
        TypeError: If features or points are not floating point, weights are complex, or ``kappa`` is neither number nor
            floating-point tensor.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 0.0, 3.0]], [[0.0, 2.0, 4.0]]]])
        >>> points = torch.tensor([[[5.0, 0.0], [0.0, 1.0]]])
        >>> is_object = torch.tensor([[True, False]])
        >>> density_logits(features, points, is_object, ~is_object, kappa=5.0).softmax(dim=1)[:, 1]
        tensor([[[0.9933, 0.0067, 0.2689]]])
    """
    check_tensor("features", features, "B C H W")
    check_floating("features", features)
    check_tensor("points", points, "B M C")
    check_floating("points", points)
    check_sizes("points", points, "B M C", features, "features", "B C H W")
    for name, weights in (("foreground", foreground), ("background", background)):
        check_tensor(name, weights, "B M")
        check_real(name, weights)
        check_sizes(name, weights, "B M", points, "points", "B M C")
        look_at_weights(name, weights)
    with without_autocast(features):
        dtype = torch.promote_types(torch.promote_types(features.dtype, points.dtype), torch.float32)
        shares = torch.stack([background, foreground], dim=2).to(dtype)  # B M 2
        finite = points.amax(dim=2).isfinite() & points.amin(dim=2).isfinite()  # faster than isfinite of all
        shares = torch.where(finite[..., None] & (shares > RESIZED_ZERO), shares, 0)
        if is_eager_cpu(shares):  # points of neither class, such as void ones, change nothing
            some = (shares > 0).any(dim=2).any(dim=0)
            some = some | ~some.any()  # without any point there would be no gradient
            points, shares = points[:, some], shares[:, some]
        totals = shares.sum(dim=1, keepdim=True)  # B 1 2
        concentration = _concentration(kappa, shares)
        queries = rearrange(unit(features.to(dtype), dim=1), "b c h w -> b (h w) c")
        directions = unit(points.to(dtype), dim=2).mT  # B C M
        rows = max(CHUNK // points.shape[1], 1)
        # Points of neither class are moved further away than any other, so that they are never the nearest.
        away = -4 * concentration * (shares == 0).all(dim=2).to(dtype)  # B M
        parts = [
            _log_sums(part * concentration, directions, away[:, None], shares)
            for part in torch.split(queries, rows, dim=1)
        ]
        means = torch.cat(parts, dim=1) - torch.where(totals > 0, totals, 1).log()  # B N 2
        nothing = -concentration * torch.arange(1, 3, device=means.device, dtype=means.dtype)
        logits = torch.where(totals > 0, means, nothing)
    return rearrange(logits, "b (h w) s -> b s h w", h=features.shape[2])


def _log_sums(queries: Tensor, directions: Tensor, away: Tensor, shares: Tensor) -> Tensor:
    """Log of weighted kernel sums: ``(B, n, C)``, ``(B, C, M)``, ``(B, 1, M)``, ``(B, M, 2)`` -> ``(B, n, 2)``."""
    exponents = torch.baddbmm(away, queries, directions)  # B n M
    highest = exponents.detach().amax(dim=2, keepdim=True)
    kernels = exponents.sub_(highest).exp_()  # in place: allocating memory takes longer than computing
    sums = (shares.mT @ kernels.mT).mT
    return sums.clamp_min(torch.finfo(sums.dtype).tiny).log() + highest


def _factor(name: str, value: float | Tensor, like: Tensor) -> float | Tensor:
    """Check a scale or bias, and shape it to be multiplied with ``like (B, K, N)``."""
    if not isinstance(value, Tensor):
        return check_number(name, value, -MAX_FACTOR, MAX_FACTOR)
    check_floating(name, value)
    if value.numel() not in (1, like.shape[1]) or value.ndim > 1:
        raise ValueError(
            f"{name} must be a number or a tensor of 1 or K={like.shape[1]} elements, got shape {tuple(value.shape)}"
        )
    return value.to(like.dtype).reshape(-1, 1)


def _concentration(kappa: float | Tensor, like: Tensor) -> float | Tensor:
    if not isinstance(kappa, Tensor):
        return check_number("kappa", kappa, 0, MAX_KAPPA)
    check_floating("kappa", kappa)
    if kappa.numel() != 1:
        raise ValueError(f"kappa must be a number or a tensor of one element, got shape {tuple(kappa.shape)}")
    return at_least_float32(kappa).to(like.dtype).reshape(())
