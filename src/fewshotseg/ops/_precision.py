"""Computes in at least float32, whatever the model's dtype or autocast, and tells where reading values is free."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast on the device of ``tensor``."""
    device = tensor.device.type
    if torch.compiler.is_compiling() or torch.amp.is_autocast_available(device):  # torch 2.6 can't trace the latter
        return torch.autocast(device, enabled=False)
    return nullcontext()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype that autocast on a device computes in; None if it is off or the device has none."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


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


def is_in_graph() -> bool:
    """Whether the running code becomes part of a graph: under `torch.compile`, export or tracing."""
    is_tracing: Any = torch.jit.is_tracing  # type: ignore[attr-defined]  # has no types
    return torch.compiler.is_compiling() or bool(is_tracing())


def is_eager_cpu(*tensors: Tensor) -> bool:
    """Whether reading values is free: real tensors on a CPU, none of them fake, traced, compiled or under vmap."""
    return not is_in_graph() and all(
        tensor.device.type == "cpu"
        and type(tensor) is Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # vmap: the values of many at once
        for tensor in tensors
    )
