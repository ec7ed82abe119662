"""The pictures that ``fewshotseg segment`` leaves: their names, who made them, and writing them whole."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fewshotseg._io import write_atomically
from fewshotseg.images.files import decode, first_line

KINDS = {"mask": "-mask.png", "overlay": "-overlay.jpg", "probability": "-probability.png"}
"""What can be saved, and what its name adds to that of the photograph."""

RED = (228, 0, 43)
MAKER = "fewshotseg segment "
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")
"""The last bytes of a whole PNG and JPEG file."""


class Pictures(NamedTuple):
    """The results of a run.

    Attributes:
        out: Their folder.
        kinds: Which of `KINDS`.
        settings: What they follow from besides the photograph, as a digest.
    """

    out: Path
    kinds: Sequence[str]
    settings: str

    def paths(self, name: Path) -> list[Path]:
        """Where the pictures of a photograph lie, whose path in the results is ``name``."""
        return [self.path(name, kind) for kind in self.kinds]

    def path(self, name: Path, kind: str) -> Path:
        """Where one of them lies."""
        return self.out / name.with_name(f"{name.name}{KINDS[kind]}")

    def mark(self, photo: Path) -> str:
        """What the pictures of a photograph carry, to be known by: the settings and its name, as a digest."""
        return hashlib.sha256(self.settings.encode() + os.fsencode(photo.name)).hexdigest()[:16]

    def prepare(self, photos: Mapping[Path, Path], inputs: Iterable[Path], *, overwrite: bool = False) -> None:
        """Make the folder, and tidy it.

        Args:
            photos: The photographs, and their paths in the results.
            inputs: Other files that have to stay.
            overwrite: Whether pictures of other settings may be overwritten.

        Raises:
            ValueError: If a picture would take the place of an input, or of a picture that may not be overwritten.
            OSError: If the folder cannot be made.
        """
        marks = {path: self.mark(photo) for photo, name in photos.items() for path in self.paths(name)}
        paths = {path: os.path.realpath(path) for path in marks}
        for path in inputs:
            if os.path.realpath(path) in paths.values():
                raise ValueError(f"out must be another folder, as {path} would be overwritten")
        others = [path for path, mark in marks.items() if _read_mark(path) not in {None, "", mark}]
        if others and not overwrite:
            raise ValueError(
                f"out holds {len(others)} results of other photographs, examples or settings, such as {others[0]}; "
                "take another --out, or --overwrite"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        for folder in {path.parent for path in paths}:  # a run that was killed may have left half a file
            for part in folder.glob(".*.part"):
                if folder / part.name[1:].rsplit(".", 2)[0] in paths:
                    part.unlink(missing_ok=True)

    def are_done(self, photo: Path, name: Path, *, overwrite: bool = False) -> bool:
        """Whether all pictures of a photograph are there, whole, younger than it and made of it by these settings.

        Raises:
            ValueError: If another image has the place of one.
        """
        done = not overwrite
        for path in self.paths(name):
            if not os.path.lexists(path):
                done = False
                continue
            found = _read_mark(path)
            if found == "":
                raise ValueError(f"{photo} is not segmented, as {path} exists and is no result of this command")
            done = done and found == self.mark(photo) and path.stat().st_mtime >= photo.stat().st_mtime
        return done

    def save(self, photo: Path, name: Path, pixels: Tensor, mask: Tensor, probability: Tensor) -> None:
        """Write the pictures of a photograph.

        Args:
            photo: Its file.
            name: Its path in the results.
            pixels: ``(3, H, W)`` uint8, of the photograph.
            mask: ``(H, W)``, 1 the object.
            probability: ``(H, W)``, from 0 to 1.
        """
        white = _grey(255 * (mask == 1))
        for kind in self.kinds:
            if kind == "overlay":
                picture = draw_overlay(Image.fromarray(pixels.permute(1, 2, 0).numpy()), white)
            else:
                picture = white if kind == "mask" else _grey((255 * probability).round())
            _write(self.path(name, kind), picture, f"{MAKER}{self.mark(photo)}")


def draw_overlay(photo: Image.Image, mask: Image.Image) -> Image.Image:
    """Tint a photograph where a mask is white, with an outline as thick as its size asks for."""
    thickness = max(2, round(max(photo.size) / 400))
    shade = Image.new("RGB", photo.size, RED)
    tinted = Image.composite(Image.blend(photo, shade, 0.4), photo, mask)
    inside = mask.filter(ImageFilter.BoxBlur(thickness)).point([0] * 255 + [255])
    return Image.composite(shade, tinted, ImageChops.subtract(mask, inside))


def _grey(values: Tensor) -> Image.Image:
    return Image.fromarray(values.numpy().astype(np.uint8))


def _write(path: Path, picture: Image.Image, maker: str) -> None:
    content, information = BytesIO(), PngInfo()
    information.add_text("Software", maker)
    try:
        if path.suffix == ".png":
            picture.save(content, "png", pnginfo=information)
        else:
            picture.save(content, "jpeg", quality=90, comment=maker)
    except (OSError, ValueError) as error:  # JPEG ends at 65500 pixels
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error
    write_atomically(path, content.getvalue())


def _read_mark(path: Path) -> str | None:
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
