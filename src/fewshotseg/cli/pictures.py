"""The pictures that ``fewshotseg segment`` leaves: their names, who made them, and writing them whole."""

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
"""What can be saved, and what its name adds to that of the photograph."""

OF_PIXELS = {"overlay", "cutout"}
"""Those that show the photograph itself."""

MAKER = "fewshotseg segment "
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")
"""The last bytes of a whole PNG and JPEG file."""


class Pictures(NamedTuple):
    """The pictures of a run.

    Attributes:
        out: Their folder.
        kinds: Which of `KINDS`.
        several: Whether masks hold ids of classes in colours, and not white on black.
    """

    out: Path
    kinds: Sequence[str]
    several: bool = False

    @property
    def need_pixels(self) -> bool:
        """Whether photographs have to be read at their full size."""
        return not OF_PIXELS.isdisjoint(self.kinds)

    def paths(self, name: Path) -> list[Path]:
        """Where the pictures of a photograph lie, whose path in the results is ``name``."""
        return [self.path(name, kind) for kind in self.kinds]

    def path(self, name: Path, kind: str) -> Path:
        """Where one of them lies."""
        return self.out / name.with_name(f"{name.name}{KINDS[kind]}")

    def are_done(self, photo: Path, name: Path, mark: str) -> bool:
        """Whether all pictures of a photograph are there, whole, younger than it and with its mark.

        Raises:
            ValueError: If another image has the place of one.
        """
        done = True
        for path in self.paths(name):
            if not os.path.lexists(path):
                done = False
                continue
            found = self.mark_of(path)
            if found == "":
                raise ValueError(f"{photo} is not segmented, as {path} exists and is no result of this command")
            done = done and found == mark and path.stat().st_mtime >= photo.stat().st_mtime
        return done

    def save(self, name: Path, mark: str, pixels: Tensor | None, answer: Answer) -> None:
        """Write the pictures of a photograph.

        Args:
            name: Its path in the results.
            mark: What they should carry.
            pixels: ``(3, H, W)`` uint8, of the photograph; None where no picture shows it.
            answer: Of its size.
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
            _write(self.path(name, kind), picture, f"{MAKER}{mark}")

    def _mask(self, mask: Tensor) -> Image.Image:
        if not self.several:
            return Image.fromarray(255 * mask.numpy())
        picture = Image.fromarray(mask.numpy())
        picture.putpalette(palette())
        return picture

    @staticmethod
    def mark_of(path: Path) -> str | None:
        """The mark of a picture of this command; empty if another program made it, None if the file is damaged."""
        try:
            information: dict[Any, Any] = decode(path, lambda image: image.info)
            with path.open("rb") as file:
                file.seek(-max(map(len, ENDS)), os.SEEK_END)
                whole = file.read().endswith(ENDS)
        except (OSError, ValueError):
            return None
        said = information.get("Software") or information.get("comment") or ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        if not said.startswith(MAKER):
            return ""
        return said.removeprefix(MAKER) if whole else None


def _write(path: Path, picture: Image.Image, maker: str) -> None:
    content, information = BytesIO(), PngInfo()
    information.add_text("Software", maker)
    try:
        if path.suffix == ".png":
            picture.save(content, "png", pnginfo=information, compress_level=1)  # three times as fast, hardly larger
        else:
            picture.save(content, "jpeg", quality=90, comment=maker)
    except (OSError, ValueError) as error:  # JPEG ends at 65500 pixels
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error
    write_atomically(path, content.getvalue())
