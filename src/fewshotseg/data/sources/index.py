"""Which image holds which class with how many pixels: counted once, then remembered on disk."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fewshotseg._io import StrPath, cache_folder, progress_bar, write_atomically
from fewshotseg.data.sources.source import VOID


def count_classes(mask: Tensor) -> dict[int, int]:
    """Count the pixels of every class in a mask.

    Args:
        mask: ``(H, W)`` int64, class ids; 0 background, 255 void.

    Returns:
        Class id to number of pixels, for the classes that are there; without background and void.

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
    """Count the classes of all masks, or recall the counts of an earlier call.

    The counts are kept in a JSON file whose name follows from ``files`` and ``key``. They are taken again if a file
    has another size or time of change, or if the JSON is broken. Where it cannot be written, a warning says so.

    Args:
        files: The files that the masks come from.
        load_mask: Gives the ``(H, W)`` int64 mask of a position in ``files``.
        key: What else the masks depend on.
        cache: A folder for the JSON file; the user's cache folder by default.
        progress: Show a progress bar while counting, if tqdm is installed.

    Returns:
        The result of `count_classes` for every file.

    Raises:
        OSError: If a file does not exist.
        ValueError: If a mask cannot be read; whatever ``load_mask`` raises.
    """
    names = json.dumps([key, *(str(file.absolute()) for file in files)])
    state = [[stat.st_size, stat.st_mtime_ns] for stat in (file.stat() for file in files)]
    path = cache_folder(cache) / f"index-{_digest(names)}.json"
    stamp = _digest(json.dumps(state))
    known = _recall(path, stamp, len(files))
    if known is not None:
        return known
    areas = [count_classes(load_mask(i)) for i in progress_bar(range(len(files)), "counting classes", show=progress)]
    try:
        write_atomically(path, json.dumps({"stamp": stamp, "areas": areas}).encode())
    except OSError as error:
        warnings.warn(f"the index of {len(files)} masks is not remembered: {error}", stacklevel=2)
    return areas


def _recall(path: Path, stamp: str, length: int) -> list[dict[int, int]] | None:
    """The counts in ``path`` if they are of the files as they are now; None if not, or if the file is broken."""
    try:
        content = json.loads(path.read_bytes())
        if content["stamp"] != stamp or len(content["areas"]) != length:
            return None
        return [{int(class_id): int(area) for class_id, area in areas.items()} for areas in content["areas"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
