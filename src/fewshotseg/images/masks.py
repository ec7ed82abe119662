"""Reads masks: class ids from files, or one object from a file, a PIL image, an array or a tensor."""

import os
from io import BytesIO
from typing import IO, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._checks import check_path
from fewshotseg._io import StrPath, write_atomically
from fewshotseg.images.arrays import Array, channels_first
from fewshotseg.images.files import decode, opening, reading, upright
from fewshotseg.images.mask_rule import check_class_ids, object_labels
from fewshotseg.images.photos import rgb, rgba

MaskLike: TypeAlias = StrPath | Image.Image | NDArray[np.generic] | Tensor
"""A mask of one object: a path, a PIL image, an array or a tensor, with the shapes of `ImageLike`. See `to_mask`."""

# fmt: off
LOSSLESS = {
    "BMP", "CUR", "DCX", "DIB", "FITS", "GIF", "ICO", "IM", "MSP", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER",
    "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
}
# fmt: on
"""Pillow's names of the lossless formats; TIFF and WebP may also be lossy."""

GREYS_APART = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow multiplies the values of files with 2 or 4 bits of grey, to fill 0 to 255."""


def read_mask(path: StrPath) -> tv_tensors.Mask:
    """Read a mask whose pixel values are class ids, with 0 background and 255 void; palette colours are ignored.

    In a mask of 0 and 255 only, 255 is void here; `fewshotseg.data.FileSource` detects data sets whose masks are all
    white on black. Use `read_object_mask` for a hand-made mask of one object.

    Args:
        path: A file with one channel of at most 8 bits, palette or greyscale, in a lossless format such as PNG.

    Returns:
        ``(H, W)`` int64, the values as stored in 1, 2, 4 or 8 bits; EXIF orientation is applied.

    Raises:
        ValueError: If the file is broken, not regular, too large (as in `read_image`), in a lossy format, has other
            channels, or its values are interpolated. The message names the file.
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
    """Read a mask that is white on black; soft edges are cut at half brightness.

    Args:
        path: A file of any mode, in a lossless format such as PNG.

    Returns:
        ``(H, W)`` int64: 1 where the brightness is at least 128 of 255, else 0.

    Raises:
        ValueError: If the file is broken, not regular, too large (as in `read_image`) or in a lossy format.
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
    """Read a mask of one object, by the rules of `to_mask`.

    Args:
        path: A file of any mode, in a lossless format such as PNG.
        void: The value of pixels that are neither object nor background.

    Returns:
        ``(H, W)`` int64 of 0 background, 1 object and 255 void.

    Raises:
        ValueError: As in `to_mask`.
        OSError: If there is no such file, or it may not be read.
    """
    return _object_mask(str(path), decode(path, _drawn), void)


def to_mask(name: str, value: MaskLike, *, void: int | None = None) -> tv_tensors.Mask:
    """Convert a mask of one object to ``(H, W)`` int64 of 0 background, 1 object and 255 void.

    * False and 0 are background, True and 1 the object, 255 void. If there is one other value besides 0, it is the
      object. So is 255 if there is no 1, as in masks that are white on black; a warning says so once.
    * RGB with equal channels is read as grey. A single colour on black is the object.
    * If opacity varies, pixels that are not transparent are the object, except black ones next to a single colour.
    * In palette images the indices count, unless an index other than 0 is black or transparent: then the colours do.
    * White on black with smoothed edges is cut at half brightness; a warning says so once.
    * Everything else is refused: several values or colours, probabilities, lossy formats (JPEG, also in TIFF; JPEG
      2000, AVIF, HEIC, lossy WebP), and a mask without object.

    Args:
        name: The name of the mask in messages; files are named by their path.
        value: Any `MaskLike`.
        void: The value of pixels that are neither object nor background.

    Raises:
        ValueError: If the mask is refused, see above, has another shape, or a file or PIL image cannot be read.
        TypeError: If it is not a mask, or does not hold numbers.
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
        with opening(name, "a mask", value):
            return read_object_mask(value, void=void)
    return _mask(object_labels(name, channels_first(name, value), void))


def write_mask(path: StrPath, mask: NDArray[np.uint8]) -> None:
    """Write class ids as a palette PNG with the colours of PASCAL VOC.

    The file is replaced atomically; missing folders are created.

    Args:
        path: The file to write.
        mask: ``(H, W)`` uint8, class ids.

    Raises:
        ValueError: If ``mask`` is not of this shape and dtype.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"mask must have shape (H, W) and dtype uint8, got {mask.shape} and {mask.dtype}")
    image = Image.fromarray(mask)
    image.putpalette(palette())
    content = BytesIO()
    image.save(content, "png")
    write_atomically(check_path("path", path), content.getvalue())


class _Stored(NamedTuple):
    """The content of a mask's file or PIL image.

    Attributes:
        mode: Pillow's mode.
        lossy: The name of its format if that is lossy, else empty.
        numbers: Stored values or palette indices ``(H, W)``, or colours ``(H, W, 3 or 4)``.
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
    """Read as `_stored`, but with a palette's colours if an index other than 0 is black or transparent.

    Programs that turn a drawing into a palette image number its colours in any order: 0 may be the object.
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
    return torch.from_numpy(labels).long().as_subclass(tv_tensors.Mask)  # Mask() would move it to the default device


def _check_lossless(name: str, lossy: str) -> None:
    if lossy:
        raise ValueError(f"{name} must be in a lossless format such as PNG, as {lossy} changes the pixels of a mask")


def _lossy(image: Image.Image) -> str:
    """Return the format of a PIL image if it is lossy, else an empty string."""
    if image.format is None:  # not from a file
        return ""
    if image.format == "TIFF" and image.info.get("compression") in {"jpeg", "tiff_jpeg", "webp"}:
        return "JPEG in TIFF"
    if image.format == "WEBP" and not _is_lossless_webp(getattr(image, "fp", None)):
        return "WebP that is not lossless"
    return "" if image.format in LOSSLESS else image.format


def _is_lossless_webp(file: IO[bytes] | None) -> bool:
    """Whether a WebP file is lossless; False for animations, which may mix both."""
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
    """Compute PASCAL VOC's palette: each three bits of an id are one bit of red, green and blue, highest first."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * i + c)) & 1) << (7 - i) for i in range(3)) for c in range(3)]
    palette: list[int] = np.stack(channels, axis=1).flatten().tolist()
    return palette
