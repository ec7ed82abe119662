"""Checks every file of a source: counts images by fold and class, and lists all faults."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from fewshotseg._checks import name_some
from fewshotseg._io import progress_bar, reason
from fewshotseg.data.sources.endings import cut_short
from fewshotseg.data.sources.faults import file_fault
from fewshotseg.data.sources.files import WHITE_ADVICE, FileSource, is_white, size_mismatch, white_remark
from fewshotseg.data.sources.index import count_classes
from fewshotseg.data.sources.source import VOID, Sample
from fewshotseg.data.splits import COCO_CLASSES, PASCAL_CLASSES, ClassSplit, coco20i, pascal5i
from fewshotseg.images import read_image

MIN_AREA = 2 * 32 * 32
"""Smallest area in pixels for an image to be listed for a class in PFENet and most later methods."""

Pixels = TypeVar("Pixels", bound=torch.Tensor)


class SourceReport(NamedTuple):
    """The result of `check_source`.

    Attributes:
        areas: For each image whose mask can be read, class id -> number of pixels.
        faults: A sentence for each fault, with the names of the files, in the order of the source.
        remarks: Sentences on other findings, such as files that belong to no image.
    """

    areas: list[dict[int, int]]
    faults: list[str]
    remarks: list[str]


def check_source(source: FileSource, *, progress: bool = False) -> SourceReport:
    """Decode every image and mask of a source, and list all faults.

    Faults are: a missing, broken or cut file, a folder or special file instead of one (only regular files are opened),
    an image and a mask of different sizes, a mask without any class, and, if the source names its classes, pixel values
    of other classes.

    Args:
        source: Any source of files.
        progress: Show a progress bar, if tqdm is installed.

    Returns:
        The counts, the faults and other remarks.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> report = check_source(FileSource([folder / "a.jpg"], [folder / "a.png"]))
        >>> [fault.removeprefix(str(folder)) for fault in report.faults]
        ['/a.jpg is missing', '/a.png is missing']
    """
    report = SourceReport([], [], [])
    for _, part in check_parts(source, progress=progress):
        report.areas.extend(part.areas)
        report.faults.extend(part.faults)
        report.remarks.extend(part.remarks)
    return report


def check_parts(source: FileSource, *, progress: bool = False) -> Iterator[tuple[int, SourceReport]]:
    """Check as `check_source` does, and yield findings at once, each with the number of images checked so far."""
    passed_over = [str(path) for path in source.passed_over]
    remarks = [f"files that belong to no image ({len(passed_over):,}): {name_some(passed_over)}"] if passed_over else []
    yield 0, SourceReport([], list(source.incomplete), remarks)
    shows_class = False
    white: list[tuple[str, int]] = []  # masks of 0 and 255 only, and their number of pixels of 255
    for index in progress_bar(range(len(source.ids)), "checking", show=progress):
        faults, mask = _check_files(source, index)
        part = SourceReport([], faults, [])
        if mask is not None and is_white(mask):
            white.append((str(source.masks[index]), int((mask == VOID).sum())))
        elif mask is not None:
            areas = count_classes(mask)
            shows_class = shows_class or bool(areas)
            part.areas.append(areas)
            part.faults.extend(_check_values(source, index, mask, areas))
        if shows_class or source.one_class is None:  # otherwise 255 may turn out to be the class
            part.areas.extend({} for _ in white)
            part.faults.extend(f"{file} is empty: no pixel of any class; {WHITE_ADVICE}" for file, _ in white)
            white.clear()
        yield index + 1, part
    if white and source.one_class is not None:
        areas_of_white = [{source.one_class: pixels} for _, pixels in white]
        yield len(source.ids), SourceReport(areas_of_white, [], [white_remark(source.one_class)])


def _check_files(source: FileSource, index: int) -> tuple[list[str], torch.Tensor | None]:
    """Find the faults of an image's files; returns them and the mask, if it can be read."""
    faults: list[str] = []
    image = _read(source.images[index], lambda: read_image(source.images[index]), faults)
    mask = _read(source.masks[index], lambda: source.stored_mask(index), faults)
    problem = size_mismatch(Sample(image, mask)) if image is not None and mask is not None else ""
    if problem:
        faults.append(f"{source.images[index]} {problem} {source.masks[index]}")
    return faults, mask


def _read(file: Path, reader: Callable[[], Pixels], faults: list[str]) -> Pixels | None:
    fault = file_fault(file)
    try:
        pixels = None if fault else reader()
        if pixels is not None and cut_short(file):
            fault = "lacks its end, so it was cut"
    except OSError as error:
        pixels, fault = None, f"cannot be read: {reason(error)}"
    except ValueError as error:
        pixels = None
        faults.append(str(error))
    if fault:
        faults.append(f"{file} {fault}")
    return pixels


def _check_values(source: FileSource, index: int, mask: torch.Tensor, areas: Mapping[int, int]) -> list[str]:
    """Find the faults of the values of a mask that is not white on black."""
    file = source.masks[index]
    if not areas:
        return [f"{file} is empty: no pixel of any class"]
    unexpected = [str(class_id) for class_id in sorted(areas) if source.named and class_id not in source.class_names]
    if unexpected:
        return [f"{file} has unexpected pixel values: {name_some(unexpected, most=10)}"]
    return []


def describe(report: SourceReport, class_names: Mapping[int, str], *, layout: str = "interleaved") -> str:
    """Write a table of how many images show each class, and for PASCAL and COCO each fold's novel classes.

    Args:
        report: A result of `check_source`.
        class_names: The classes to list.
        layout: The layout of COCO's folds, see `coco20i`.

    Returns:
        Lines of text.
    """
    folds, published = _folds(class_names, layout)
    lines = [f"{len(report.areas)} images with a mask{published}", "", f"{'':24}{'images':>8}{f'>= {MIN_AREA} px':>12}"]
    for fold, split in enumerate(folds):
        lines.append(_row(f"fold {fold}, novel classes", report.areas, split.novel))
    lines += [_row(f"{class_id:4} {name}", report.areas, [class_id]) for class_id, name in class_names.items()]
    return "\n".join(lines)


def _folds(class_names: Mapping[int, str], layout: str) -> tuple[list[ClassSplit], str]:
    if class_names == PASCAL_CLASSES:
        return [pascal5i(fold) for fold in range(4)], "; published for PASCAL-5i: 5953 to train, 1449 to test"
    if class_names == COCO_CLASSES:
        splits = [coco20i(fold, layout=layout) for fold in range(4)]
        return splits, "; published for COCO-20i: 82081 to train, 40137 to test"
    return [], ""


def _row(title: str, areas: Sequence[Mapping[int, int]], class_ids: Sequence[int]) -> str:
    """Write a row: the number of images with any of the classes, of any size and of at least `MIN_AREA`."""
    largest = [max(image.get(class_id, 0) for class_id in class_ids) for image in areas]
    return f"{title:24}{sum(a > 0 for a in largest):8}{sum(a >= MIN_AREA for a in largest):12}"
