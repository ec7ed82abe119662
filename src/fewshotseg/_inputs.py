"""Images and masks as users have them, PIL images, NumPy arrays or tensors, as one kind of tensor each."""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

ImageLike: TypeAlias = Image.Image | NDArray[np.generic] | Tensor
"""An image: PIL of any mode; an array ``(H, W)`` or ``(H, W, 3)``; a tensor ``(3, H, W)`` or ``(1, H, W)``.

Arrays and tensors hold uint8, or floating-point numbers from 0 to 1.
"""

MaskLike: TypeAlias = Image.Image | NDArray[np.generic] | Tensor
"""A mask ``(H, W)``: bool, or 1 foreground, 0 background, 255 void."""


def to_image(name: str, value: ImageLike) -> tv_tensors.Image:
    """Bring an image to ``(3, H, W)`` float32 from 0 to 1."""
    if isinstance(value, Image.Image):
        value = np.array(value.convert("RGB"))
    if isinstance(value, np.ndarray):
        pixels = torch.from_numpy(np.ascontiguousarray(value))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)
    elif isinstance(value, Tensor):
        pixels = value.detach().cpu()
    else:
        raise TypeError(f"{name} must be a PIL image, an array or a tensor, got {type(value).__name__}")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(
            f"{name} must have shape (H, W) or (H, W, 3) as an array, (3, H, W) or (1, H, W) as a tensor, "
            f"got {tuple(value.shape)}"
        )
    if pixels.dtype == torch.uint8:
        pixels = pixels.float() / 255
    elif not pixels.is_floating_point():
        raise TypeError(f"{name} must hold uint8 or floating-point numbers from 0 to 1, got {pixels.dtype}")
    elif not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise ValueError(
            f"{name} must hold numbers from 0 to 1 where floating-point, got {pixels.min():.3g} to {pixels.max():.3g}"
        )
    return tv_tensors.Image(pixels.float().expand(3, -1, -1))


def to_mask(name: str, value: MaskLike) -> tv_tensors.Mask:
    """Bring a mask to ``(H, W)`` int64 of 1, 0 and 255."""
    if isinstance(value, Image.Image):
        value = np.array(value)
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a PIL image, an array or a tensor, got {type(value).__name__}")
    if value.ndim != 2:
        raise ValueError(f"{name} must have shape (H, W), got {tuple(value.shape)}")
    mask = value.detach().cpu().long()
    found = torch.unique(mask).tolist()
    if not torch.equal(mask.to(value.dtype), value.detach().cpu()) or not set(found) <= {0, 1, 255}:
        raise ValueError(
            f"{name} must be bool or hold 1 (foreground), 0 (background) and 255 (void) only, "
            f"got values from {value.min()} to {value.max()}"
        )
    if 1 not in found:
        raise ValueError(
            f"{name} must have at least one foreground pixel (1 or True), got only the values {found}; 255 is void"
        )
    return tv_tensors.Mask(mask)
