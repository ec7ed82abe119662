"""Manages the files that ``fewshotseg segment`` writes: which exist, which may be overwritten, which are complete."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fewshotseg._io import part_stem
from fewshotseg.annotations.class_masks import check_labelmap_names
from fewshotseg.cli.exports import Exports, Row
from fewshotseg.cli.large import Answer
from fewshotseg.cli.pictures import Pictures


class Results(NamedTuple):
    """The results of a run.

    Attributes:
        out: The folder to write to.
        pictures: The pictures to write.
        exports: The files for other tools to write.
        settings: A digest of the model, the examples and the options: all that results depend on but the photograph.
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
        """Compute the mark of a photograph's results: a digest of the settings, and of its name, size and time."""
        try:
            found = photo.stat()
            state = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:  # reading it will say why
            state = ""
        return hashlib.sha256(f"{self.settings} {state} ".encode() + os.fsencode(photo.name)).hexdigest()[:16]

    def paths(self, name: Path) -> list[Path]:
        """Return the paths of a photograph's files; ``name`` is its path in the folder of results."""
        return [*self.pictures.paths(name), *self.exports.paths(name)]

    def prepare(self, photos: Mapping[Path, Path], inputs: Iterable[Path], *, overwrite: bool = False) -> None:
        """Create the folder, and remove half-written files of an earlier run.

        Args:
            photos: Each photograph -> its path in the folder of results.
            inputs: Other files that must not be overwritten.
            overwrite: Whether results of other settings may be overwritten.

        Raises:
            ValueError: If a result would overwrite an input, another result of this run, or a file that may not be
                overwritten, or a class has a name that labelmap.txt cannot hold.
            OSError: If the folder cannot be created.
        """
        if self.exports.several:
            check_labelmap_names(self.exports.names)
        shared = self.exports.shared_paths()
        places: dict[str, Path] = {os.path.realpath(path): path for path in shared}
        others: list[Path] = []
        for photo, name in photos.items():
            for path in self.paths(name):
                if places.setdefault(os.path.realpath(path), path) is not path:
                    raise ValueError(f"{photo} must have another name, as {path} is the file of another result too")
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
                f"out holds {len(others)} results of other or changed photographs, examples or settings, such as "
                f"{others[0]}; choose another --out, or add --overwrite"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        for path in shared:
            self.exports.check_own(path)
        _remove_parts([*places.values(), *(self.exports.record(name) for name in photos.values())])

    def are_done(self, photo: Path, name: Path, *, overwrite: bool = False) -> bool:
        """Whether all files of a photograph exist, are complete, and were made of it as it is and with these settings.

        Raises:
            ValueError: If a file of that name exists that this command did not write.
        """
        self.check_own(photo, name)
        mark = self.mark(photo)
        done = self.pictures.are_done(name, mark) and self.exports.are_done(name, mark)
        return done and not overwrite

    def check_own(self, photo: Path, name: Path) -> None:
        """Raise `ValueError` if a file that a photograph's results would replace was not written by this command."""
        self.pictures.check_own(photo, name)
        for path in self.exports.paths(name):
            self.exports.check_own(path)

    def save(self, photo: Path, name: Path, pixels: Tensor | None, answer: Answer, seconds: float) -> Row:
        """Write the files of a photograph; returns its row of the table.

        Raises:
            ValueError: If a file of that name exists that this command did not write.
            OSError: If a file cannot be written.
        """
        self.check_own(photo, name)
        mark = self.mark(photo)
        self.pictures.save(name, mark, pixels, answer)
        return self.exports.save(photo, name, mark, answer, seconds)


def _remove_parts(paths: Iterable[Path]) -> None:
    """Remove the temporary files that a killed run may have left beside these paths."""
    own = {path.with_name(part_stem(path.name)) for path in paths}
    for folder in {path.parent for path in own}:
        for part in folder.glob(".*.part"):
            if folder / part.name[1:].rsplit(".", 2)[0] in own:
                part.unlink(missing_ok=True)
