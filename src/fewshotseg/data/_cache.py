"""What takes long is done once: where its results are kept, and progress bars."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from fewshotseg._files import StrPath

Item = TypeVar("Item")


def cache_folder(cache: StrPath | None) -> Path:
    """``cache``, or else ``fewshotseg`` in the user's cache folder (``$XDG_CACHE_HOME``, by default ``~/.cache``)."""
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshotseg"


def progress_bar(items: Sequence[Item], description: str, *, show: bool) -> Iterable[Item]:
    """``items`` with tqdm's bar around them if it should show and tqdm is installed."""
    if not show:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[Item] = tqdm(items, desc=description)
    return bar
