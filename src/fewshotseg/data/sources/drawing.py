"""Draws COCO's polygons and run lengths as masks, after checking them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshotseg._checks import shown
from fewshotseg.data.sources.annotations import Id, Json, as_id, as_whole, is_crowd, title_of


def draw_annotations(
    size: tuple[int, int], annotations: Sequence[Json], class_of: Mapping[Id, int]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw the annotations of one image, without crowds and faulty ones, later ones over earlier ones.

    Polygons may be nested in several ways: ``[[x, y, x, y, ...], ...]``, ``[x, y, ...]`` or ``[[x, y], ...]``. Polygons
    of fewer than three points are skipped if the annotation has others.

    Args:
        size: Height and width.
        annotations: Entries of an instances file: ``segmentation`` (polygons or run lengths), ``category_id``,
            ``iscrowd``.
        class_of: Category id -> class id, 1 to 254.

    Returns:
        ``(H, W)`` uint8 class ids, 0 background, and a sentence for each fault.

    Raises:
        ImportError: If pycocotools is not installed.

    Example:
        >>> square = {"category_id": 18, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
        >>> mask, faults = draw_annotations((2, 4), [square], {18: 17})
        >>> mask.tolist(), faults
        ([[17, 17, 0, 0], [17, 17, 0, 0]], [])
    """
    mask = np.zeros(size, dtype=np.uint8)
    faults = []
    for annotation in annotations:
        try:
            if is_crowd(annotation):
                continue
            category = as_id(annotation.get("category_id"))
            if category is None or category not in class_of:
                got = shown(annotation.get("category_id"))
                raise ValueError(f"category_id must be the id of a category that the file lists, got {got}")
            mask[_inside(annotation.get("segmentation"), size)] = class_of[category]
        except ValueError as error:
            faults.append(f"{title_of(annotation)}: {error}")
    return mask, faults


def _inside(segmentation: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Compute the pixels of an annotation, ``(H, W)``."""
    if not segmentation:
        raise ValueError("segmentation must outline the object, got none, as where only boxes were drawn")
    if isinstance(segmentation, dict):
        return draw_runs(segmentation, size)
    if isinstance(segmentation, list):
        return _draw_polygons(polygons_of(segmentation), size)
    raise ValueError(f"segmentation must be polygons or run lengths, got {shown(segmentation)}")


def polygons_of(value: list[Any]) -> list[list[float]]:
    """Convert polygons of any nesting to lists ``[x, y, x, y, ...]``."""
    if _are_numbers(value):
        return [value]
    if len(value) > 2 and all(_is_point(point) for point in value):
        return [[number for point in value for number in point]]
    polygons = []
    for part in value:
        if isinstance(part, list) and part and all(_is_point(point) for point in part):
            polygons.append([number for point in part for number in point])
        elif isinstance(part, list) and _are_numbers(part):
            polygons.append(part)
        else:
            raise ValueError(f"a polygon must be a list of numbers, got {shown(part)}")
    return polygons


def _are_numbers(values: list[Any]) -> bool:
    return {type(value) for value in values} <= {int, float}


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _are_numbers(value)


def _draw_polygons(polygons: list[list[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    for polygon in polygons:
        check_polygon(polygon, size)
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        raise ValueError("a polygon must have at least three points, got fewer in each")
    try:
        from pycocotools import mask as decoder
    except ImportError as error:
        raise ImportError("COCO's polygons need pycocotools: pip install 'fewshotseg[coco]'") from error
    with warnings.catch_warnings():  # NumPy 2 deprecates how pycocotools makes arrays
        warnings.simplefilter("ignore", DeprecationWarning)
        inside: NDArray[np.bool_] = decoder.decode(decoder.merge(decoder.frPyObjects(polygons, *size))).astype(bool)
    return inside


def check_polygon(polygon: list[float], size: tuple[int, int]) -> None:
    """Raise unless a polygon is valid and not far larger than the image, as pycocotools steps along its edges."""
    if len(polygon) % 2:
        raise ValueError(f"a polygon must have an even number of coordinates, got {len(polygon)}")
    try:
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # an integer of hundreds of digits
        points = np.full((1, 2), np.inf)
    if not np.isfinite(points).all():
        raise ValueError("coordinates must be finite, got NaN or infinity")
    if not len(points):
        return
    limit = min(100 * sum(size), 10**7)
    length = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if np.abs(points).max() > limit or length > limit:
        raise ValueError(
            f"coordinates must fit an image of {size[1]} x {size[0]} pixels, got {np.abs(points).max():g} as the "
            f"largest and an outline of {length:g} pixels"
        )


def draw_runs(segmentation: Json, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode run lengths, which go column by column and begin with the background."""
    height, width = size
    given = segmentation.get("size")
    if not isinstance(given, list) or [as_whole(side) for side in given] != [height, width]:
        raise ValueError(f"run lengths must be of size [{height}, {width}] as the image, got {shown(given)}")
    counts = segmentation.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not {type(run) for run in runs} <= {int} or min(runs, default=0) < 0:
        raise ValueError(f"run lengths must be whole numbers of at least 0, got {shown(counts)}")
    if sum(runs) != height * width:
        total = shown(sum(runs))
        raise ValueError(f"run lengths must fill {height * width} pixels, got {total}: cut, or of another image")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    """Decode COCO's compressed run lengths: five bits per character, low ones first, from the third on differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"run lengths must be in COCO's characters, got {shown(text)}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # the number continues
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths must be whole, got some that end in the middle of a number")
    return runs
