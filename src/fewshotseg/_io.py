"""Files that are written whole or not at all, the cache folder, and progress bars."""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

StrPath = str | os.PathLike[str]
Item = TypeVar("Item")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` to write to; it takes the place of ``path`` in the end, or vanishes on an error."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def cache_folder(cache: StrPath | None) -> Path:
    """``cache``, or else ``fewshotseg`` in the user's cache folder (``$XDG_CACHE_HOME``, by default ``~/.cache``).

    Raises:
        OSError: If there is no ``cache`` and the user has no home folder, as in some containers.
    """
    if cache is not None:
        return Path(cache)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshotseg"
    except RuntimeError as error:
        raise OSError("there is no home folder for a cache: set XDG_CACHE_HOME, or give a folder as cache") from error


def reason(error: OSError) -> str:
    """Why the system refused, without its number and the repetition of the file's name."""
    return error.strerror.lower() if error.strerror else str(error)


def progress_bar(
    items: Iterable[Item], description: str, *, show: bool, total: int | None = None, initial: int = 0
) -> Iterable[Item]:
    """``items`` with tqdm's bar around them if it should show and tqdm is installed."""
    if not show:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[Item] = tqdm(items, desc=description, total=total, initial=initial)
    return bar
