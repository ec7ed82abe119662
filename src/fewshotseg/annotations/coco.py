"""Reads and writes COCO's JSON, one file for many photographs, as CVAT, Label Studio and others export it."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewshotseg._checks import check_number, check_path, name_some, shown
from fewshotseg._io import StrPath
from fewshotseg.annotations.labels import ClassMask, check_names, class_ids, label_masks, present_classes
from fewshotseg.annotations.outlines import regions_of
from fewshotseg.annotations.polygons import fill_polygon, simplify
from fewshotseg.data.sources.annotations import Id, Json, Picture, as_id, is_crowd, read_instances, title_of
from fewshotseg.data.sources.drawing import check_polygon, draw_runs, polygons_of
from fewshotseg.data.sources.faults import faulty_files
from fewshotseg.images.said import say_once


def read_coco(path: StrPath, photo: StrPath, *, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Read the annotations of one photograph from a file in COCO's format.

    Polygons and run lengths are read, compressed or not, without pycocotools. A crowd is void if its class has other
    annotations on the photograph, else the object. If an annotation has a box only, the box is the object, with a
    warning.

    Args:
        path: The JSON file.
        photo: The photograph's path or name. Names in the file may have other folders, or a prefix of Label Studio. If
            the file lists only one photograph, whose name is another but whose size is ``size``, that one is taken,
            with a warning.
        size: ``(H, W)`` of the photograph, to compare with the file's; not compared by default.

    Returns:
        Category -> its mask, for each on the photograph: ``(H, W)`` int64 of 0 background, 1 object and 255 void.

    Raises:
        ValueError: If the file is of another format, faulty, or does not list the photograph.
        OSError: If there is no such file, or it may not be read.
    """
    path, photo = check_path("path", path), check_path("photo", photo)
    content = read_instances(path, crowds=True)
    if content.faults:
        raise faulty_files(path, content.faults)
    picture = _find(path, content.pictures, photo, size)
    if size is not None and picture.size != size:
        raise ValueError(
            f"{path} says that {photo.name} has {picture.size[1]} x {picture.size[0]} pixels, "
            f"but it has {size[1]} x {size[0]}"
        )
    objects: dict[str, NDArray[np.bool_]] = {}
    crowds: dict[str, NDArray[np.bool_]] = {}
    for annotation in picture.annotations:
        try:
            name = _category(annotation, content.categories)
            where = _inside(annotation, picture.size)
            kind = crowds if is_crowd(annotation) else objects
        except ValueError as error:
            raise ValueError(f"{path}, {title_of(annotation)}: {error}") from error
        kind[name] = kind[name] | where if name in kind else where
    masks = label_masks({name: where for name, where in crowds.items() if name not in objects})
    for name, where in objects.items():
        masks.update(label_masks({name: where}, crowds.get(name)))
    return masks


def to_coco(masks: Mapping[str, ClassMask], names: Sequence[str], *, tolerance: float = 0.0) -> dict[str, Any]:
    """Convert masks to the content of a COCO file, with one annotation for each class of each photograph.

    Args:
        masks: File name of a photograph, with ``/`` between folders -> its mask ``(H, W)``, bool or integers: 0
            background, 1 the first of ``names``, ...; 255 void is not written.
        names: The class names; their category ids are 1, 2, ...
        tolerance: Largest distance in pixels of simplified polygons from the edges of pixels. With 0 pycocotools
            decodes them to exactly the mask.

    Returns:
        A dict for ``json.dump``. Masks are polygons, or run lengths if they have holes, which polygons cannot have.

    Raises:
        ValueError: If a mask has another shape or ids without names, or ``tolerance`` is negative.
        TypeError: If ``masks`` is not a dict.

    Example:
        >>> content = to_coco({"photo.jpg": np.array([[0, 1, 1]])}, ["mug"])
        >>> content["annotations"][0]["segmentation"], content["annotations"][0]["bbox"]
        ([[1.0, 0.0, 3.0, 0.0, 3.0, 1.0, 1.0, 1.0]], [1, 0, 2, 1])
    """
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks must be a dict of file names and masks, got {type(masks).__name__}")
    names, photos = check_names(names), []
    for file_name, mask in masks.items():
        ids = class_ids(mask, names)
        photos.append((file_name, ids.shape, coco_annotations(ids, names, tolerance=tolerance)))
    return coco_content(photos, names)


def coco_annotations(mask: ClassMask, names: Sequence[str], *, tolerance: float = 0.0) -> list[Json]:
    """Make the annotations of one photograph, without ids; see `to_coco`."""
    check_number("tolerance", tolerance, 0)
    annotations = []
    for class_id, where in present_classes(class_ids(mask, names)):
        regions = regions_of(where)
        rows, columns = (np.nonzero(where.any(axis=axis))[0] for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "category_id": class_id,
                "segmentation": _runs(where)
                if any(region.holes for region in regions)
                else [simplify(region.outer, tolerance).ravel().tolist() for region in regions],
                "area": int(where.sum()),
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "iscrowd": 0,
            }
        )
    return annotations


def coco_content(photos: Sequence[tuple[str, Sequence[int], list[Json]]], names: Sequence[str]) -> Json:
    """Make the content of a COCO file from file names, sizes ``(H, W)`` and annotations of `coco_annotations`."""
    images: list[Json] = []
    annotations: list[Json] = []
    for number, (file_name, (height, width), found) in enumerate(photos, start=1):
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        annotations += [
            {"id": len(annotations) + i, "image_id": number, **each} for i, each in enumerate(found, start=1)
        ]
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, start=1)]
    info = {"description": "made by fewshotseg"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _runs(where: NDArray[np.bool_]) -> Json:
    """Encode a mask as run lengths, column by column, beginning with the background."""
    flat = where.ravel(order="F")
    changes = np.nonzero(flat[1:] != flat[:-1])[0] + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(where.shape), "counts": [0, *runs] if flat[0] else runs}


def _find(path: Path, pictures: Sequence[Picture], photo: Path, size: tuple[int, int] | None) -> Picture:
    """Find the entry of a photograph by its name; or take the only entry, if that has the photograph's size."""
    named = [(picture, PurePosixPath(str(picture.file_name).replace("\\", "/"))) for picture in pictures]
    of_name = [(picture, file) for picture, file in named if file.name == photo.name]
    of_name = of_name or [(picture, file) for picture, file in named if file.name.endswith(f"-{photo.name}")]
    exact = [picture for picture, file in of_name if f"/{photo.as_posix()}".endswith(f"/{file}")]
    found = exact or [picture for picture, _ in of_name]
    if len(found) > 1:
        names = name_some([shown(picture.file_name) for picture in found])
        raise ValueError(f"{path} must have one photograph named {photo.name}, got {names}")
    if not found and len(pictures) == 1 and pictures[0].size == size:
        warnings.warn(
            f"{path}: the annotation of {shown(pictures[0].file_name)} is taken as that of {photo.name}, as it is the "
            "only one in the file and the sizes are equal",
            stacklevel=3,
        )
        return pictures[0]
    if not found:
        names = name_some([shown(picture.file_name) for picture in pictures]) or "none"
        raise ValueError(f"{path} must have annotations of {photo.name}, but those that it has are of {names}")
    return found[0]


def _category(annotation: Json, categories: Mapping[Id, str]) -> str:
    category = as_id(annotation.get("category_id"))
    if category is None or category not in categories:
        got = shown(annotation.get("category_id"))
        raise ValueError(f"category_id must be the id of a category that the file lists, got {got}")
    return categories[category]


def _inside(annotation: Json, size: tuple[int, int]) -> NDArray[np.bool_]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        inside = draw_runs(segmentation, size)
    elif isinstance(segmentation, list) and segmentation:
        inside = np.zeros(size, dtype=bool)
        for polygon in polygons_of(segmentation):
            check_polygon(polygon, size)
            inside |= fill_polygon(np.array(polygon, dtype=np.float64).reshape(-1, 2), size)
    elif not segmentation and annotation.get("bbox"):
        inside = _box(annotation["bbox"], size)
    else:
        raise ValueError(f"segmentation must be polygons or run lengths, got {shown(segmentation)}")
    if not inside.any():
        raise ValueError("segmentation must enclose pixels of the photograph, but has none")
    return inside


def _box(box: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    if not isinstance(box, list) or len(box) != 4 or not {type(each) for each in box} <= {int, float}:
        raise ValueError(f"bbox must be four numbers, got {shown(box)}")
    left, top, width, height = box
    if not (width > 0 and height > 0):  # true for NaN
        raise ValueError(f"bbox must have a width and a height above 0, got {shown(box)}")
    polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
    check_polygon(polygon, size)
    say_once("box", "an annotation has a box and no outline: the whole box is taken as the object; outlines are better")
    return fill_polygon(np.array(polygon, dtype=np.float64).reshape(-1, 2), size)
