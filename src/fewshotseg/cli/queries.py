"""Finds the photographs that the command line names, and reports which files were skipped and why."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fewshotseg.images import photo_endings

HIDDEN = "hidden"
FOLDER = "folders: --recursive searches them"
LINK = "links to folders, which are not followed"
FILM = "videos: save frames of them as images first"
DOCUMENT = "documents and drawings: save them as PNG first"
RAW = "raw files of cameras: save them as JPEG or TIFF first"
OTHER = "not the file ending of an image"
RESULT = "results of an earlier run"

# fmt: off
REASONS = {
    FILM: {".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv"},
    DOCUMENT: {".ai", ".eps", ".pdf", ".ps", ".svg"},
    RAW: {".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"},
}
# fmt: on
"""Reason to skip a file -> the file endings that it applies to."""


class Queries(NamedTuple):
    """The photographs that were found, and the files that were not taken.

    Attributes:
        photos: Each photograph -> the name of its results: its path below the deepest folder that all photographs
            share, without the file ending unless two photographs differ in nothing else.
        faults: A sentence for each name that matches no photograph.
        skipped: Reason -> the files that were skipped for it.
        named: The photographs that were named themselves, not found in a folder or by a pattern.
    """

    photos: dict[Path, Path]
    faults: list[str]
    skipped: dict[str, list[Path]]
    named: set[Path]

    def skip(self, reason: str, files: Collection[Path]) -> None:
        """Record files as skipped, and remove them from the photographs."""
        if files:
            self.skipped.setdefault(reason, []).extend(files)
        for file in files:
            self.photos.pop(file, None)

    def remarks(self, *, most: int = 5) -> list[str]:
        """Write a line for each reason: how many files were skipped, and the first ``most`` of them."""
        lines = []
        for reason, files in self.skipped.items():
            names = ", ".join(str(file) for file in files[:most]) + (", ..." if len(files) > most else "")
            lines.append(f"{len(files)} skipped ({reason}): {names}")
        return lines


def find_photos(names: Sequence[str], *, recursive: bool = False, without: Path | None = None) -> Queries:
    """Find the photographs that names stand for.

    A file that is named is always taken. In folders, and among the matches of a pattern, hidden files and files without
    an image's file ending are skipped.

    Args:
        names: Files, folders, or patterns such as ``'photos/*.jpg'``.
        recursive: Whether to search subfolders.
        without: A folder that is not searched, unless it is named itself.

    Example:
        >>> find_photos(["no/such/file.jpg"]).faults
        ['no/such/file.jpg is not a file, not a folder and not a pattern that matches files']
    """
    queries = Queries({}, [], {}, set())
    found: dict[str, tuple[Path, Path]] = {}  # real path -> the path as it was named, and its folder
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
        absolute = [os.path.abspath(folder) for _, folder in found.values()]  # noqa: PTH100 (does not resolve links)
        shared = os.path.commonpath(absolute)
        queries.photos.update(_names({photo: Path(os.path.relpath(photo, shared)) for photo, _ in found.values()}))
    return queries


def _names(paths: Mapping[Path, Path]) -> dict[Path, Path]:
    """Strip the file ending of each path, unless two paths differ in nothing else."""
    same = Counter(str(path.with_suffix("")).casefold() for path in paths.values())
    return {
        photo: path if same[str(path.with_suffix("")).casefold()] > 1 else path.with_suffix("")
        for photo, path in paths.items()
    }


def _list_folder(folder: str, queries: Queries, *, recursive: bool, without: Path | None) -> list[Path]:
    """List the files of a folder, sorted; links to folders are not followed, as they may form a loop."""

    def note(error: OSError) -> None:
        queries.faults.append(f"{error.filename}: {error.strerror}")

    listed: list[Path] = []
    left_out = without and os.path.realpath(without)
    for root, folders, files in os.walk(folder, onerror=note):
        inner = [Path(root, each) for each in sorted(folders) if os.path.realpath(Path(root, each)) != left_out]
        hidden = [each for each in inner if each.name.startswith(".")]
        links = [each for each in inner if each not in hidden and each.is_symlink()]
        plain = [each for each in inner if each not in hidden and each not in links]
        queries.skip(HIDDEN, hidden)
        queries.skip(LINK, links)
        if not recursive:
            queries.skip(FOLDER, plain)
        folders[:] = [each.name for each in plain] if recursive else []
        listed += [Path(root, each) for each in sorted(files)]
    return listed


def _match(pattern: str, queries: Queries) -> list[Path]:
    """List the files that a pattern matches, sorted."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (absolute ones too)
    if not matches:
        queries.faults.append(f"{pattern} is not a file, not a folder and not a pattern that matches files")
    queries.skip(FOLDER, [match for match in matches if match.is_dir()])
    return [match for match in matches if not match.is_dir()]


def _keep_photos(files: list[Path], queries: Queries) -> list[Path]:
    """Keep the files that have an image's file ending and are not hidden."""
    endings = photo_endings()
    photos: list[Path] = []
    for file in files:
        ending = file.suffix.lower()
        if file.name.startswith("."):
            queries.skip(HIDDEN, [file])
        elif any(ending in each for each in REASONS.values()):
            queries.skip(next(reason for reason, each in REASONS.items() if ending in each), [file])
        elif ending not in endings:
            queries.skip(OTHER, [file])
        else:
            photos.append(file)
    return photos
