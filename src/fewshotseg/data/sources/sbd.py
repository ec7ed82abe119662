"""Adds the masks of SBD to PASCAL VOC, as most few-shot methods train on both."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshotseg._checks import check_path
from fewshotseg._io import StrPath, progress_bar, write_atomically
from fewshotseg.data.sources.faults import faulty_files, file_fault
from fewshotseg.data.sources.listing import files_by_name
from fewshotseg.data.sources.voc import AUGMENTED, first_folder, voc_folder
from fewshotseg.data.splits import PASCAL_CLASSES
from fewshotseg.images import write_mask


def write_sbd_masks(sbd_root: StrPath, voc_root: StrPath, *, progress: bool = False) -> Path:
    """Create VOC's ``SegmentationClassAug``, with VOC's own mask where there is one, and SBD's for all other images.

    SBD's masks have no void border. The masks are written to ``SegmentationClassAug.part``, which is renamed when it is
    complete; an interrupted run continues there. An existing ``SegmentationClassAug`` is not changed. Needs scipy.

    Args:
        sbd_root: The folder with SBD's ``cls``, or one with ``dataset`` or ``benchmark_RELEASE/dataset`` in it.
        voc_root: As in `VOCSource`.
        progress: Show a progress bar, if tqdm is installed.

    Returns:
        The folder ``SegmentationClassAug``, with 12031 masks if both data sets are complete.

    Raises:
        ValueError: If files cannot be read, or hold no mask of VOC's classes; the message names the first few. All
            other masks are kept for the next run.
        FileNotFoundError: If a data set is missing.
        ImportError: If scipy is not installed.
    """
    voc = voc_folder(check_path("voc_root", voc_root))
    target, part = voc / AUGMENTED, voc / f"{AUGMENTED}.part"
    if target.is_dir():
        return target
    annotations = (
        first_folder(check_path("sbd_root", sbd_root), ("", "dataset", "benchmark_RELEASE/dataset"), "cls") / "cls"
    )
    own = files_by_name(voc / "SegmentationClass", {".png"}).files.values()
    others = files_by_name(annotations, {".mat"}).files.values()
    if not own or not others:
        raise FileNotFoundError(f"{voc} holds {len(own)} masks of VOC and {annotations} {len(others)} of SBD")
    faults = []
    for file in progress_bar([*own, *others], "masks of SBD", show=progress):
        written = part / f"{file.stem}.png"
        if written.exists():
            continue
        fault = file_fault(file)
        if fault:
            faults.append(f"{file} {fault}")
        elif file.suffix.lower() == ".png":
            write_atomically(written, file.read_bytes())
        else:
            try:
                write_mask(written, _read_mask(file))
            except ValueError as error:
                faults.append(str(error))
    if faults:
        raise faulty_files(annotations, faults)
    return _finish(part, target)


def _finish(part: Path, target: Path) -> Path:
    """Rename the complete folder, unless another process has done so already."""
    try:
        return part.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(part, ignore_errors=True)
        return target


def _read_mask(path: Path) -> NDArray[np.uint8]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError('the masks of SBD need scipy: pip install "fewshotseg[train]"') from error
    try:
        mask = np.asarray(loadmat(path)["GTcls"][0]["Segmentation"][0])
    except MemoryError:
        raise
    except Exception as error:  # the decoder raises many kinds of errors for damaged files
        raise ValueError(f"{path} cannot be read as a mask of SBD") from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
        raise ValueError(f"{path} must hold a mask of uint8 pixels, got {mask.dtype} of shape {mask.shape}")
    if mask.max() > len(PASCAL_CLASSES):
        raise ValueError(f"{path} must hold classes from 0 to {len(PASCAL_CLASSES)}, got class {mask.max()}")
    return mask
