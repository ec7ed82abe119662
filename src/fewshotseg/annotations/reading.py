"""Reads the annotations of a photograph in any supported format."""

import json
from pathlib import Path

from torch import Tensor

from fewshotseg._checks import check_path, name_some, shown
from fewshotseg._io import StrPath
from fewshotseg.annotations.class_masks import find_labelmap, read_class_mask
from fewshotseg.annotations.coco import read_coco
from fewshotseg.annotations.labelme import read_labelme
from fewshotseg.data.sources.annotations import read_json
from fewshotseg.images import read_object_mask

OBJECT = "object"
"""The class name of a mask without names."""


def read_annotations(path: StrPath, photo: StrPath, *, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Read the annotations of a photograph from a file.

    Args:
        path: JSON of LabelMe or COCO (also exported by CVAT, Label Studio and others), or a mask in a lossless format:
            of one object, or of several classes with CVAT's ``labelmap.txt`` in its folder or the parent.
        photo: The photograph's path or name, to find its entry in a COCO file.
        size: ``(H, W)`` of the upright photograph, to compare with the file's; not compared by default.

    Returns:
        Class name -> its mask ``(H, W)`` int64 of 0 background, 1 object and 255 void. The class of a mask without
        names is ``"object"``.

    Raises:
        ValueError: If the file is of another format, faulty, or about another photograph or size.
        OSError: If there is no such file, or it may not be read.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from fewshotseg.images import write_mask
        >>> path = Path(tempfile.mkdtemp(), "mask.png")
        >>> write_mask(path, np.array([[0, 1]], dtype=np.uint8))
        >>> {name: mask.tolist() for name, mask in read_annotations(path, "photo.jpg").items()}
        {'object': [[0, 1]]}
    """
    path, photo = check_path("path", path), check_path("photo", photo)
    if path.suffix.lower() == ".json":
        content, _ = read_json(path, "what LabelMe or COCO write")
        if "shapes" in content:
            return read_labelme(path, size=size)
        if "annotations" in content:
            return read_coco(path, photo, size=size)
        keys = name_some([shown(key) for key in content]) or "nothing"
        raise ValueError(f"{path} must have LabelMe's shapes or COCO's images and annotations, got {keys}")
    labelmap = find_labelmap(path)
    masks = read_class_mask(path, labelmap) if labelmap else {OBJECT: read_object_mask(path)}
    for mask in masks.values():
        _check_size(path, mask, photo, size)
    return masks


def read_example(
    path: StrPath,
    photo: StrPath,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    void: int | None = None,
) -> Tensor:
    """Read the mask of one class on a photograph.

    Args:
        path: As in `read_annotations`.
        photo: As in `read_annotations`.
        name: The name of the class; if None, the file must have exactly one.
        size: As in `read_annotations`.
        void: In a mask of one object, the value of pixels that are neither object nor background.

    Returns:
        ``(H, W)`` int64 of 0 background, 1 object and 255 void.

    Raises:
        ValueError: As in `read_annotations`, or if the file does not have the class.
        OSError: If there is no such file, or it may not be read.
    """
    path, photo = check_path("path", path), check_path("photo", photo)
    if void is not None and path.suffix.lower() != ".json":
        mask: Tensor = read_object_mask(path, void=void)
        _check_size(path, mask, photo, size)
        return mask
    masks = read_annotations(path, photo, size=size)
    if [*masks] == [OBJECT] and path.suffix.lower() != ".json":
        return masks[OBJECT]
    listed = name_some([json.dumps(each, ensure_ascii=False) for each in masks]) or "none"
    if name is None and len(masks) != 1:
        raise ValueError(f"{path} must mark one class on {photo.name}, or the class must be named, got {listed}")
    if name is not None and name not in masks:
        raise ValueError(f"{path} must mark {shown(name)} on {photo.name}, but it has {listed}")
    return masks[name] if name is not None else next(iter(masks.values()))


def _check_size(path: Path, mask: Tensor, photo: Path, size: tuple[int, int] | None) -> None:
    if size is not None and mask.shape != size:
        raise ValueError(
            f"{path} must have the size of {photo}, {size[1]} x {size[0]} pixels, got {mask.shape[1]} x {mask.shape[0]}"
        )
