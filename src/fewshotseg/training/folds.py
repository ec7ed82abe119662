"""Splits the classes of your own folders, and of parts of COCO, into base and novel classes."""

from collections import Counter
from collections.abc import Collection

from fewshotseg.data import (
    COCO_CLASSES,
    PASCAL_CLASSES,
    ClassSplit,
    SegmentationSource,
    coco20i,
)
from fewshotseg.data.sources.combine import RenumberedSource
from fewshotseg.data.splits import PASCAL_TO_COCO
from fewshotseg.training.data_settings import Fold

MIN_TRAINED, MIN_TESTED = 2, 6
"""Smallest number of images of a class of COCO to be trained on, with one support, and to be tested on, with five.

A part of COCO has few images of many classes. A novel class with fewer images is neither tested nor trained on.
"""


def quarter(class_ids: Collection[int], fold: Fold) -> ClassSplit:
    """Split classes into four folds by ascending id, as in PASCAL-5i; with fold "all" no class is novel.

    Example:
        >>> quarter([1, 2, 3, 4, 5, 6], 1)
        ClassSplit(base=(1, 4, 5, 6), novel=(2, 3))
    """
    classes = sorted(class_ids)
    novel = [] if fold == "all" else classes[fold * len(classes) // 4 : (fold + 1) * len(classes) // 4]
    return ClassSplit(tuple(c for c in classes if c not in novel), tuple(novel))


def coco_fold(fold: Fold) -> ClassSplit:
    """Return the interleaved fold of COCO-20i; with fold "all" no class is novel."""
    return ClassSplit(tuple(COCO_CLASSES), ()) if fold == "all" else coco20i(fold)


def numbered_alike(source: SegmentationSource, first: SegmentationSource) -> SegmentationSource:
    """Renumber VOC's classes to COCO's ids if the first folder has COCO's classes."""
    if first.class_names == COCO_CLASSES and source.class_names == PASCAL_CLASSES:
        return RenumberedSource(source, PASCAL_TO_COCO, COCO_CLASSES)
    return source


def well_stocked(source: SegmentationSource, class_ids: Collection[int], images: int) -> tuple[int, ...]:
    """Keep the classes that at least ``images`` images show."""
    held = Counter(class_id for areas in source.class_areas for class_id in areas)
    return tuple(class_id for class_id in class_ids if held[class_id] >= images)


def check_fold(split: ClassSplit, fold: Fold) -> None:
    """Raise `ValueError` if there is no class, or a numbered fold has no novel class."""
    count = len(split.base) + len(split.novel)
    if count == 0:
        raise ValueError("data must have masks that show a class, got none in the first folder")
    if fold != "all" and not split.novel:
        others = " or ".join(str(other) for other in range(4) if quarter(split.base, other).novel)
        raise ValueError(
            f"fold must be {others} to test on a class that was not trained on, or 'all' to train on every class: "
            f"{count} class{'es' if count > 1 else ''} dealt to four folds leave this one without, got {fold}"
        )


def check_base(split: ClassSplit, fold: Fold) -> None:
    """Raise `ValueError` if a fold leaves no class to train on."""
    if not split.base:
        raise ValueError(
            f"fold must be 'all' to train on every class, as {len(split.novel)} class dealt to four folds leaves this "
            f"one none to train on, got {fold}"
        )
