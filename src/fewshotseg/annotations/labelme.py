"""Reads and writes LabelMe's JSON, one file for each photograph, with polygons and other shapes."""

import base64
import binascii
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fewshotseg._checks import check_number, check_path, shown
from fewshotseg._io import StrPath
from fewshotseg.annotations.labels import ClassMask, check_names, class_ids, label_masks, present_classes
from fewshotseg.annotations.outlines import Ring, regions_of
from fewshotseg.annotations.polygons import as_points, fill_polygon, polygon_of
from fewshotseg.data.sources.annotations import Json, as_whole, read_json
from fewshotseg.images.files import reading

VERSION = "5.5.0"
"""The version of LabelMe whose format is written; later versions read it too."""

IGNORED = {"__ignore__", "_background_"}
"""LabelMe's labels for void and for the background."""

MAX_SIDE = 10**5


def read_labelme(path: StrPath, *, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Read the masks in a file of LabelMe.

    Polygons, rectangles, circles and masks are read; shapes with the same label are one class. Shapes with the label
    ``__ignore__`` are void.

    Args:
        path: The JSON file.
        size: ``(H, W)`` of the photograph, to compare with the file's; not compared by default.

    Returns:
        Label -> its mask: ``(H, W)`` int64 of 0 background, 1 object and 255 void. A pixel belongs to a shape if its
        middle lies inside.

    Raises:
        ValueError: If the file is not JSON of LabelMe, a shape encloses nothing or has invalid coordinates, or the size
            differs.
        OSError: If there is no such file, or it may not be read.

    Example:
        >>> import json, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mug.json")
        >>> shape = {"label": "mug", "shape_type": "rectangle", "points": [[1, 0], [3, 1]]}
        >>> _ = path.write_text(json.dumps({"shapes": [shape], "imageHeight": 2, "imageWidth": 4}))
        >>> read_labelme(path)["mug"].tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    path = check_path("path", path)
    content, _ = read_json(path, "LabelMe's list shapes")
    shapes = content.get("shapes")
    if not isinstance(shapes, list):
        raise ValueError(f"{path} must have LabelMe's list shapes, got {shown(shapes)}")
    size = _size(path, content, size)
    inside: dict[str, NDArray[np.bool_]] = {}
    for number, shape in enumerate(shapes, start=1):
        try:
            label, where = _read_shape(shape, size)
        except ValueError as error:
            raise ValueError(f"{path}, shape {number}: {error}") from error
        inside[label] = inside[label] | where if label in inside else where
    unclear = inside.pop("__ignore__", None)
    inside.pop("_background_", None)
    return label_masks(inside, unclear)


def to_labelme(mask: ClassMask, names: Sequence[str], image_path: str, *, tolerance: float = 1.0) -> dict[str, Any]:
    """Convert a mask to the content of a LabelMe file, with a polygon for each connected region of each class.

    LabelMe's polygons cannot have holes; the outline of a region with holes is joined to each hole by a cut, so that
    filling it leaves them empty.

    Args:
        mask: ``(H, W)`` bool or integers: 0 background, 1 the first of ``names``, ...; 255 void is not written.
        names: The class names.
        image_path: The path of the photograph relative to the file's folder.
        tolerance: Largest distance in pixels of simplified outlines from the edges of pixels.

    Returns:
        A dict for ``json.dump``.

    Raises:
        ValueError: If the mask has another shape or ids without names, or ``tolerance`` is negative.

    Example:
        >>> content = to_labelme(np.array([[0, 1, 1]]), ["mug"], "photo.jpg")
        >>> content["shapes"][0]["label"], content["shapes"][0]["points"]
        ('mug', [[1.0, 0.0], [3.0, 0.0], [3.0, 1.0], [1.0, 1.0]])
    """
    check_number("tolerance", tolerance, 0)
    names = check_names(names)
    ids = class_ids(mask, names)
    shapes: list[Json] = [
        {
            "label": names[class_id - 1],
            "points": polygon_of(region, tolerance),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for class_id, where in present_classes(ids)
        for region in regions_of(where)
    ]
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(image_path).as_posix(),
        "imageData": None,
        "imageHeight": ids.shape[0],
        "imageWidth": ids.shape[1],
    }


def _size(path: Path, content: Json, size: tuple[int, int] | None) -> tuple[int, int]:
    given = content.get("imageHeight"), content.get("imageWidth")
    if given == (None, None) and size is not None:
        return size
    height, width = map(as_whole, given)
    if height is None or width is None or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"{path} must have imageHeight and imageWidth of at least 1, got {shown(given)}")
    if size is not None and (height, width) != size:
        raise ValueError(f"{path} is of {width} x {height} pixels, but its photograph has {size[1]} x {size[0]}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise ValueError(f"{path} is of {width} x {height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS = {limit}")
    return height, width


def _read_shape(shape: object, size: tuple[int, int]) -> tuple[str, NDArray[np.bool_]]:
    if not isinstance(shape, dict):
        raise ValueError(f"it must be an object, got {shown(shape)}")
    label, kind, pairs = shape.get("label"), shape.get("shape_type", "polygon"), shape.get("points")
    if not isinstance(label, str) or not label:
        raise ValueError(f"label must be a name, got {shown(label)}")
    points = as_points(pairs) if isinstance(pairs, list) else None
    if points is None:
        raise ValueError(f"points of {shown(label)} must be a list of [x, y], got {shown(pairs)}")
    if not np.isfinite(points).all() or np.abs(points).max() > 100 * sum(size):
        raise ValueError(
            f"points of {shown(label)} must fit {size[1]} x {size[0]} pixels, got {shown(points.tolist())}"
        )
    where = _inside(shape, kind or "polygon", points, size)
    if not where.any() and label not in IGNORED:
        raise ValueError(f"the {kind} of {shown(label)} must enclose pixels of the photograph, but has none")
    return label, where


def _inside(shape: Json, kind: str, points: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    if kind in {"polygon", "oriented_rectangle"}:
        return fill_polygon(_with_points(kind, points, 3, most=None), size)
    if kind == "rectangle":
        (left, top), (right, bottom) = _with_points(kind, points, 2)
        return fill_polygon(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), size)
    if kind == "circle":
        middle, rim = _with_points(kind, points, 2)
        y, x = np.ogrid[0.5 : size[0], 0.5 : size[1]]
        return np.asarray((x - middle[0]) ** 2 + (y - middle[1]) ** 2 <= np.square(rim - middle).sum())
    if kind == "mask":
        return _paste(shape.get("mask"), _with_points(kind, points, 2), size)
    raise ValueError(f"shape_type must be polygon, rectangle, circle or mask to enclose an object, got {shown(kind)}")


def _with_points(kind: str, points: Ring, least: int, most: int | None = 2) -> Ring:
    if len(points) < least or (most is not None and len(points) > most):
        raise ValueError(f"a {kind} must have {least} points{'' if most else ' or more'}, got {len(points)}")
    return points


def _paste(text: object, points: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a mask in base64, and place it with its upper left pixel at the first point."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if not raw:
        raise ValueError(f"mask must be a picture in base64, got {shown(text)}")
    with reading("mask"), _open_png(raw) as picture:
        if picture.width > MAX_SIDE or picture.height > MAX_SIDE:
            raise Image.DecompressionBombError
        values = np.asarray(picture.convert("L")) > 0
    left, top = points[0].round().astype(int).tolist()
    inside = np.zeros(size, dtype=bool)
    shown_part = values[max(-top, 0) : max(size[0] - top, 0), max(-left, 0) : max(size[1] - left, 0)]
    inside[max(top, 0) : max(top, 0) + shown_part.shape[0], max(left, 0) : max(left, 0) + shown_part.shape[1]] = (
        shown_part
    )
    return inside


def _open_png(raw: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(raw), formats=["PNG"])
    except UnidentifiedImageError:
        raise ValueError("it is not a PNG, or cut off") from None
