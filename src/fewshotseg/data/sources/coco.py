"""COCO's instance annotations as class masks: the images of COCO-20i."""

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshotseg._io import StrPath, cache_folder, progress_bar
from fewshotseg.data.sources.files import FileSource
from fewshotseg.images import write_mask

Json = dict[str, Any]


class COCOSource(FileSource):
    """COCO's images with masks drawn from an instances file of 2014 or 2017, or any other of that format.

    Class ids are the ranks of the sorted category ids, for COCO 1 to 80. The rule by which masks are drawn, because
    published label files differ in it: crowd annotations are skipped, all polygons of an annotation count, and where
    annotations overlap, the later one in the file wins. Nothing is void. Images without an annotation are left out,
    so that 82081 images of COCO's 2014 training set and 40137 of its validation set remain.

    Masks are drawn when the first source of an instances file is made, which takes minutes for all of COCO and
    pycocotools, and are kept as PNG files in a folder named after that file and a digest of its content.

    Get the data from https://cocodataset.org, section Download.

    Args:
        images: The folder of the images, such as ``train2014``.
        annotations: The file, such as ``instances_train2014.json``.
        cache: A folder for what is computed once; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are drawn or read for the first time, if tqdm is installed.

    Raises:
        ValueError: If the file is not of that format or an annotation cannot be drawn; the message names all of them.
        FileNotFoundError: If there is no such file.
        ImportError: If pycocotools is not installed.

    Example:
        >>> from fewshotseg.data import EpisodeDataset, coco20i
        >>> def test_episodes(root):
        ...     source = COCOSource(f"{root}/val2014", f"{root}/annotations/instances_val2014.json", progress=True)
        ...     return EpisodeDataset(source, coco20i(0).novel, shots=1, length=20000)
    """

    def __init__(
        self, images: StrPath, annotations: StrPath, *, cache: StrPath | None = None, progress: bool = False
    ) -> None:
        annotations = Path(annotations)
        content, digest = _read(annotations)
        categories, pictures = _organise(content, annotations)
        class_of = {category: class_id for class_id, category in enumerate(sorted(categories), start=1)}
        if len(class_of) > 254:
            raise ValueError(f"{annotations} must have at most 254 categories, got {len(class_of)}")
        masks = cache_folder(cache) / f"{annotations.stem}-{digest}"
        _write_masks(pictures, class_of, masks, annotations, progress=progress)
        super().__init__(
            [Path(images, picture["file_name"]) for picture, _ in pictures],
            [masks / _mask_name(picture) for picture, _ in pictures],
            ids=[Path(picture["file_name"]).with_suffix("").as_posix() for picture, _ in pictures],
            class_names={class_of[category]: name for category, name in categories.items()},
            cache=cache,
            progress=progress,
        )


def draw_coco_mask(size: tuple[int, int], annotations: Sequence[Json], class_of: dict[int, int]) -> NDArray[np.uint8]:
    """Draw the annotations of one image, crowds left out, later ones over earlier ones.

    Args:
        size: Height and width.
        annotations: As in an instances file: polygons or run lengths as ``segmentation``, ``category_id``, ``iscrowd``.
        class_of: Category id to class id, 1 to 254.

    Returns:
        ``(H, W)`` uint8 class ids, 0 where nothing is.

    Raises:
        ValueError: If an annotation cannot be drawn; the message names all of them.
        ImportError: If pycocotools is not installed.

    Example:
        >>> square = {"category_id": 18, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
        >>> draw_coco_mask((2, 4), [square], {18: 17}).tolist()
        [[17, 17, 0, 0], [17, 17, 0, 0]]
    """
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise ImportError("COCO's masks need pycocotools: pip install 'fewshotseg[coco]'") from error
    decoder = COCO()
    decoder.imgs = {0: {"height": size[0], "width": size[1]}}
    mask = np.zeros(size, dtype=np.uint8)
    faults = []
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        try:
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, list):  # fewer than three points enclose nothing
                segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
            with warnings.catch_warnings():  # NumPy 2 deprecates how pycocotools makes arrays
                warnings.simplefilter("ignore", DeprecationWarning)
                inside = decoder.annToMask({"image_id": 0, "segmentation": segmentation})
            mask[inside == 1] = class_of[annotation["category_id"]]
        except Exception as error:  # the decoder raises bare exceptions of many kinds
            faults.append(f"annotation {annotation.get('id')}: {error!r}")
    if faults:
        raise ValueError("; ".join(faults))
    return mask


def _read(path: Path) -> tuple[Json, str]:
    """The content of an instances file and a digest of its bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        file.seek(0)
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    return content, digest


def _organise(content: Json, path: Path) -> tuple[dict[int, str], list[tuple[Json, list[Json]]]]:
    """Category id to name, and each image that has annotations, crowds aside, with those; images by ascending id."""
    try:
        categories = {int(category["id"]): str(category["name"]) for category in content["categories"]}
        images = {int(image["id"]): image for image in content["images"]}
        for image in images.values():
            if not str(image["file_name"]) or not (int(image["height"]) > 0 and int(image["width"]) > 0):
                raise ValueError(f"image {image['id']} has no name or no size")
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                annotations[int(annotation["image_id"])].append(annotation)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a COCO instances file: {error!r}") from error
    unknown = sorted(annotations.keys() - images.keys())
    if unknown:
        raise ValueError(f"{path} has annotations of images that it does not list: {', '.join(map(str, unknown))}")
    return categories, [(images[image_id], annotations[image_id]) for image_id in sorted(annotations)]


def _write_masks(
    pictures: list[tuple[Json, list[Json]]], class_of: dict[int, int], masks: Path, source: Path, *, progress: bool
) -> None:
    missing = [picture for picture in pictures if not (masks / _mask_name(picture[0])).is_file()]
    faults = []
    for image, annotations in progress_bar(missing, "masks of COCO", show=progress and bool(missing)):
        try:
            mask = draw_coco_mask((int(image["height"]), int(image["width"])), annotations, class_of)
        except ValueError as error:
            faults.append(f"image {image['id']}: {error}")
        else:
            write_mask(masks / _mask_name(image), mask)
    if faults:
        raise ValueError(f"{source} has annotations that cannot be drawn: {'; '.join(faults)}")


def _mask_name(image: Json) -> str:
    return f"{int(image['id']):012d}.png"  # never from the file's name, which may lead anywhere
