"""Interprets the values of a mask as 0 background, 1 object and 255 void."""

import numpy as np
from numpy.typing import NDArray

from fewshotseg.images.arrays import Array
from fewshotseg.images.said import say_once

VOID = 255


def object_labels(name: str, values: Array, void: int | None = None) -> NDArray[np.int64]:
    """Find the object in a mask of one object, by the rules of `fewshotseg.images.to_mask`.

    Args:
        name: The name of the mask in messages.
        values: ``(C, H, W)`` with 1, 3 (RGB) or 4 (RGBA) channels.
        void: The value of pixels that are neither object nor background.

    Returns:
        ``(H, W)`` int64 of 0, 1 and 255.

    Raises:
        ValueError: If it is ambiguous which pixels are the object, or none are.
    """
    levels = _levels(name, values)
    if levels.dtype.kind == "b":
        levels, void = levels.astype(np.uint8), None
    found = np.unique(levels)
    marks = found[(found != 0) & (found != void)]
    if not np.isfinite(marks).all() or (marks < 0).any() or (marks % 1 != 0).any():
        raise ValueError(
            f"{name} must be bool or hold whole numbers, 1 the object, 0 the background and 255 void, got "
            f"{_listed(found)}; turn a probability into a mask by > 0.5"
        )
    if not marks.size:
        hint = f"; {void} is void" if void in found else ""
        raise ValueError(f"{name} must mark the object, but has no pixel of it, only the values {_listed(found)}{hint}")
    if marks[0] == 1 and set(marks.tolist()) <= {1, VOID}:
        labels = levels.astype(np.int64)
    elif marks.size == 1:
        labels = (levels == marks[0]).astype(np.int64)
        if marks[0] == VOID:
            say_once(
                "0/255",
                f"{name} holds 255 but no 1, so 255 is read as the object, not as void; "
                "to avoid the ambiguity, use a bool mask or 1 for the object",
            )
    elif void is None and is_interpolated(levels) and _is_black_and_white(levels, found[-1]):
        labels = (levels > found[-1] / 2).astype(np.int64)
        say_once(
            "smooth",
            f"{name} has smoothed edges; pixels more than half as bright as the brightest are read as the object",
        )
    else:
        raise ValueError(
            f"{name} must mark one object, but holds {_listed(found)}; "
            "write 1 for the object, 0 for the background and 255 for void"
        )
    if void is not None:
        labels[levels == void] = VOID
    return labels


def check_class_ids(name: str, labels: NDArray[np.uint8]) -> None:
    """Raise `ValueError` if the values of a stored mask ``(H, W)`` look interpolated and so cannot be class ids."""
    count = np.count_nonzero(np.bincount(labels.reshape(-1)))
    if count > 2 and is_interpolated(labels):
        raise ValueError(
            f"{name} must hold class ids, but its {count} values look interpolated: edges run through the values "
            "between, as after smoothing, resizing or JPEG; resize masks to the nearest pixel"
        )


def is_interpolated(values: Array) -> bool:
    """Whether edges have intermediate values, as smoothing, resizing and JPEG produce them.

    The test is that many pixels at edges have a value between two opposite neighbours or equal none of the four, or
    that many values fill no area. In 2900 masks of VOC and COCO the first are at most 5 % of the pixels at edges and
    the second at most two values; after bilinear resizing or JPEG, mostly 20 % and ten values.
    """
    centre = values[1:-1, 1:-1]
    left, right, above, below = values[1:-1, :-2], values[1:-1, 2:], values[:-2, 1:-1], values[2:, 1:-1]
    differ = [centre != neighbour for neighbour in (left, right, above, below)]
    edges, stray = np.logical_or.reduce(differ), np.logical_and.reduce(differ)
    if 2 * edges.sum() >= edges.size:  # no areas at all, so it was never a mask
        return False
    for low, high in ((left, right), (right, left), (above, below), (below, above)):
        stray |= (low < centre) & (centre < high)
    if stray.sum() >= 16 and stray.sum() > 0.12 * edges.sum():
        return True
    if values.dtype != np.uint8:
        return False
    counts, inside = (np.bincount(part, minlength=256) for part in (centre.reshape(-1), centre[~edges]))
    thin = int((inside < 0.05 * counts).sum())
    return thin >= 8 and 2 * thin >= int((counts > 0).sum())


def _is_black_and_white(levels: Array, brightest: float) -> bool:
    """Whether at least half of the pixels above 0 are nearly as bright as the brightest."""
    bright = levels >= 0.9 * float(brightest)
    return int(((levels > 0) & ~bright).sum()) <= int(bright.sum())


def _levels(name: str, values: Array) -> Array:
    """Reduce the channels of ``(C, H, W)`` to one number or bool for each pixel."""
    if len(values) == 1:
        only: Array = values[0]
        return only
    drawn: Array = np.asarray((values[:3] > 0).any(axis=0))  # not black
    if len(values) == 4 and (not values[3].any() or values[3].min() < values[3].max()):
        opacity: Array = values[3]
        if _is_one_colour(values[:3, drawn & (opacity > 0)]):
            opacity = opacity * drawn  # black is background even where it is opaque
        return opacity if len(np.unique(opacity)) > 2 else opacity > 0
    values = values[:3]
    if (values == values[:1]).all():
        grey: Array = values[0]
        return grey
    if not _is_one_colour(values[:, drawn]):
        raise ValueError(
            f"{name} must mark the object by one colour on black, but has several colours; "
            "keep the object's colour and make all other pixels black"
        )
    return drawn


def _is_one_colour(colours: Array) -> bool:
    """Whether all columns of ``(3, N)`` are equal; False for none."""
    return colours.size > 0 and bool((colours == colours[:, :1]).all())


def _listed(found: Array) -> str:
    """List the values for a message, or if they are many their number and range."""
    if len(found) <= 6:
        return f"[{', '.join(f'{value:g}' for value in found.tolist())}]"
    return f"{len(found)} values from {found[0]:g} to {found[-1]:g}"
