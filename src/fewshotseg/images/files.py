"""Opens image files of raster formats; every failure becomes one sentence with the file's name."""

import importlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

from PIL import Image, UnidentifiedImageError

from fewshotseg._checks import check_path
from fewshotseg._io import StrPath

Result = TypeVar("Result")

NOT_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow opens but that hold drawings, videos or measurements; some start other programs."""

HEIF_ENDINGS = {".heic", ".heif", ".hif"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that turns the image upright."""


def photo_endings() -> frozenset[str]:
    """Return the file endings of photographs, in lower case: all raster formats that Pillow reads, and HEIC.

    Example:
        >>> {".jpg", ".png", ".tiff", ".webp", ".heic"} <= photo_endings(), ".pdf" in photo_endings()
        (True, False)
    """
    readable = {*_raster_formats(), "MPO"}  # which Pillow opens as JPEG
    return frozenset(HEIF_ENDINGS.union(e for e, name in Image.registered_extensions().items() if name in readable))


def decode(path: StrPath, extract: Callable[[Image.Image], Result]) -> Result:
    """Open an image file, and return what ``extract`` takes from it.

    Args:
        path: A regular file; pipes and devices are refused, as opening them may block for ever.
        extract: Is called with the image, which is open but not yet loaded.

    Raises:
        ValueError: If the file is not regular, broken, not an image or too large; the message names it.
        OSError: If there is no such file, or it may not be read.
        TypeError: If ``path`` is not a path.
    """
    name, path = shorten(str(path)), check_path("path", path)
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a NUL character
        raise ValueError(f"{name!r} cannot be the name of a file: {error}") from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error  # shortened: base64 passed as a path is long
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ValueError(f"{name} must be a regular file, but it is {kind}")
    with path.open("rb") as file, reading(name):
        image = _open(file)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:  # only a warning in Pillow
            raise Image.DecompressionBombError
        return extract(image)


@contextmanager
def opening(name: str, kind: str, path: StrPath) -> Iterator[None]:
    """Say in the message of an `OSError` that ``name`` must be ``kind``, such as "an image", and the file's name."""
    try:
        yield
    except OSError as error:
        file = shorten(str(path))
        raise type(error)(f"{name} must be {kind}, but {file} cannot be opened: {error.strerror}") from error


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn any error of a decoder into a `ValueError` with ``name`` in its message."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} has more than PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS} pixels; "
            "raise that limit if you trust the file"
        ) from error
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise ValueError(f"{name} cannot be read: {first_line(error)}") from error


def upright(image: Image.Image) -> Image.Image:
    """Load an image and apply its EXIF orientation; damaged EXIF is ignored."""
    image.load()  # Pillow turns TIFF files here, and removes the orientation
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF raises many kinds of errors
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, shortened."""
    lines = str(error).splitlines() or [type(error).__name__]
    return shorten(lines[0])


def shorten(text: str, length: int = 200) -> str:
    """Cut the middle out of a text that is longer than ``length``."""
    return text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 2 :]}"


def _open(file: IO[bytes]) -> Image.Image:
    head = file.read(12)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty")
    try:
        return Image.open(file, formats=_raster_formats())
    except UnidentifiedImageError:
        if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS:
            _register_heif()
            return Image.open(file, formats=_raster_formats())
        raise ValueError("it is not an image in a format that Pillow reads") from None


def _raster_formats() -> list[str]:
    Image.init()
    return [name for name in dict.fromkeys(Image.ID) if name in Image.OPEN and name not in NOT_RASTER]


def _register_heif() -> None:
    """Register a reader of HEIC, the format of iPhones, from an optional package."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise ValueError("HEIC needs pillow-heif: pip install 'fewshotseg[heif]'") from None
