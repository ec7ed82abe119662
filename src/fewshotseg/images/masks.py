"""Masks: class ids from files, and one object from a file, a PIL image, an array or a tensor."""

import os
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._io import StrPath, write_atomically
from fewshotseg.images.arrays import Array, channels_first
from fewshotseg.images.files import decode, reading, shorten, upright
from fewshotseg.images.mask_rule import check_class_ids, object_labels
from fewshotseg.images.photos import rgb, rgba

MaskLike: TypeAlias = StrPath | Image.Image | NDArray[np.generic] | Tensor
"""A mask of one object: a path, a PIL image, an array or a tensor, laid out as an `ImageLike`. See `to_mask`."""

# fmt: off
LOSSLESS = {
    "BMP", "CUR", "DCX", "DIB", "FITS", "GIF", "ICO", "IM", "MSP", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER",
    "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
}
# fmt: on
"""Pillow's names of the formats that keep every pixel; TIFF and WebP may."""

GREYS_APART = {"L;2": 85, "L;4": 17}
"""Between two numbers of a file with 2 or 4 bits of grey, which Pillow spreads to 0 to 255."""


def read_mask(path: StrPath) -> tv_tensors.Mask:
    """Read a mask whose pixel values are class ids, 0 background and 255 void. A palette's colours play no part.

    In a mask of 0 and 255 alone, 255 is void here; data sets know whether all their masks are white on black, see
    `fewshotseg.data.FileSource`. A person's mask of one object is for `read_object_mask`.

    Args:
        path: A file with one channel of at most 8 bits, palette or greyscale, in a lossless format such as PNG.

    Returns:
        ``(H, W)`` int64, the values as they are stored, in 1, 2, 4 or 8 bits; turned if EXIF says so, as photographs.

    Raises:
        ValueError: If the file is broken, not regular, too large (as in `read_image`), of a format that changes pixels
            or of other channels, or if its values are interpolated. The message names the file.
        OSError: If there is no such file, or it may not be read.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mask.png")
        >>> write_mask(path, np.array([[0, 1], [20, 255]], dtype=np.uint8))
        >>> read_mask(path).tolist()
        [[0, 1], [20, 255]]
    """
    stored = decode(path, _stored)
    _check_lossless(str(path), stored.lossy)
    if stored.mode not in {"P", "L", "1"}:
        raise ValueError(
            f"{path} must have one channel of 8 bits (mode P or L) to hold class ids, got mode {stored.mode}"
        )
    labels = stored.numbers.astype(np.uint8)
    check_class_ids(str(path), labels)
    return _mask(labels)


def read_binary_mask(path: StrPath) -> tv_tensors.Mask:
    """Read a mask that is white on black, with edges of any softness.

    Args:
        path: A file of any mode, in a lossless format such as PNG.

    Returns:
        ``(H, W)`` int64: 1 where the brightness is at least 128 of 255, else 0.

    Raises:
        ValueError: If the file is broken, not regular, too large (as in `read_image`) or may have changed pixels.
        OSError: If there is no such file, or it may not be read.
    """

    def extract(image: Image.Image) -> tuple[str, Array]:
        if image.mode == "F" or image.mode.startswith("I"):
            raise ValueError(f"it must have 8 bits a channel, got mode {image.mode}")
        return _lossy(image), np.asarray(rgb(upright(image)).convert("L")) >= 128

    lossy, bright = decode(path, extract)
    _check_lossless(str(path), lossy)
    return _mask(bright)


def read_object_mask(path: StrPath, *, void: int | None = None) -> tv_tensors.Mask:
    """Read a person's mask of one object, by the rule of `to_mask`.

    Args:
        path: A file of any mode, in a lossless format such as PNG.
        void: A value that marks pixels that are neither object nor background.

    Returns:
        ``(H, W)`` int64 of 0 background, 1 object and 255 void.

    Raises:
        ValueError: As in `to_mask`.
        OSError: If there is no such file, or it may not be read.
    """
    return _object_mask(str(path), decode(path, _drawn), void)


def to_mask(name: str, value: MaskLike, *, void: int | None = None) -> tv_tensors.Mask:
    """Bring a mask of one object to ``(H, W)`` int64 of 0 background, 1 object and 255 void.

    * Bools, and numbers 0, 1 and 255 are what they are called. One other value beside 0 is the object: so is 255
      where there is no 1, as in masks that are white on black; a warning says so once.
    * Grey RGB counts as grey. On black, one colour is the object.
    * Where opacity varies, what is not transparent is the object; but black is not, beside one other colour.
    * A palette's indices count, unless another colour than the first is black: then colours do.
    * White on black with smoothed edges is cut at half, and a warning says so once.
    * Everything else is refused: several values or colours, probabilities, formats that change pixels (JPEG, also in
      TIFF; JPEG 2000, AVIF, HEIC, lossy WebP), and a mask without object.

    Args:
        name: What to call it in messages; a file is called by its path.
        value: Any `MaskLike`.
        void: A value that marks pixels that are neither object nor background.

    Raises:
        ValueError: If it is refused, see above, has another shape, or a file or PIL image cannot be read.
        TypeError: If it is no mask, or holds other things than numbers.
        OSError: If there is no such file.

    Example:
        >>> import numpy as np
        >>> to_mask("mask", np.array([[0, 7]])).tolist()
        [[0, 1]]
    """
    if isinstance(value, Image.Image):
        with reading(name):
            stored = _drawn(value)
        return _object_mask(name, stored, void)
    if isinstance(value, (str, os.PathLike)):
        try:
            return read_object_mask(value, void=void)
        except OSError as error:
            raise type(error)(
                f"{name} must be a mask, but {shorten(str(value))} cannot be opened: {error.strerror}"
            ) from error
    return _mask(object_labels(name, channels_first(name, value), void))


def write_mask(path: StrPath, mask: NDArray[np.uint8]) -> None:
    """Write class ids as a palette PNG, in the colours of PASCAL VOC, so that viewers show something.

    The file is replaced whole; a crash leaves no half of it. Missing folders are made.

    Args:
        path: Where to.
        mask: ``(H, W)`` uint8, class ids.

    Raises:
        ValueError: If ``mask`` is not of this shape and dtype.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"mask must have shape (H, W) and dtype uint8, got {mask.shape} and {mask.dtype}")
    image = Image.fromarray(mask)
    image.putpalette(palette())
    content = BytesIO()
    image.save(content, "png")
    write_atomically(Path(path), content.getvalue())


class _Stored(NamedTuple):
    """What the file or PIL image of a mask holds.

    Attributes:
        mode: Pillow's.
        lossy: The name of its format if that may have changed pixels, else empty.
        numbers: ``(H, W)`` as they are stored, the indices of a palette; or colours, ``(H, W, 3 or 4)``.
    """

    mode: str
    lossy: str
    numbers: Array


def _stored(image: Image.Image) -> _Stored:
    lossy, layout = _lossy(image), str(getattr(image, "tile", ""))
    apart = next((step for raw, step in GREYS_APART.items() if f"'{raw}" in layout), 1)
    image = upright(image)
    mode = image.mode
    if mode in {"1", "F", "P"} or mode.startswith("I") or (mode == "L" and not image.has_transparency_data):
        numbers = np.asarray(image)
        return _Stored(mode, lossy, numbers // apart if apart > 1 else numbers)
    return _Stored(mode, lossy, np.asarray(rgba(image) if image.has_transparency_data else rgb(image)))


def _drawn(image: Image.Image) -> _Stored:
    """The same, but colours in place of a palette's indices where black or nothing is another index than 0.

    Programs that make a palette of a drawing number its colours as they like: 0 may well be the object.
    """
    stored = _stored(image)
    if stored.mode != "P":
        return stored
    colours = np.asarray(rgba(upright(image)))
    indices, places = np.unique(stored.numbers, return_index=True)
    used = colours.reshape(-1, 4)[places]
    empty = (used[:, :3] == 0).all(axis=1) | (used[:, 3] == 0)
    return stored._replace(numbers=colours) if empty.any() and not (empty[0] and indices[0] == 0) else stored


def _object_mask(name: str, stored: _Stored, void: int | None) -> tv_tensors.Mask:
    _check_lossless(name, stored.lossy)
    return _mask(object_labels(name, channels_first(name, stored.numbers), void))


def _mask(labels: Array) -> tv_tensors.Mask:
    return torch.from_numpy(labels).long().as_subclass(tv_tensors.Mask)  # calling it would move it to a default device


def _check_lossless(name: str, lossy: str) -> None:
    if lossy:
        raise ValueError(
            f"{name} must be in a format that keeps the pixels of a mask as they are, such as PNG; {lossy} changes them"
        )


def _lossy(image: Image.Image) -> str:
    """The format of a PIL image if it may have changed pixels."""
    if image.format is None:  # made here, from no file
        return ""
    if image.format == "TIFF" and image.info.get("compression") in {"jpeg", "tiff_jpeg", "webp"}:
        return "JPEG in TIFF"
    if image.format == "WEBP" and not _is_lossless_webp(getattr(image, "fp", None)):
        return "WebP that is not lossless"
    return "" if image.format in LOSSLESS else image.format


def _is_lossless_webp(file: IO[bytes] | None) -> bool:
    """Whether the pixels are of the lossless kind; of moving pictures, where some may be, this says no."""
    if file is None or file.closed:
        return False
    file.seek(12)
    while len(header := file.read(8)) == 8:
        kind, size = header[:4], int.from_bytes(header[4:], "little")
        if kind in {b"VP8L", b"VP8 "}:
            return kind == b"VP8L"
        file.seek(size + size % 2, os.SEEK_CUR)
    return False


def palette() -> list[int]:
    """PASCAL VOC's colours: the bits of an id, three at a time, are the high bits of red, green and blue."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * i + c)) & 1) << (7 - i) for i in range(3)) for c in range(3)]
    palette: list[int] = np.stack(channels, axis=1).flatten().tolist()
    return palette
