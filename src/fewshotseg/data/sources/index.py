"""Counts the pixels of each class in all masks, and caches the counts on disk."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fewshotseg._checks import name_some
from fewshotseg._io import StrPath, cache_folder, progress_bar, reason, write_atomically
from fewshotseg.data.sources.source import VOID

_FORMAT = 2
"""Version of how masks are read and counted, to tell cached counts of other versions apart."""


def count_classes(mask: Tensor) -> dict[int, int]:
    """Count the pixels of every class in a mask.

    Args:
        mask: ``(H, W)`` int64, class ids; 0 background, 255 void.

    Returns:
        Class id -> number of pixels, for the classes that occur; without background and void.

    Example:
        >>> import torch
        >>> count_classes(torch.tensor([[0, 3, 3], [1, 255, 255]]))
        {1: 1, 3: 2}
    """
    counts = torch.bincount(mask.flatten()).tolist()
    return {class_id: count for class_id, count in enumerate(counts) if count and class_id not in {0, VOID}}


def index_masks(
    files: Sequence[Path],
    load_mask: Callable[[int], Tensor],
    *,
    key: str = "",
    cache: StrPath | None = None,
    progress: bool = False,
) -> list[dict[int, int]]:
    """Count the classes of all masks, or read the counts from the cache.

    The counts are cached in a JSON file named by a digest of ``files`` and ``key``. They are counted anew if the size
    or modification time of a file has changed, or if the JSON file is broken. If it cannot be written, a warning says
    so.

    Args:
        files: The files that the masks come from.
        load_mask: Loads the ``(H, W)`` int64 mask of an index in ``files``.
        key: What else the masks depend on.
        cache: Folder for the JSON file; by default the user's cache folder.
        progress: Show a progress bar while counting, if tqdm is installed.

    Returns:
        The result of `count_classes` for every file.

    Raises:
        OSError: If a file does not exist; whatever ``load_mask`` raises for a single mask.
        ValueError: If masks cannot be read; the message names the first few.
    """
    state = [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in (file.stat() for file in files)]
    stamp = _digest(json.dumps(state))
    name = f"index-{_digest(json.dumps([_FORMAT, key, *(str(file.absolute()) for file in files)]))}.json"
    known = _recall(cache, name, stamp, len(files))
    if known is not None:
        return known
    areas, faults = [], []
    for index in progress_bar(range(len(files)), "counting classes", show=progress):
        try:
            areas.append(count_classes(load_mask(index)))
        except (OSError, ValueError) as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        said = [f"{e.filename}: {reason(e)}" if isinstance(e, OSError) else str(e) for e in faults]
        raise ValueError(f"{len(faults):,} masks cannot be used: {name_some(said, separator='; ')}")
    try:
        write_atomically(cache_folder(cache) / name, json.dumps({"stamp": stamp, "areas": areas}).encode())
    except OSError as error:
        warnings.warn(f"the index of {len(files)} masks is not cached: {reason(error)}", stacklevel=2)
    return areas


def _recall(cache: StrPath | None, name: str, stamp: str, length: int) -> list[dict[int, int]] | None:
    """Read cached counts; None if there are none, the files have changed, or the cache is broken."""
    try:
        content = json.loads((cache_folder(cache) / name).read_bytes())
        if content["stamp"] != stamp or len(content["areas"]) != length:
            return None
        return [{int(class_id): int(area) for class_id, area in areas.items()} for areas in content["areas"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
