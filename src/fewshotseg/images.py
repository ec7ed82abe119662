"""Reading images and masks from any file that Pillow can decode, and writing masks. Everything of it in one place."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision import tv_tensors

from fewshotseg._io import StrPath, write_atomically

Result = TypeVar("Result")


def read_image(path: StrPath) -> tv_tensors.Image:
    """Read a photograph as RGB.

    Greyscale, palette and CMYK files are converted, of 16 bits the high 8 are kept, transparency is dropped, and the
    orientation that a camera wrote into EXIF is applied.

    Args:
        path: A file in any format that Pillow reads.

    Returns:
        ``(3, H, W)`` uint8.

    Raises:
        ValueError: If the file is broken, no image, of floating-point pixels, or has more than
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels. The message names the file.
        OSError: If there is no such file, or it may not be read.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> path = pathlib.Path(tempfile.mkdtemp(), "grey.png")
        >>> Image.new("L", (4, 3), 7).save(path)
        >>> read_image(path).shape
        torch.Size([3, 3, 4])
    """
    return tv_tensors.Image(_decode(path, _rgb))


def read_mask(path: StrPath) -> tv_tensors.Mask:
    """Read a mask whose pixel values are class ids. A palette's colours play no part.

    Args:
        path: A file with one channel of at most 8 bits, palette or greyscale, in a lossless format such as PNG.

    Returns:
        ``(H, W)`` int64, the values as they are stored. A 1-bit file gives 0 and 1. EXIF is not looked at.

    Raises:
        ValueError: If the file is broken, too large (as in `read_image`), a JPEG, or has other channels.
        OSError: If there is no such file, or it may not be read.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mask.png")
        >>> write_mask(path, np.array([[0, 1], [20, 255]], dtype=np.uint8))
        >>> read_mask(path).tolist()
        [[0, 1], [20, 255]]
    """
    return tv_tensors.Mask(torch.from_numpy(_decode(path, _class_ids)).long())


def read_binary_mask(path: StrPath) -> tv_tensors.Mask:
    """Read a mask that is white on black, of any mode and format.

    Args:
        path: A file in any format that Pillow reads.

    Returns:
        ``(H, W)`` int64: 1 where the brightness is at least 128 of 255, else 0.

    Raises:
        ValueError: As `read_image`.
        OSError: If there is no such file, or it may not be read.
    """
    return tv_tensors.Mask(
        torch.from_numpy(_decode(path, lambda image: np.array(_rgb(image).convert("L")) >= 128)).long()
    )


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
    image.putpalette(_palette())
    content = BytesIO()
    image.save(content, "png")
    write_atomically(Path(path), content.getvalue())


def _decode(path: StrPath, convert: Callable[[Image.Image], Result]) -> Result:
    """Open, decode and convert; whatever the content makes go wrong becomes a ValueError with the file's name."""
    with Path(path).open("rb") as file:
        try:
            if os.fstat(file.fileno()).st_size == 0:
                raise ValueError("the file is empty")
            image = Image.open(file)
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:  # only a warning in Pillow
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            image.load()
            return convert(image)
        except MemoryError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(
                f"{path} has more than PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS} pixels; "
                "raise that limit if you trust the file"
            ) from error
        except Exception as error:  # decoders raise whatever the bytes lead them to
            raise ValueError(f"{path} cannot be read: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no range to convert from; store 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels must be in 0 to 65535, got {values.min()} to {values.max()}")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if "transparency" in image.info:  # Pillow warns of a palette with several transparent colours otherwise
        image = image.convert("RGBA")
    return image.convert("RGB")


def _class_ids(image: Image.Image) -> NDArray[np.uint8]:
    if image.format in {"JPEG", "MPO"}:
        raise ValueError("JPEG changes pixel values, so a mask must be in a lossless format such as PNG")
    if image.mode not in {"P", "L", "1"}:
        raise ValueError(f"a mask must have one channel of 8 bits (mode P or L), got mode {image.mode}")
    return np.array(image)


def _palette() -> list[int]:
    """PASCAL VOC's colours: the bits of an id, three at a time, are the high bits of red, green and blue."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * i + c)) & 1) << (7 - i) for i in range(3)) for c in range(3)]
    palette: list[int] = np.stack(channels, axis=1).flatten().tolist()
    return palette
