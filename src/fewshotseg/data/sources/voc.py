"""PASCAL VOC 2012 with the masks of SBD: the images of PASCAL-5i."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshotseg._io import StrPath, progress_bar, write_atomically
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.splits import PASCAL_CLASSES
from fewshotseg.images import write_mask

_AUGMENTED = "SegmentationClassAug"


class VOCSource(FileSource):
    """PASCAL VOC 2012 as it is unpacked, with the masks of ``SegmentationClassAug`` if there are such.

    Get the data with ``torchvision.datasets.VOCSegmentation(root, "2012", download=True)``, and SBD with
    ``torchvision.datasets.SBDataset(sbd_root, download=True)``; `write_sbd_masks` then makes
    ``SegmentationClassAug``, which every split but VOC's own needs.

    Args:
        root: ``VOC2012``, or a folder with ``VOC2012`` or ``VOCdevkit/VOC2012`` in it.
        split: One of

            * ``"val"``: VOC's 1449 images, on which PASCAL-5i is tested.
            * ``"pfenet"``: what PFENet, and most of few-shot segmentation since, trains on: VOC's 1464 training
              images, then those of SBD in VOC's training list for classification, 5953 in all. None is in ``"val"``.
            * ``"trainaug"``: VOC's training images, then all others of SBD that are not in ``"val"``, 10582 in all.
            * another name of a list in ``ImageSets/Segmentation``. If there is such a list with one of the names
              above, it is used.
            * the path to a text file that names an image in each line, by id or as PFENet's lists do, by the path of
              the image before that of the mask. Repetitions do not count.
        cache: A folder for what is computed once; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there is no such split, or it needs ``SegmentationClassAug`` and there is none.
        FileNotFoundError: If ``root`` does not hold VOC 2012.

    Example:
        >>> from fewshotseg.data import EpisodeDataset, pascal5i
        >>> def test_episodes(root):
        ...     return EpisodeDataset(VOCSource(root, split="val"), pascal5i(0).novel, shots=1, length=5000)
    """

    def __init__(self, root: StrPath, *, split: StrPath, cache: StrPath | None = None, progress: bool = False) -> None:
        folder = _voc_folder(Path(root))
        ids = _image_ids(folder, split)
        masks = folder / _AUGMENTED
        if not masks.is_dir():
            masks = folder / "SegmentationClass"
        super().__init__(
            [folder / "JPEGImages" / f"{name}.jpg" for name in ids],
            [masks / f"{name}.png" for name in ids],
            ids=ids,
            class_names=PASCAL_CLASSES,
            cache=cache,
            progress=progress,
        )


def write_sbd_masks(sbd_root: StrPath, voc_root: StrPath, *, progress: bool = False) -> Path:
    """Make VOC's ``SegmentationClassAug``: VOC's own mask where VOC has one, SBD's for all other images.

    SBD's masks have no void border. The folder appears when it is complete; an interrupted run goes on where it
    stopped, in ``SegmentationClassAug.part``. A ``SegmentationClassAug`` that exists is left as it is. Needs scipy.

    Args:
        sbd_root: The folder with SBD's ``cls``, or one with ``dataset`` or ``benchmark_RELEASE/dataset`` in it.
        voc_root: As in `VOCSource`.
        progress: Show a progress bar, if tqdm is installed.

    Returns:
        The folder ``SegmentationClassAug``, with 12031 masks if both data sets are complete.

    Raises:
        ValueError: If a file of SBD cannot be read, or holds no mask of VOC's classes; the message names it.
        FileNotFoundError: If a data set is not there.
        ImportError: If scipy is not installed.
    """
    voc = _voc_folder(Path(voc_root))
    target, part = voc / _AUGMENTED, voc / f"{_AUGMENTED}.part"
    if target.is_dir():
        return target
    own = sorted((voc / "SegmentationClass").glob("*.png"))
    annotations = _first_folder(Path(sbd_root), ("", "dataset", "benchmark_RELEASE/dataset"), "cls") / "cls"
    others = sorted(annotations.glob("*.mat"))
    if not own or not others:
        raise FileNotFoundError(f"{voc} holds {len(own)} masks of VOC and {annotations} {len(others)} of SBD")
    for file in own:
        if not (part / file.name).exists():
            write_atomically(part / file.name, file.read_bytes())
    for file in progress_bar(others, "masks of SBD", show=progress):
        if not (part / f"{file.stem}.png").exists():
            write_mask(part / f"{file.stem}.png", _read_sbd_mask(file))
    return part.rename(target)


def _read_sbd_mask(path: Path) -> NDArray[np.uint8]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("the masks of SBD need scipy: pip install scipy") from error
    try:
        mask = np.asarray(loadmat(path)["GTcls"][0]["Segmentation"][0])
    except Exception as error:  # as with images: whatever the bytes lead the decoder to
        raise ValueError(f"{path} cannot be read as a mask of SBD: {error!r}") from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size or mask.max() > len(PASCAL_CLASSES):
        raise ValueError(f"{path} must hold a uint8 mask with classes 0 to 20, got {mask.dtype} of shape {mask.shape}")
    return mask


def _voc_folder(root: Path) -> Path:
    return _first_folder(root, ("", "VOC2012", "VOCdevkit/VOC2012"), "JPEGImages")


def _first_folder(root: Path, places: tuple[str, ...], wanted: str) -> Path:
    for place in places:
        if (root / place / wanted).is_dir():
            return root / place
    looked = ", ".join(str(root / place / wanted) for place in places)
    raise FileNotFoundError(f"one of these folders must exist: {looked}")


def _image_ids(voc: Path, split: StrPath) -> list[str]:
    """The ids of a split, see `VOCSource`, without repetitions."""
    lists = voc / "ImageSets" / "Segmentation"
    known = lists / f"{split}.txt"
    if known.is_file():
        return _read_list(known)
    if split in {"pfenet", "trainaug"}:
        if not (voc / _AUGMENTED).is_dir():
            raise ValueError(f"split {split!r} needs {voc / _AUGMENTED}, which write_sbd_masks makes")
        augmented = {file.stem for file in (voc / _AUGMENTED).glob("*.png")}
        if split == "pfenet":
            augmented &= set(_read_list(voc / "ImageSets" / "Main" / "train.txt"))
        added = augmented - set(_read_list(lists / "val.txt"))
        return list(dict.fromkeys([*_read_list(lists / "train.txt"), *sorted(added)]))
    if Path(split).is_file():
        return _read_list(Path(split))
    raise ValueError(f"split must be 'val', 'pfenet', 'trainaug', a list in {lists} or a file, got {str(split)!r}")


def _read_list(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(Path(line.split()[0]).stem for line in lines if line.strip()))
