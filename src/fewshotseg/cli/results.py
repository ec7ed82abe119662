"""What a run of ``fewshotseg segment`` leaves: pictures and exports, known to be its own, and tidied before it."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fewshotseg.cli.exports import Exports, Row
from fewshotseg.cli.large import Answer
from fewshotseg.cli.pictures import Pictures


class Results(NamedTuple):
    """The results of a run.

    Attributes:
        out: Their folder.
        pictures: Kinds of pictures.
        exports: Formats of other tools.
        settings: What they follow from besides the photograph, as a digest.
    """

    out: Path
    pictures: Pictures
    exports: Exports
    settings: str

    @property
    def needs_pixels(self) -> bool:
        """Whether photographs have to be read at their full size."""
        return self.pictures.need_pixels

    def mark(self, photo: Path) -> str:
        """What the results of a photograph carry, to be known by: the settings and its name, as a digest."""
        return hashlib.sha256(self.settings.encode() + os.fsencode(photo.name)).hexdigest()[:16]

    def paths(self, name: Path) -> list[Path]:
        """Where the files of a photograph lie, whose path in the results is ``name``."""
        return [*self.pictures.paths(name), *self.exports.paths(name)]

    def prepare(self, photos: Mapping[Path, Path], inputs: Iterable[Path], *, overwrite: bool = False) -> None:
        """Make the folder, and tidy it.

        Args:
            photos: The photographs, and their paths in the results.
            inputs: Other files that have to stay.
            overwrite: Whether results of other settings may be overwritten.

        Raises:
            ValueError: If a result would take the place of an input, of another result, or of one that may not be
                overwritten.
            OSError: If the folder cannot be made.
        """
        shared = self.exports.shared_paths()
        places: dict[str, Path] = {os.path.realpath(path): path for path in shared}
        others: list[Path] = []
        for photo, name in photos.items():
            for path in self.paths(name):
                if places.setdefault(os.path.realpath(path), path) is not path:
                    raise ValueError(f"{photo} must have another name, as {path} is the place of another result")
            mark = self.mark(photo)
            others += [
                path for path in self.pictures.paths(name) if self.pictures.mark_of(path) not in {None, "", mark}
            ]
            others += [path for path in self.exports.paths(name)[:1] if self.exports.mark_of(name) not in {None, mark}]
        for path in [*inputs, *photos]:
            if os.path.realpath(path) in places:
                raise ValueError(f"out must be another folder, as {path} would be overwritten")
        if others and not overwrite:
            raise ValueError(
                f"out holds {len(others)} results of other photographs, examples or settings, such as {others[0]}; "
                "take another --out, or --overwrite"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        for path in shared:
            self.exports.check_own(path)
        _remove_parts([*places.values(), *(self.exports.record(name) for name in photos.values())])

    def are_done(self, photo: Path, name: Path, *, overwrite: bool = False) -> bool:
        """Whether all files of a photograph are there, whole, younger than it and made of it by these settings.

        Raises:
            ValueError: If a file that is no result has the place of one.
        """
        mark = self.mark(photo)
        for path in self.exports.paths(name):
            self.exports.check_own(path)
        done = self.pictures.are_done(photo, name, mark) and self.exports.are_done(photo, name, mark)
        return done and not overwrite

    def save(self, photo: Path, name: Path, pixels: Tensor | None, answer: Answer, seconds: float) -> Row:
        """Write the files of a photograph; returns its line in the table."""
        mark = self.mark(photo)
        self.pictures.save(name, mark, pixels, answer)
        return self.exports.save(photo, name, mark, answer, seconds)


def _remove_parts(paths: Iterable[Path]) -> None:
    """A run that was killed may have left half a file of each."""
    paths = set(paths)
    for folder in {path.parent for path in paths}:
        for part in folder.glob(".*.part"):
            if folder / part.name[1:].rsplit(".", 2)[0] in paths:
                part.unlink(missing_ok=True)
