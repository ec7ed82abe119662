"""Checks of an image and its mask before a transform."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._checks import FLOATS, MAX_SIDE, as_list, check_number

MASK_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
"""Integer dtypes that can hold 255, void."""


def check_image(image: tv_tensors.Image) -> None:
    """Raise unless an image can be transformed: ``(C, H, W)``, uint8 or floating point."""
    _check_kind("image", image, tv_tensors.Image)
    if image.ndim != 3 or image.numel() == 0:
        raise ValueError(f"image must have shape (C, H, W) and hold something, got {tuple(image.shape)}")
    if image.dtype != torch.uint8 and image.dtype not in FLOATS:
        raise TypeError(f"image must be uint8 or floating point, got {image.dtype}")


def check_pair(image: tv_tensors.Image, mask: tv_tensors.Mask) -> None:
    """Raise unless an image and its mask can be transformed together.

    Args:
        image: ``(C, H, W)``, uint8 or floating point.
        mask: ``(H, W)``, integers.

    Raises:
        ValueError: If a shape does not fit, or a side is empty.
        TypeError: If they are not ``tv_tensors.Image`` and ``tv_tensors.Mask``, or of another dtype.
    """
    check_image(image)
    _check_kind("mask", mask, tv_tensors.Mask)
    if mask.shape != image.shape[1:]:
        raise ValueError(f"mask must have the (H, W) of image, {tuple(image.shape[1:])}, got shape {tuple(mask.shape)}")
    if mask.dtype not in MASK_DTYPES:
        raise TypeError(f"mask must hold integers up to 255, got {mask.dtype}")


def _check_kind(name: str, value: Tensor, kind: type) -> None:
    # torchvision goes by the type: a mask that is a plain tensor would be resized bilinearly, as an image.
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a tv_tensors.{kind.__name__}, got {type(value).__name__}")


def check_color(color: Sequence[float]) -> tuple[float, ...]:
    """Return ``color`` as a tuple; raise unless it holds numbers, at least one."""
    listed = as_list("color", color, "a list with a number for each channel")
    if not listed:
        raise ValueError("color must be a number for each channel, got none")
    return tuple(check_number("every number of color", each, -MAX_SIDE, MAX_SIDE) for each in listed)


def fill_for(image: Tensor, color: tuple[float, ...]) -> list[float]:
    """Return the colour as a list; raise unless it has a number for each channel of the image, or one for all."""
    if len(color) not in (1, image.shape[0]):
        raise ValueError(f"color must have the {image.shape[0]} channels of image, got {color}")
    return list(color)
