"""Names of files: which files a folder holds, which belong together, and where the names in a list lead."""

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
    """The name with its accents composed, as Linux and Windows have them; macOS may take letters and accents apart."""
    return unicodedata.normalize("NFC", name)


image_endings = cache(photo_endings)
"""Endings of images; asked for when they are needed, as Pillow then loads all of its formats."""


def without_ending(name: str) -> str:
    """The name without the ending of an image; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending}".lower() in image_endings() else name


def distinct_ids(names: Sequence[str], *, with_folders: bool = False) -> list[str]:
    """An id for each path: its name without ending, with its folders and at last its ending where names repeat.

    Args:
        names: Paths, with slashes or backslashes between folders.
        with_folders: All ids shall have their folders.

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
    """What is in a folder.

    Attributes:
        files: The files with one of the wanted endings, by path below the folder without ending.
        faults: Folders that cannot be opened, and names that several files have.
        passed_over: Everything else that is not hidden.
    """

    files: dict[str, Path]
    faults: list[str]
    passed_over: list[Path]


def files_by_name(folder: Path, endings: Collection[str] | None = None, *, deep: bool = False) -> FoundFiles:
    """The files of a folder with one of these endings (in either case), by name without it, in order of their names.

    Hidden files and folders are left out. Nothing is opened.

    Args:
        folder: Where to look.
        endings: In lower case, with the dot; by default those of all images.
        deep: Look in folders of the folder too.

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
    """The file of each name in a folder: of ``files``, else of ``others``, else one with this ending, which is missing.

    A file of an unknown ending stands in for the one that is missing, so that what is said of it names it.
    """
    known = {one_form(path.relative_to(folder).with_suffix("").as_posix()): path for path in others} | dict(files)
    return [known.get(one_form(name), folder / f"{name}{ending}") for name in names]


def _walk(folder: Path, found: FoundFiles, *, deep: bool) -> Iterator[Path]:
    """Every file that is not hidden, special ones too; each folder once, though links may lead to it again."""
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
    """Whether a file or folder is none of the user's: hidden, or left by macOS's archives or a network drive."""
    return name.startswith(".") or name in {"__MACOSX", "@eaDir"}


class NamedFiles:
    r"""Finds the files that a list names, below one folder, whatever system the list was written on.

    Backslashes separate folders as slashes do, and accents may be composed or not. A file that is not there gets the
    path at which it should be.

    Args:
        root: The folder that names start from, and that none may lead out of.

    Example:
        >>> NamedFiles("photographs").find(r"dog\rex.jpg").as_posix()
        'photographs/dog/rex.jpg'
    """

    def __init__(self, root: StrPath) -> None:
        self._root = Path(root)
        self._top = Path(os.path.abspath(root))  # noqa: PTH100 - as links in it shall stay as they are
        self._known: dict[Path, dict[str, str]] = {}

    def find(self, name: object) -> Path:
        """The path of a file.

        Raises:
            ValueError: If ``name`` names no file or one outside of the folder.
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
        """The names in a folder, by themselves and by their composed form."""
        if folder not in self._known:
            try:
                names = [path.name for path in folder.iterdir()]
            except (OSError, ValueError):
                names = []
            self._known[folder] = {one_form(name): name for name in names} | {name: name for name in names}
        return self._known[folder]
