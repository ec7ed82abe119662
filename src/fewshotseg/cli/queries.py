"""Finding the photographs that names on a command line stand for, and saying what was passed over and why."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fewshotseg.images import photo_endings

HIDDEN = "hidden"
FOLDER = "folders, which --recursive looks into"
LINK = "links to folders, which are not followed"
FILM = "films: save frames of them as pictures first"
DOCUMENT = "documents and drawings: save them as PNG first"
RAW = "raw files of cameras: save them as JPEG or TIFF first"
OTHER = "no photographs, by their ending"

# fmt: off
REASONS = {
    FILM: {".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv"},
    DOCUMENT: {".ai", ".eps", ".pdf", ".ps", ".svg"},
    RAW: {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"},
}
# fmt: on
"""Why files of some endings are no photographs, and what to do."""


class Queries(NamedTuple):
    """What was found.

    Attributes:
        photos: Each photograph once, and the name of its results: its path below the deepest folder that all names
            share, without its ending unless another differs in nothing else.
        faults: A sentence for each name that leads to nothing.
        passed_over: Reasons, and the files that each applies to.
        named: Those of the photographs that were named, and not found in a folder or by a pattern.
    """

    photos: dict[Path, Path]
    faults: list[str]
    passed_over: dict[str, list[Path]]
    named: set[Path]

    def pass_over(self, reason: str, files: Collection[Path]) -> None:
        """Note files that are no queries, and take them from the photographs."""
        if files:
            self.passed_over.setdefault(reason, []).extend(files)
        for file in files:
            self.photos.pop(file, None)

    def remarks(self, *, most: int = 5) -> list[str]:
        """A sentence for each reason: how many files were passed over, and the first of them."""
        lines = []
        for reason, files in self.passed_over.items():
            names = ", ".join(str(file) for file in files[:most]) + (", ..." if len(files) > most else "")
            lines.append(f"{len(files)} passed over ({reason}): {names}")
        return lines


def find_photos(names: Sequence[str], *, recursive: bool = False, without: Path | None = None) -> Queries:
    """Find photographs.

    A file that is named is taken whatever it is. Of a folder, and of what a pattern matches, hidden files and those
    whose ending is of no photograph are passed over.

    Args:
        names: Files, folders, or patterns such as ``'photos/*.jpg'``.
        recursive: Whether folders in folders count.
        without: A folder to leave out, with all that is in it, unless it is named.

    Example:
        >>> find_photos(["no/such/file.jpg"]).faults
        ['no/such/file.jpg is no file, no folder and no pattern that matches any']
    """
    queries = Queries({}, [], {}, set())
    found: dict[str, tuple[Path, Path]] = {}  # by real path: as it was named, and the folder that it belongs to
    for name in names:
        faults = len(queries.faults)
        if os.path.isdir(name):  # noqa: PTH112 (Path's raises where a folder may not be looked into)
            photos = _keep_photos(_list_folder(name, queries, recursive=recursive, without=without), queries)
            folders = [Path(name)] * len(photos)
        elif os.path.lexists(name):
            photos, folders = [Path(name)], [Path(name).parent]
            queries.named.add(Path(name))
        else:
            photos = _keep_photos(_match(name, queries), queries)
            folders = [photo.parent for photo in photos]
        if not photos and len(queries.faults) == faults:
            queries.faults.append(f"{name} holds no photographs")
        for photo, folder in zip(photos, folders, strict=True):
            found.setdefault(os.path.realpath(photo), (photo, folder))
    if found:
        shared = os.path.commonpath([os.path.abspath(folder) for _, folder in found.values()])  # noqa: PTH100
        queries.photos.update(_names({photo: Path(os.path.relpath(photo, shared)) for photo, _ in found.values()}))
    return queries


def _names(paths: Mapping[Path, Path]) -> dict[Path, Path]:
    """The photographs' paths without their endings, but for those that differ in nothing else."""
    same = Counter(str(path.with_suffix("")).casefold() for path in paths.values())
    return {
        photo: path if same[str(path.with_suffix("")).casefold()] > 1 else path.with_suffix("")
        for photo, path in paths.items()
    }


def _list_folder(folder: str, queries: Queries, *, recursive: bool, without: Path | None) -> list[Path]:
    """The files of a folder, in order. Links to folders are not followed, as they may lead round in circles."""

    def note(error: OSError) -> None:
        queries.faults.append(f"{error.filename}: {error.strerror}")

    listed: list[Path] = []
    left_out = without and os.path.realpath(without)
    for root, folders, files in os.walk(folder, onerror=note):
        inner = [Path(root, each) for each in sorted(folders) if os.path.realpath(Path(root, each)) != left_out]
        hidden = [each for each in inner if each.name.startswith(".")]
        links = [each for each in inner if each not in hidden and each.is_symlink()]
        plain = [each for each in inner if each not in hidden and each not in links]
        queries.pass_over(HIDDEN, hidden)
        queries.pass_over(LINK, links)
        if not recursive:
            queries.pass_over(FOLDER, plain)
        folders[:] = [each.name for each in plain] if recursive else []
        listed += [Path(root, each) for each in sorted(files)]
    return listed


def _match(pattern: str, queries: Queries) -> list[Path]:
    """The files that a pattern matches."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (absolute ones too)
    if not matches:
        queries.faults.append(f"{pattern} is no file, no folder and no pattern that matches any")
    queries.pass_over(FOLDER, [match for match in matches if match.is_dir()])
    return [match for match in matches if not match.is_dir()]


def _keep_photos(files: list[Path], queries: Queries) -> list[Path]:
    """Those that have the ending of a photograph and are not hidden."""
    endings = photo_endings()
    photos: list[Path] = []
    for file in files:
        ending = file.suffix.lower()
        if file.name.startswith("."):
            queries.pass_over(HIDDEN, [file])
        elif any(ending in each for each in REASONS.values()):
            queries.pass_over(next(reason for reason, each in REASONS.items() if ending in each), [file])
        elif ending not in endings:
            queries.pass_over(OTHER, [file])
        else:
            photos.append(file)
    return photos
