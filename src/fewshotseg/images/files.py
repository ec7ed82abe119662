"""Opening image files: regular files of raster formats; whatever is wrong is one sentence with the file's name."""

import importlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from PIL import Image, UnidentifiedImageError

from fewshotseg._io import StrPath

Result = TypeVar("Result")

NOT_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""What Pillow opens, but what holds drawings, films or measurements; some of it starts other programs."""

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
"""EXIF's orientation, and what brings the picture upright."""


def photo_endings() -> frozenset[str]:
    """The endings of files that may be photographs, in lower case: all raster formats that Pillow reads, and HEIC.

    Example:
        >>> {".jpg", ".png", ".tiff", ".webp", ".heic"} <= photo_endings(), ".pdf" in photo_endings()
        (True, False)
    """
    readable = set(_raster_formats())
    return frozenset(HEIF_ENDINGS.union(e for e, name in Image.registered_extensions().items() if name in readable))


def decode(path: StrPath, extract: Callable[[Image.Image], Result]) -> Result:
    """Open a file and take from it what is needed.

    Args:
        path: A regular file; pipes and devices are refused, as opening them may wait for ever.
        extract: Gets the image as it was opened, not yet loaded.

    Raises:
        ValueError: If the file is not regular, broken, no image or too large; the message names it.
        OSError: If there is no such file, or it may not be read.
    """
    name = shorten(str(path))
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # a NUL character
        raise ValueError(f"{name!r} cannot be the name of a file: {error}") from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error  # base64 given as a path is long
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ValueError(f"{name} must be a regular file, but it is {kind}")
    with Path(path).open("rb") as file, reading(name):
        image = _open(file)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:  # only a warning in Pillow
            raise Image.DecompressionBombError
        return extract(image)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one ValueError that names what was read."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} has more than PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS} pixels; "
            "raise that limit if you trust the file"
        ) from error
    except Exception as error:  # decoders raise whatever the bytes lead them to
        raise ValueError(f"{name} cannot be read: {first_line(error)}") from error


def upright(image: Image.Image) -> Image.Image:
    """Load an image and turn it as its camera noted in EXIF. EXIF that is damaged says nothing."""
    image.load()  # TIFF turns itself here, and forgets the note
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # as with decoders
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def first_line(error: BaseException) -> str:
    """What an exception says, in one line of bearable length."""
    lines = str(error).splitlines() or [type(error).__name__]
    return shorten(lines[0])


def shorten(text: str, length: int = 200) -> str:
    """The text, its middle left out where it is longer."""
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
        raise ValueError("it is no image of a kind that Pillow reads") from None


def _raster_formats() -> list[str]:
    Image.init()
    return [name for name in dict.fromkeys(Image.ID) if name in Image.OPEN and name not in NOT_RASTER]


def _register_heif() -> None:
    """Teach Pillow HEIC, the format of iPhones, by an optional package."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise ValueError("HEIC needs pillow-heif: pip install 'fewshotseg[heif]'") from None
