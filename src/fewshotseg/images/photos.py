"""Reads photographs: the same pixels from a file, a PIL image, an array or a tensor."""

import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._checks import MAX_SIDE
from fewshotseg._io import StrPath
from fewshotseg.images.arrays import Array, channels_first
from fewshotseg.images.files import decode, opening, reading, upright
from fewshotseg.images.said import say_once

ImageLike: TypeAlias = StrPath | Image.Image | NDArray[np.generic] | Tensor
"""A photograph: the path of a file, a PIL image of any mode, an array ``(H, W)`` or ``(H, W, C)``, or a tensor
``(H, W)`` or ``(C, H, W)``, with 1, 3 or 4 channels: grey, RGB, or RGB with transparency, which is dropped.

uint8, floating-point numbers from 0 to 1, or whole numbers from 0 to 65535 in more than 8 bits.
"""

NEARLY_BLACK, DARK = 1 << 12, 1 << 14
"""Largest values of photographs that a camera of 12 or 14 bits stored in 16 bits without scaling."""


def read_image(path: StrPath) -> tv_tensors.Image:
    """Read a photograph as RGB.

    Greyscale, palette, CMYK and LAB files are converted. 16-bit files are reduced to their high 8 bits, floating-point
    numbers from 0 to 1 are rounded to 8 bits, transparency is dropped, and EXIF orientation is applied. If a file holds
    several images, the first is read.

    Args:
        path: A file in any raster format that Pillow reads; HEIC needs the extra ``heif``.

    Returns:
        ``(3, H, W)`` uint8.

    Raises:
        ValueError: If the file is broken, not an image, not a regular file, has more than
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, a side of more than 65536, or values of an unknown range (see
            `to_image`). The message names the file.
        OSError: If there is no such file, or it may not be read.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> path = pathlib.Path(tempfile.mkdtemp(), "grey.png")
        >>> Image.new("L", (4, 3), 7).save(path)
        >>> read_image(path).shape
        torch.Size([3, 3, 4])
    """
    return _as_bytes(_read(path)).as_subclass(tv_tensors.Image)  # Image() would move it to the default device


def read_reduced(path: StrPath, factor: Callable[[tuple[int, int]], int]) -> tuple[tv_tensors.Image, tuple[int, int]]:
    """Read a photograph as `read_image` does, and reduce it by a whole factor.

    Each square of pixels is replaced by its mean. JPEG files are decoded at 1/2, 1/4 or 1/8 of their size if that is
    not smaller than asked for, which is several times faster and differs from the mean by a few grey levels; they may
    stay up to twice as large as asked for.

    Args:
        path: The file.
        factor: Computes the factor, 1 or more, from height and width.

    Returns:
        ``(3, h, w)`` uint8, and the photograph's own height and width.

    Raises:
        ValueError: As `read_image`.
        OSError: As `read_image`.
    """

    def extract(image: Image.Image) -> tuple[tuple[Array, int], tuple[int, int]]:
        width, height = image.size
        step = factor((height, width))
        if image.format == "JPEG" and step > 1:
            image.draft(None, (-(-width // step), -(-height // step)))
        drafted = image.size
        values = _stored(image)
        if drafted == (width, height):
            return values, (values[0].shape[0], values[0].shape[1])
        turned = values[0].shape[1::-1] != drafted
        return values, (width, height) if turned else (height, width)

    (values, bits), size = decode(path, extract)
    pixels = _pixels(str(path), channels_first(str(path), values), bits)
    step = factor(size) * max(values.shape[:2]) // max(size)
    return reduce_image(_as_bytes(pixels), max(step, 1)), size


def reduce_image(pixels: Tensor, step: int) -> tv_tensors.Image:
    """Reduce ``(3, H, W)`` uint8: each square of ``step`` x ``step`` pixels becomes its mean."""
    if step > 1:
        small = Image.fromarray(pixels.permute(1, 2, 0).numpy()).reduce(step)
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
    return pixels.as_subclass(tv_tensors.Image)


def to_image(name: str, value: ImageLike) -> tv_tensors.Image:
    """Convert a photograph to ``(3, H, W)`` float32 from 0 to 1; files and PIL images are read as by `read_image`.

    Integers of more than 8 bits are 16-bit photographs, reduced to their high 8 bits. If all values are below 4096, as
    cameras of 12 bits store them, the photograph would be nearly black and is refused; below 16384 a warning is given.

    Args:
        name: The name of the photograph in messages.
        value: Any `ImageLike`.

    Raises:
        ValueError: If the shape or the values are out of range, or a file or PIL image cannot be read.
        TypeError: If it is not an image, or does not hold numbers.
        OSError: If there is no such file.

    Example:
        >>> import numpy as np
        >>> to_image("photo", np.full((2, 2), 65535, dtype=np.uint16)).unique()
        tensor([1.])
    """
    if isinstance(value, Image.Image):
        with reading(name):
            values, bits = _stored(value)
        pixels = _pixels(name, channels_first(name, values), bits)
    elif isinstance(value, (str, os.PathLike)):
        with opening(name, "an image", value):
            pixels = _read(value)
    else:
        pixels = _pixels(name, channels_first(name, value))
    return (pixels if pixels.dtype == torch.float32 else pixels.float() / 255).as_subclass(tv_tensors.Image)


def rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode of at most 8 bits to RGB; transparency is dropped."""
    if image.mode == "LAB":
        from PIL import ImageCms  # optional in builds of Pillow

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
    if image.has_transparency_data:  # Pillow would warn about a palette with several transparent colours
        image = rgba(image)
    return image.convert("RGB")


def rgba(image: Image.Image) -> Image.Image:
    """Convert a loaded image with transparency to RGBA."""
    return image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")


def _as_bytes(pixels: Tensor) -> Tensor:
    return pixels if pixels.dtype == torch.uint8 else (255 * pixels).round().to(torch.uint8)


def _read(path: StrPath) -> Tensor:
    values, bits = decode(path, _stored)
    return _pixels(str(path), channels_first(str(path), values), bits)


def _stored(image: Image.Image) -> tuple[Array, int]:
    """Return the values of an image, ``(H, W)`` or ``(H, W, 3)``, and the number of bits of each in its file."""
    layout = str(getattr(image, "tile", ""))  # such as "RGB;16B"; after loading Pillow keeps only the high 8 bits
    bits = 16 if ";16" in layout else 12 if "I;12" in layout else 8
    image = upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return np.asarray(image), bits
    return np.asarray(rgb(image)), bits


def _pixels(name: str, values: Array, bits: int = 8) -> Tensor:
    """Convert ``(C, H, W)`` values to ``(3, H, W)``, uint8 or float32 from 0 to 1."""
    height, width = values.shape[1:]
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"{name} must have sides of at most {MAX_SIDE} pixels, got {width} x {height}; "
            "cut it into parts, or make it smaller"
        )
    kind = values.dtype.kind
    if kind == "f":
        values = _unit(name, values)
    elif kind == "b":
        values = values.astype(np.uint8) * 255
    elif values.dtype != np.uint8:
        values = _high_bits(name, values, bits)
    elif bits == 16:
        _check_brightness(name, int(values.max()) << 8)
    return torch.from_numpy(values[:3].copy(order="K")).expand(3, -1, -1)


def _unit(name: str, values: Array) -> NDArray[np.float32]:
    low, high = float(np.min(values)), float(np.max(values))
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # true for NaN
        hint = "; divide by 255 if that is white" if low >= 0 and 1 < high <= 255 else ""
        raise ValueError(f"{name} must hold numbers from 0 to 1 if floating-point, got {low:.3g} to {high:.3g}{hint}")
    return values.astype(np.float32).clip(0, 1)


def _high_bits(name: str, values: Array, bits: int) -> NDArray[np.uint8]:
    low, high = int(np.min(values)), int(np.max(values))
    if bits == 12:
        return (values.astype(np.uint16) >> 4).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(
            f"{name} must hold integers from 0 to 65535 if they have more than 8 bits, got {low} to {high}; scale them"
        )
    _check_brightness(name, high)
    return (values.astype(np.uint16) >> 8).astype(np.uint8)


def _check_brightness(name: str, high: int) -> None:
    if 0 < high < NEARLY_BLACK:
        raise ValueError(
            f"{name} must use the range from 0 to 65535 if its integers have more than 8 bits, "
            f"but the largest is {high}, which is nearly black; scale it, or convert it to 8 bits"
        )
    if NEARLY_BLACK <= high < DARK:
        say_once(
            "dark",
            f"{name} is read as a dark photograph, as its 16-bit values only go up to {high}; "
            "if a camera of 14 bits took it, scale it to the range from 0 to 65535",
        )
