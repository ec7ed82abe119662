"""Lists the files of folders, pairs them by name, and finds the files that a list names."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fewshotseg._checks import shown
from fewshotseg._io import StrPath
from fewshotseg.data.sources.faults import check_folder
from fewshotseg.images import photo_endings


def one_form(name: str) -> str:
    """Compose the accents of a name, as on Linux and Windows; macOS may store letters and accents separately."""
    return unicodedata.normalize("NFC", name)


image_endings = cache(photo_endings)
"""File endings of images; a function, as Pillow loads all of its formats to list them."""


def without_ending(name: str) -> str:
    """Strip the file ending of an image from a name; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending}".lower() in image_endings() else name


def distinct_ids(names: Sequence[str], *, with_folders: bool = False) -> list[str]:
    """Make an id for each path: its file name without ending; if that repeats, with its folders, then with its ending.

    Args:
        names: Paths, with slashes or backslashes between folders.
        with_folders: Keep the folders in all ids.

    Example:
        >>> distinct_ids(["a/1.jpg", "b/1.jpg", "b/2.jpg", "b/2.png"])
        ['a/1', 'b/1', 'b/2.jpg', 'b/2.png']
    """
    paths = [PurePosixPath(one_form(name.replace("\\", "/"))).as_posix() for name in names]
    stems = [without_ending(path) for path in paths]
    ids = stems if with_folders else [stem.rpartition("/")[2] for stem in stems]
    for longer in (stems, paths):
        repeated = {name for name, count in Counter(ids).items() if count > 1}
        ids = [long if short in repeated else short for short, long in zip(ids, longer, strict=True)]
    return ids


class FoundFiles(NamedTuple):
    """The content of a folder.

    Attributes:
        files: Path below the folder without ending -> file, for files with one of the wanted endings.
        faults: Sentences on folders that cannot be opened, and on names that several files have.
        passed_over: All other files and folders that are not hidden.
    """

    files: dict[str, Path]
    faults: list[str]
    passed_over: list[Path]


def files_by_name(folder: Path, endings: Collection[str] | None = None, *, deep: bool = False) -> FoundFiles:
    """List the files of a folder with certain file endings, sorted; hidden files and folders are skipped.

    Args:
        folder: The folder to search.
        endings: File endings in lower case, with the dot; by default those of all images. Files may have upper case.
        deep: Search subfolders too.

    Raises:
        OSError: If there is no such folder.
    """
    check_folder(folder)
    found = FoundFiles({}, [], [])
    candidates: dict[str, list[Path]] = {}
    endings = image_endings() if endings is None else endings
    for path in sorted(_walk(folder, found, deep=deep), key=lambda path: path.as_posix()):
        if path.suffix.lower() in endings:
            candidates.setdefault(one_form(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
        else:
            found.passed_over.append(path)
    for name, paths in candidates.items():
        found.files[name] = paths[0]
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            found.faults.append(f"{paths[0].parent} must hold one file of each name, got {names}")
    return found


def partners(
    folder: Path, files: Mapping[str, Path], names: Sequence[str], ending: str, *, others: Iterable[Path] = ()
) -> list[Path]:
    """Find the file of each name: in ``files``, else in ``others``, else a path with this ending, which is missing.

    A file of another ending in ``others`` replaces a missing one, so that the error message names it.
    """
    known = {one_form(path.relative_to(folder).with_suffix("").as_posix()): path for path in others} | dict(files)
    return [known.get(one_form(name), folder / f"{name}{ending}") for name in names]


def _walk(folder: Path, found: FoundFiles, *, deep: bool) -> Iterator[Path]:
    """Yield every file that is not hidden, also special files; each folder is visited once, even if links lead back."""
    seen: set[tuple[int, int]] = set()

    def complain(error: OSError) -> None:
        found.faults.append(f"{error.filename} cannot be opened: {(error.strerror or 'no reason given').lower()}")

    for place, folders, names in os.walk(folder, followlinks=True, onerror=complain):
        state = Path(place).stat()
        visible = [name for name in folders if not is_hidden(name)]
        if not deep:
            found.passed_over.extend(Path(place, name) for name in visible)
        new = (state.st_dev, state.st_ino) not in seen
        seen.add((state.st_dev, state.st_ino))
        folders[:] = visible if deep and new else []
        if new:
            yield from (Path(place, name) for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or was left by macOS's archives or a network drive."""
    return name.startswith(".") or name in {"__MACOSX", "@eaDir"}


class NamedFiles:
    r"""Finds the files that a list names below a folder, whatever system the list was written on.

    Names may have backslashes between folders, and accents may be composed or not. For a missing file the path where it
    should be is returned.

    Args:
        root: The folder that names are relative to; names must not lead out of it.

    Example:
        >>> NamedFiles("photographs").find(r"dog\rex.jpg").as_posix()
        'photographs/dog/rex.jpg'
    """

    def __init__(self, root: StrPath) -> None:
        self._root = Path(root)
        self._top = Path(os.path.abspath(root))  # noqa: PTH100 - does not resolve links
        self._known: dict[Path, dict[str, str]] = {}

    def find(self, name: object) -> Path:
        """Return the path of a file.

        Raises:
            ValueError: If ``name`` is not a file name, or leads out of the folder.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ValueError(f"must be the name of a file, got {shown(name)}")
        here = self._names_in(self._root)
        if name in here:  # a backslash may be part of a name
            return self._root / here[name]
        plain = name.replace("\\", "/")
        path = Path(os.path.normpath(self._top / plain))
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", plain) or self._top not in path.parents:
            raise ValueError(f"must be a path inside of {self._root}, got {shown(name)}")
        found = self._root
        for part in path.relative_to(self._top).parts:
            names = self._names_in(found)
            found /= names.get(part) or names.get(one_form(part), part)
        return found

    def _names_in(self, folder: Path) -> dict[str, str]:
        """Map the names in a folder, and their composed forms, to the names."""
        if folder not in self._known:
            try:
                names = [path.name for path in folder.iterdir()]
            except (OSError, ValueError):
                names = []
            self._known[folder] = {one_form(name): name for name in names} | {name: name for name in names}
        return self._known[folder]
