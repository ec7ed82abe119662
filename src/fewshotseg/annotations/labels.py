"""Masks by class name, which readers return, and masks of class ids, which writers take."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshotseg._checks import as_list, name_some, shown
from fewshotseg.images.mask_rule import VOID

Labels = Mapping[str, Tensor]
"""Class name -> its mask ``(H, W)`` int64 of 0 background, 1 object and 255 void."""

ClassMask = NDArray[np.integer] | NDArray[np.bool_] | Tensor
"""``(H, W)``: 0 background, 1, 2, ... the classes in the order of a list of names, 255 void; or bool for one class."""


def label_masks(inside: Mapping[str, NDArray[np.bool_]], unclear: NDArray[np.bool_] | None = None) -> dict[str, Tensor]:
    """Make masks from the pixels of each class; ``unclear`` pixels outside of a class are void in its mask."""
    masks = {}
    for name, where in inside.items():
        labels = where.astype(np.int64)
        if unclear is not None:
            labels[unclear & ~where] = VOID
        masks[name] = torch.from_numpy(labels)
    return masks


def check_names(names: Sequence[str]) -> list[str]:
    """Return the names as a list; raise unless they are 1 to 254 different strings."""
    listed = as_list("names", names, "a list of class names")
    if not listed or len(listed) > 254 or not all(isinstance(name, str) and name for name in listed):
        raise ValueError(f"names must be 1 to 254 class names, got {shown(listed)}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"names must be different, got {shown(listed)}")
    return listed


def class_ids(mask: ClassMask, names: Sequence[str] | None = None) -> NDArray[np.uint8]:
    """Convert a mask to class ids ``(H, W)`` uint8; raise unless each is void or, if names are given, has one."""
    values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise ValueError(f"mask must be (H, W) of whole numbers or bools, got {values.dtype} of shape {values.shape}")
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    ids = values.astype(np.uint8) if 0 <= low <= high <= VOID else None
    last = VOID - 1 if names is None else len(names)
    unknown = [min(low, 0) or high] if ids is None else [each for each in _found(ids) if last < each < VOID]
    if ids is None or unknown:
        whose = "of classes" if names is None else f"of {name_some([*names])}"
        raise ValueError(f"mask must hold 0, the ids 1 to {last} {whose}, or 255 for void, got {shown(unknown[-1])}")
    return ids


def present_classes(ids: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each class id in a mask, ascending, and its pixels ``(H, W)``."""
    for class_id in _found(ids):
        if class_id not in {0, VOID}:
            yield class_id, ids == class_id


def _found(ids: NDArray[np.uint8]) -> list[int]:
    """List the values that occur, ascending; counting a few rows at a time is much faster than sorting."""
    counts = np.zeros(256, dtype=np.int64)
    for top in range(0, len(ids), 64):
        counts += np.bincount(ids[top : top + 64].reshape(-1), minlength=256)
    found: list[int] = np.nonzero(counts)[0].tolist()
    return found
