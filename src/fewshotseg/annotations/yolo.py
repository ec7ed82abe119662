"""YOLO's text files for segmentation: one file a photograph, one line a polygon."""

import json
from collections.abc import Sequence

from fewshotseg._checks import check_number
from fewshotseg.annotations.labels import ClassMask, check_names, class_ids, present_classes
from fewshotseg.annotations.outlines import regions_of
from fewshotseg.annotations.polygons import polygon_of


def to_yolo(mask: ClassMask, names: Sequence[str], *, tolerance: float = 1.0) -> str:
    r"""A mask as YOLO's lines: a class from 0 on, and the x and y of a polygon as shares of width and height.

    A line for each connected part of each class. YOLO's polygons have no holes; the outline of a part with holes goes
    by a cut to each of them and around it.

    Args:
        mask: ``(H, W)`` bool or integers: 0 background, 1 the first of ``names``, ...; 255 void is not written.
        names: Of the classes; the first is YOLO's class 0.
        tolerance: How far outlines may stray from the edges of pixels to have fewer points, in pixels.

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
    """The content of ``data.yaml`` beside the folders ``images`` and ``labels``.

    Example:
        >>> print(yolo_data(["mug"]))
        path: .
        train: images
        val: images
        names:
          0: "mug"
        <BLANKLINE>
    """
    listed = [f"  {number}: {json.dumps(name)}" for number, name in enumerate(check_names(names))]
    return "\n".join(["path: .", "train: images", "val: images", "names:", *listed, ""])
