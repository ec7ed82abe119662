"""Computes in at least float32, whatever the model's dtype or autocast, and tells where reading values is free."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast on the device of ``tensor``."""
    device = tensor.device.type
    if torch.compiler.is_compiling() or torch.amp.is_autocast_available(device):  # torch 2.6 can't trace the latter
        return torch.autocast(device, enabled=False)
    return nullcontext()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32, unless it is float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def inverse_norm(vectors: Tensor, dim: int = -1) -> Tensor:
    """Compute 1 / length of vectors along ``dim`` (kept, of size 1); 0 for a zero vector, NaN if not finite.

    Components are divided by the largest one first, so that squares neither overflow nor underflow.
    """
    if is_eager_cpu(vectors):
        # Several times faster than vector_norm for vectors that are not contiguous in memory.
        largest = torch.maximum(vectors.amax(dim, keepdim=True), -vectors.amin(dim, keepdim=True))
    else:
        largest = torch.linalg.vector_norm(vectors, torch.inf, dim=dim, keepdim=True)  # reads the vectors once
    tiny = torch.finfo(vectors.dtype).tiny
    safe = largest.clamp_min(tiny)  # keeps NaN
    scaled = vectors / safe
    if is_eager_cpu(vectors):
        length = scaled.square_().sum(dim, keepdim=True).sqrt()
    else:
        length = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    return torch.where(largest == 0, 0, (length * safe).clamp_min(tiny).reciprocal())


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Scale vectors along ``dim`` to length one; a zero vector, or one with NaN or infinity, becomes zero.

    Differentiable; the gradient of a zero vector is finite.
    """
    inverse = inverse_norm(vectors.detach(), dim)
    finite = inverse.isfinite()
    scaled = torch.where(finite, vectors, 0) * torch.where(finite, inverse, 0)
    return F.normalize(scaled, dim=dim, eps=0.5)  # gives the gradient of a direction; 0 / 0.5 for a zero vector


def is_eager_cpu(tensor: Tensor) -> bool:
    """Whether reading values is free: a real tensor on a CPU, neither fake, traced, compiled nor under vmap."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # has no types
        and tensor.device.type == "cpu"
        and type(tensor) is Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # vmap: the values of many at once
    )
