"""PASCAL VOC 2012 with the masks of SBD: the images of PASCAL-5i."""

import re
from pathlib import Path

from fewshotseg._checks import check_path
from fewshotseg._io import StrPath
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.listing import files_by_name, one_form, partners, without_ending
from fewshotseg.data.sources.tables import read_text
from fewshotseg.data.splits import PASCAL_CLASSES

AUGMENTED = "SegmentationClassAug"
"""The folder with the masks of VOC and SBD."""


class VOCSource(FileSource):
    """PASCAL VOC 2012 in its original layout, with the masks of ``SegmentationClassAug`` if that folder exists.

    Download the data with ``torchvision.datasets.VOCSegmentation(root, "2012", download=True)``, and SBD with
    ``torchvision.datasets.SBDataset(sbd_root, download=True)``; `write_sbd_masks` then creates
    ``SegmentationClassAug``, which all splits but VOC's own need.

    Args:
        root: ``VOC2012``, or a folder that contains ``VOC2012`` or ``VOCdevkit/VOC2012``.
        split: One of

            * ``"val"``: VOC's 1449 images, on which PASCAL-5i is tested.
            * ``"pfenet"``: the training images of PFENet and most later methods: VOC's 1464 training images, then
              those of SBD in VOC's training list for classification, 5953 in all. None is in ``"val"``.
            * ``"trainaug"``: VOC's training images, then all others of SBD that are not in ``"val"``, 10582 in all.
            * the name of another list in ``ImageSets/Segmentation``. A list there with one of the names above is
              preferred.
            * the path of a text file with an image on each line: its id, or as in PFENet's lists the path of the image
              before that of the mask. Repetitions are ignored.
        cache: Folder for the cached counts; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there is no such split, it lists no images, or it needs a missing ``SegmentationClassAug``.
        FileNotFoundError: If ``root`` does not hold VOC 2012.

    Example:
        >>> from fewshotseg.data import EpisodeDataset, pascal5i
        >>> def test_episodes(root):
        ...     return EpisodeDataset(VOCSource(root, split="val"), pascal5i(0).novel, shots=1, length=5000)
    """

    def __init__(self, root: StrPath, *, split: StrPath, cache: StrPath | None = None, progress: bool = False) -> None:
        folder = voc_folder(check_path("root", root))
        ids = _image_ids(folder, check_path("split", split))
        if not ids:
            raise ValueError(f"split must name images, got {str(split)!r}, which names none")
        images, masks = folder / "JPEGImages", folder / AUGMENTED
        if not masks.is_dir():
            masks = folder / "SegmentationClass"
        photographs = files_by_name(images).files | files_by_name(images, {".jpg"}).files
        super().__init__(
            partners(images, photographs, ids, ".jpg"),
            partners(masks, files_by_name(masks, {".png"}).files, ids, ".png"),
            ids=ids,
            class_names=PASCAL_CLASSES,
            cache=cache,
            progress=progress,
        )


def voc_folder(root: Path) -> Path:
    """Find the folder ``VOC2012``: ``root`` itself, or one in it."""
    return first_folder(root, ("", "VOC2012", "VOCdevkit/VOC2012"), "JPEGImages")


def first_folder(root: Path, places: tuple[str, ...], wanted: str) -> Path:
    """Return the first of some folders below ``root`` that has a subfolder ``wanted``."""
    for place in places:
        if (root / place / wanted).is_dir():
            return root / place
    looked = ", ".join(str(root / place / wanted) for place in places)
    raise FileNotFoundError(f"one of these folders must exist: {looked}")


def _image_ids(voc: Path, split: Path) -> list[str]:
    """List the ids of a split, see `VOCSource`, without repetitions."""
    lists = voc / "ImageSets" / "Segmentation"
    known = lists / f"{split}.txt"
    if known.is_file():
        return _read_list(known)
    if str(split) in {"pfenet", "trainaug"}:
        if not (voc / AUGMENTED).is_dir():
            raise ValueError(f"split {str(split)!r} needs {voc / AUGMENTED}, which write_sbd_masks makes")
        augmented = set(files_by_name(voc / AUGMENTED, {".png"}).files)
        if str(split) == "pfenet":
            augmented &= set(_read_list(voc / "ImageSets" / "Main" / "train.txt"))
        added = augmented - set(_read_list(lists / "val.txt"))
        return list(dict.fromkeys([*_read_list(lists / "train.txt"), *sorted(added)]))
    if split.is_file():
        return _read_list(split)
    raise ValueError(f"split must be 'val', 'pfenet', 'trainaug', a list in {lists} or a file, got {str(split)!r}")


def _read_list(path: Path) -> list[str]:
    return list(dict.fromkeys(_listed_id(line.strip()) for line in read_text(path).splitlines() if line.strip()))


def _listed_id(line: str) -> str:
    """Return the id in a line, where a mask's path or, as in VOC's lists for classification, a label may follow."""
    image = re.sub(r"\s+-?[01]$", "", line)
    for gap in re.finditer(r"\s+", line):  # a name may hold blanks
        if without_ending(line[: gap.start()]) != line[: gap.start()]:
            image = line[: gap.start()]
            break
    return one_form(without_ending(image.replace("\\", "/").rpartition("/")[2]))
