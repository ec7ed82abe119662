"""Atomic writing of files, the cache folder, and progress bars."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

StrPath = str | os.PathLike[str]
Item = TypeVar("Item")

LONGEST_NAME = 200
"""Bytes of a file name that leave room for what is added to it; most file systems allow 255."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it replaces ``path`` at the end, or is deleted on an error."""
    part = path.with_name(f".{part_stem(path.name)}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def part_stem(name: str) -> str:
    """Return what the name of a temporary file says of the file that it is for: ``name``, or a digest if it is long."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST_NAME else hashlib.sha256(encoded).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old or the new one, never half written; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def cache_folder(cache: StrPath | None) -> Path:
    """Return ``cache``, or by default ``fewshotseg`` in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``).

    Raises:
        OSError: If ``cache`` is None and the user has no home folder, as in some containers.
    """
    if cache is not None:
        return Path(cache)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshotseg"
    except RuntimeError as error:
        raise OSError("there is no home folder for a cache: set XDG_CACHE_HOME, or give a folder as cache") from error


def reason(error: OSError) -> str:
    """Return the system's message of an error, without its number and the file's name."""
    return error.strerror.lower() if error.strerror else str(error)


def progress_bar(
    items: Iterable[Item], description: str, *, show: bool, total: int | None = None, initial: int = 0
) -> Iterable[Item]:
    """Wrap ``items`` in tqdm's progress bar if ``show`` is true and tqdm is installed."""
    if not show:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[Item] = tqdm(items, desc=description, total=total, initial=initial)
    return bar
