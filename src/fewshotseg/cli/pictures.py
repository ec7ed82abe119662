"""Names, recognises and writes the pictures of ``fewshotseg segment``."""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fewshotseg._io import write_atomically
from fewshotseg.annotations.overlays import cutout, draw_overlay
from fewshotseg.cli.large import Answer
from fewshotseg.images.files import decode, first_line
from fewshotseg.images.masks import palette

KINDS = {
    "mask": "-mask.png",
    "overlay": "-overlay.jpg",
    "probability": "-probability.png",
    "cutout": "-cutout.png",
}
"""Kind of picture -> what its file name adds to the photograph's."""

OF_PIXELS = {"overlay", "cutout"}
"""Kinds that show the photograph itself."""

MAKER = "fewshotseg segment "
BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8")
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")
"""The first and the last bytes of a whole PNG and JPEG file."""

HEAD = 1024
"""Bytes at the beginning of a picture among which its mark is."""


class Pictures(NamedTuple):
    """The pictures of a run.

    Attributes:
        out: The folder of the results.
        kinds: Some of `KINDS`.
        several: Whether masks hold class ids with a palette of colours, instead of white on black.
    """

    out: Path
    kinds: Sequence[str]
    several: bool = False

    @property
    def need_pixels(self) -> bool:
        """Whether photographs have to be read at their full size."""
        return not OF_PIXELS.isdisjoint(self.kinds)

    def paths(self, name: Path) -> list[Path]:
        """Return the paths of a photograph's pictures; ``name`` is its path in the folder of results."""
        return [self.path(name, kind) for kind in self.kinds]

    def path(self, name: Path, kind: str) -> Path:
        """Return the path of one kind of picture."""
        return self.out / name.with_name(f"{name.name}{KINDS[kind]}")

    def are_done(self, name: Path, mark: str) -> bool:
        """Whether all pictures of a photograph exist, are complete and carry the mark."""
        return all(self.mark_of(path) == mark for path in self.paths(name))

    def check_own(self, photo: Path, name: Path) -> None:
        """Raise `ValueError` if a file with the name of a picture exists that this command did not write."""
        for path in self.paths(name):
            if os.path.lexists(path) and self.mark_of(path) == "":
                raise ValueError(f"{photo} is not segmented, as {path} exists and this command did not write it")

    def save(self, name: Path, mark: str, pixels: Tensor | None, answer: Answer) -> None:
        """Write the pictures of a photograph.

        Args:
            name: Its path in the folder of results.
            mark: The mark to store in each picture, by which a later run recognises it.
            pixels: ``(3, H, W)`` uint8, the photograph; None if no picture shows it.
            answer: The prediction at the photograph's size.
        """
        for kind in self.kinds:
            if kind == "mask":
                picture = self._mask(answer.mask)
            elif kind == "probability" and answer.probability is not None:
                picture = Image.fromarray(answer.probability.numpy())
            elif pixels is None:
                raise ValueError(f"pixels and probability must be there for {kind}")
            elif kind == "overlay":
                picture = draw_overlay(pixels, answer.mask)
            else:
                picture = cutout(pixels, answer.mask)
            write_picture(self.path(name, kind), picture, f"{MAKER}{mark}")

    def _mask(self, mask: Tensor) -> Image.Image:
        if not self.several:
            return Image.fromarray(255 * mask.numpy())
        picture = Image.fromarray(mask.numpy())
        picture.putpalette(palette())
        return picture

    @staticmethod
    def mark_of(path: Path) -> str | None:
        """Read the mark of a picture; empty if this command did not write it, None if it did, but the file is damaged.

        Writes are atomic, so that only a failing disk or a power cut damages a picture.
        """
        try:
            information: dict[Any, Any] = decode(path, lambda image: image.info)
            with path.open("rb") as file:
                file.seek(-max(map(len, ENDS)), os.SEEK_END)
                whole = file.read().endswith(ENDS)
        except (OSError, ValueError):
            return None if _begins_as_own(path) else ""
        said = information.get("Software") or information.get("comment") or ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        if not said.startswith(MAKER):
            return ""
        return said.removeprefix(MAKER) if whole else None


def is_result(path: Path) -> bool:
    """Whether a file is a picture that this command wrote, in whatever folder; opens only files that are named so."""
    return path.name.endswith(tuple(KINDS.values())) and Pictures.mark_of(path) != ""


def _begins_as_own(path: Path) -> bool:
    """Whether a file has the beginning of a picture that this command wrote."""
    if not os.path.isfile(path):  # noqa: PTH113 (Path's raises for a name that is too long)
        return False
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return head.startswith(BEGINNINGS) and MAKER.encode() in head


def write_picture(path: Path, picture: Image.Image, maker: str) -> None:
    """Write a PNG or JPEG file that says what made it; raise `ValueError` if the format cannot hold the picture."""
    content, information = BytesIO(), PngInfo()
    information.add_text("Software", maker)
    try:
        if path.suffix == ".png":
            picture.save(content, "png", pnginfo=information, compress_level=1)  # three times as fast, hardly larger
        else:
            picture.save(content, "jpeg", quality=90, comment=maker)
    except (OSError, ValueError) as error:  # such as a JPEG with a side above 65500 pixels
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error
    write_atomically(path, content.getvalue())
