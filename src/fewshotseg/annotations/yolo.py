"""Writes YOLO's text files for segmentation: one file for each photograph, one line for each polygon."""

import json
from collections.abc import Sequence

from fewshotseg._checks import check_number
from fewshotseg.annotations.labels import ClassMask, check_names, class_ids, present_classes
from fewshotseg.annotations.outlines import regions_of
from fewshotseg.annotations.polygons import polygon_of


def to_yolo(mask: ClassMask, names: Sequence[str], *, tolerance: float = 1.0) -> str:
    r"""Convert a mask to YOLO's lines: a class, from 0 on, and x and y of a polygon as shares of width and height.

    There is one line for each connected region of each class. YOLO's polygons cannot have holes; the outline of a
    region with holes is joined to each hole by a cut.

    Args:
        mask: ``(H, W)`` bool or integers: 0 background, 1 the first of ``names``, ...; 255 void is not written.
        names: The class names; the first is YOLO's class 0.
        tolerance: Largest distance in pixels of simplified outlines from the edges of pixels.

    Raises:
        ValueError: If the mask has another shape or ids without names, or ``tolerance`` is negative.

    Example:
        >>> import numpy as np
        >>> to_yolo(np.array([[0, 1]]), ["mug"])
        '0 0.5 0 1 0 1 1 0.5 1\n'
    """
    check_number("tolerance", tolerance, 0)
    ids = class_ids(mask, check_names(names))
    height, width = ids.shape
    return "".join(
        " ".join([f"{class_id - 1}", *(f"{x / width:.6g} {y / height:.6g}" for x, y in polygon_of(region, tolerance))])
        + "\n"
        for class_id, where in present_classes(ids)
        for region in regions_of(where)
    )


def yolo_data(names: Sequence[str]) -> str:
    """Write the text of ``data.yaml`` for the folders ``images`` and ``labels``.

    Example:
        >>> print(yolo_data(["mug"]))
        path: .
        train: images
        val: images
        names:
          0: "mug"
        <BLANKLINE>
    """
    listed = [f"  {number}: {_quoted(name)}" for number, name in enumerate(check_names(names))]
    return "\n".join(["path: .", "train: images", "val: images", "names:", *listed, ""])


def _quoted(name: str) -> str:
    """Quote a name for YAML, which has JSON's escapes and Python's, but not JSON's pairs of surrogates."""
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in quoted)
