"""Data sets with a folder for each class, as in cross-domain few-shot segmentation."""

from collections.abc import Iterator
from functools import cache as cached
from pathlib import Path
from typing import Literal, NamedTuple

from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg._checks import check_path, name_some
from fewshotseg._io import StrPath
from fewshotseg.data.sources.faults import check_folder, faulty_files
from fewshotseg.data.sources.listing import FoundFiles, files_by_name, is_hidden, one_form, partners
from fewshotseg.data.sources.white import WhiteSource, numbered
from fewshotseg.images import read_image

PLACES = (
    ("images", "masks"),
    ("origin", "groundtruth"),
    ("test/images", "test/masks"),
    ("test/origin", "test/groundtruth"),
)
"""Subfolders of the images and the masks in the folder of a class."""

ISIC = ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth")
CHEST = ("CXR_png", "masks")
SUFFIXES = ("_mask", "_segmentation")
"""Endings that the name of a mask may add to that of its image."""


class ClasswiseSource(WhiteSource):
    """A source with a folder of images for each class, and masks that are white on black.

    The layout is detected by the names of the folders:

    * ``root/class/images`` and ``root/class/masks``; also ``origin`` and ``groundtruth`` (DeepGlobe as PATNet prepares
      it), and both in a folder ``test`` of the class;
    * ``root/images`` and ``root/masks/class``, where several classes share an image (SUIM); ``root/images`` may have
      the folders of the classes too;
    * ``root/ISIC2018_Task1-2_Training_Input/class`` and ``root/ISIC2018_Task1_Training_GroundTruth``;
    * ``root/CXR_png`` and ``root/masks``, the one class ``lung`` of the chest X-rays.

    A mask has the name of its image, perhaps with ``_mask`` or ``_segmentation`` at the end. Class ids are the
    positions of the classes sorted by name, from 1 on, without 255. An image of several classes is listed for each of
    them; ids are ``class/image``. A class without images keeps its id and is listed in ``incomplete``; folders of
    another layout are not classes and are listed in ``passed_over``.

    Args:
        root: The folder of the data set.
        cache: Folder for the cached index; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there are no images in such a layout, or files of a folder differ only in their ending; the
            message names the first few.
        OSError: If the folder does not exist.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for place in ("origin", "groundtruth"):
        ...     (root / "1/test" / place).mkdir(parents=True)
        >>> Image.new("RGB", (4, 3)).save(root / "1/test/origin/a.jpg")
        >>> Image.new("L", (4, 3), 255).save(root / "1/test/groundtruth/a.png")
        >>> source = ClasswiseSource(root, cache=root)
        >>> source.ids, dict(source.class_names), source.class_areas
        (('1/a',), {1: '1'}, [{1: 12}])
    """

    def __init__(self, root: StrPath, *, cache: StrPath | None = None, progress: bool = False) -> None:
        root = check_path("root", root)
        check_folder(root)
        folders = sorted(_class_folders(root), key=lambda folder: folder.name)
        names = numbered(folder.name for folder in folders)
        look = cached(files_by_name)
        ids: list[str] = []
        images: list[Path] = []
        masks: list[Path] = []
        class_ids: list[int] = []
        for (class_id, name), folder in zip(names.items(), folders, strict=True):
            found_images, found_masks = look(folder.images), look(folder.masks)
            of_image = _by_image(found_masks, found_images)
            listed = {"both": found_images.files | of_image, "images": found_images.files, "masks": of_image}
            stems = sorted(listed[folder.listed])
            ids += [f"{name}/{stem}" for stem in stems]
            images += partners(folder.images, found_images.files, stems, ".jpg", others=found_images.passed_over)
            masks += partners(folder.masks, of_image, stems, ".png", others=found_masks.passed_over)
            class_ids += [class_id] * len(stems)
        if not ids:
            inside = name_some([path.name for path in _visible(root)]) or "nothing"
            raise ValueError(
                f"root must hold a folder for each class, with images/ and masks/ or another layout that "
                f"ClasswiseSource names, got {root} with {inside}"
            )
        super().__init__(images, masks, ids=ids, class_ids=class_ids, class_names=names, cache=cache, progress=progress)
        used = {*images, *masks}
        places = dict.fromkeys(place for folder in folders for place in (folder.images, folder.masks))
        shared = {folder.masks for folder in folders if folder.listed == "images"}
        shared |= {folder.images for folder in folders if folder.listed == "masks"}
        beside = [path for place in places if place not in shared for path in look(place).passed_over]
        tops = {place.relative_to(root).parts[0] for place in places}
        beside += [path for path in _visible(root) if path.name not in tops]
        self.passed_over = tuple(path for path in beside if path not in used)
        known = set(class_ids)
        self.incomplete = tuple(
            f"{folder.images} holds no images"
            for class_id, folder in zip(names, folders, strict=True)
            if class_id not in known
        )
        if faults := [fault for place in places for fault in look(place).faults]:
            raise faulty_files(root, faults, self)

    @override
    def stored_mask(self, index: int) -> tv_tensors.Mask:
        mask = super().stored_mask(index)
        if not mask.any() and (brightest := int(read_image(self.masks[index]).max())):
            raise ValueError(
                f"{self.masks[index]} must be white on black, from 128 on, got nothing brighter than {brightest}; "
                f"masks of class ids are for FolderSource"
            )
        return mask


class ClassFolder(NamedTuple):
    """The folders of a class.

    Attributes:
        name: The name of the class.
        images: The folder of its images.
        masks: The folder of its masks.
        listed: Which folder lists the images of the class; the other one is shared with other classes.
    """

    name: str
    images: Path
    masks: Path
    listed: Literal["both", "images", "masks"]


def _class_folders(root: Path) -> Iterator[ClassFolder]:
    isic_images, isic_masks = (root / name for name in ISIC)
    chest_images, chest_masks = (root / name for name in CHEST)
    if isic_images.is_dir() and isic_masks.is_dir():
        for folder in _folders(isic_images):
            yield ClassFolder(folder.name, folder, isic_masks, "images")
    elif chest_images.is_dir() and chest_masks.is_dir():
        yield ClassFolder("lung", chest_images, chest_masks, "masks")
    elif (root / "images").is_dir() and (root / "masks").is_dir():
        for folder in _folders(root / "masks"):
            own = root / "images" / folder.name
            if own.is_dir():
                yield ClassFolder(folder.name, own, folder, "both")
            else:
                yield ClassFolder(folder.name, root / "images", folder, "masks")
    else:
        for folder in _folders(root):
            for images, masks in PLACES:
                if (folder / images).is_dir() and (folder / masks).is_dir():
                    yield ClassFolder(folder.name, folder / images, folder / masks, "both")
                    break


def _by_image(masks: FoundFiles, images: FoundFiles) -> dict[str, Path]:
    """Map the name of each image to its mask file."""
    by_image: dict[str, Path] = {}
    for stem, path in masks.files.items():
        suffix = "" if stem in images.files else next((each for each in SUFFIXES if stem.endswith(each)), "")
        by_image.setdefault(stem.removesuffix(suffix), path)
    return by_image


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not is_hidden(path.name)), key=lambda path: one_form(path.name))
