"""A look at every file of a source: counts by fold and class, and every fault by name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fewshotseg._io import progress_bar
from fewshotseg.data.sources.files import FileSource, size_mismatch
from fewshotseg.data.sources.index import count_classes
from fewshotseg.data.sources.source import Sample
from fewshotseg.data.splits import COCO_CLASSES, PASCAL_CLASSES, ClassSplit, coco20i, pascal5i
from fewshotseg.images import read_image

MIN_AREA = 2 * 32 * 32
"""Pixels of a class from which on an image is listed for it, in PFENet and after it."""


class SourceReport(NamedTuple):
    """What `check_source` found.

    Attributes:
        areas: For each image whose mask can be read, class id to number of pixels.
        faults: A sentence for each fault, with the names of the files, in the order of the source.
    """

    areas: list[dict[int, int]]
    faults: list[str]


def check_source(source: FileSource, *, progress: bool = False) -> SourceReport:
    """Decode every image and mask of a source and say what is wrong.

    Faults are: a missing or broken file, an image and a mask of different sizes, a mask without any class, and, where
    the source names its classes, pixel values that are none of them.

    Args:
        source: Any source of files.
        progress: Show a progress bar, if tqdm is installed.

    Returns:
        The counts, and the faults; no faults if all is well.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> report = check_source(FileSource([folder / "a.jpg"], [folder / "a.png"]))
        >>> [fault.removeprefix(str(folder)) for fault in report.faults]
        ['/a.jpg is missing', '/a.png is missing']
    """
    report = SourceReport([], [])
    for index in progress_bar(range(len(source.ids)), "checking", show=progress):
        _check_item(source, index, report)
    return report


def _check_item(source: FileSource, index: int, report: SourceReport) -> None:
    image = mask = None
    try:
        image = read_image(source.images[index])
    except (OSError, ValueError) as error:
        report.faults.append(_sentence(error))
    try:
        mask = source.load_mask(index)
    except (OSError, ValueError) as error:
        report.faults.append(_sentence(error))
    if mask is None:
        return
    areas = count_classes(mask)
    report.areas.append(areas)
    if image is not None:
        problem = size_mismatch(Sample(image, mask))
        if problem:
            report.faults.append(f"{source.images[index]} {problem} {source.masks[index]}")
    if not areas:
        report.faults.append(f"{source.masks[index]} is empty: no pixel of any class")
    unexpected = sorted(areas.keys() - source.class_names.keys()) if source.named else []
    if unexpected:
        report.faults.append(f"{source.masks[index]} has unexpected pixel values: {', '.join(map(str, unexpected))}")


def _sentence(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is missing"
    return str(error)


def describe(report: SourceReport, class_names: Mapping[int, str], *, layout: str = "interleaved") -> str:
    """Tables of how many images hold each class and each fold's novel classes, beside the published totals.

    Folds are shown for PASCAL's and COCO's classes.

    Args:
        report: What `check_source` found.
        class_names: The classes to list.
        layout: Of COCO's folds, see `coco20i`.

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
    """Counts of images with any of the classes: of any size, and of at least `MIN_AREA`."""
    largest = [max(image.get(class_id, 0) for class_id in class_ids) for image in areas]
    return f"{title:24}{sum(a > 0 for a in largest):8}{sum(a >= MIN_AREA for a in largest):12}"
