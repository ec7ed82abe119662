"""How many novel-class objects a fold hides in the background of its training images (Fig. 2)."""

from fewshotseg.data.sources.source import SegmentationSource
from fewshotseg.data.splits import ClassSplit


def hidden_novel_share(source: SegmentationSource, split: ClassSplit) -> float:
    r"""Compute the share of novel classes among all classes that the training images of a fold show.

    Training images are those that show at least one base class. A class counts once for each image that has a pixel of
    it, as class masks do not tell objects apart: with $B$ pairs of a training image and a base class, and $N$ pairs of
    a training image and a novel class, the share is $N / (B + N)$. Classes in neither part of the split are ignored.

    Args:
        source: Images with class masks; only ``class_areas`` is read.
        split: Base and novel classes.

    Returns:
        The share, 0 if no training image shows a novel class. The paper reports 0.235 for Fold-2 of PASCAL-5i.

    Raises:
        ValueError: If no image holds a base class, or a class is both base and novel.
        TypeError: If an argument is of another type.

    Example:
        Two training images, with two base and one novel class among them; the third holds no base class:

        >>> from fewshotseg.data import ClassSplit
        >>> class Areas:
        ...     class_names = {1: "cat", 2: "dog"}
        ...     ids = ["a", "b", "c"]
        ...     class_areas = [{1: 50, 2: 20}, {1: 80}, {2: 90}]
        >>> hidden_novel_share(Areas(), ClassSplit(base=(1,), novel=(2,)))
        0.3333333333333333
    """
    if not hasattr(source, "class_areas"):
        raise TypeError(f"source must have class_areas, as a FolderSource has, got {type(source).__name__}")
    if not isinstance(split, ClassSplit):
        raise TypeError(f"split must be a ClassSplit, such as pascal5i gives, got {type(split).__name__}")
    base, novel = set(split.base), set(split.novel)
    if base & novel:
        raise ValueError(f"split must not have classes that are base and novel, got {sorted(base & novel)}")
    held = [{class_id for class_id, area in areas.items() if area > 0} for areas in source.class_areas]
    training = [classes for classes in held if classes & base]
    if not training:
        raise ValueError(f"split must have a base class that the source holds, got {sorted(base)}")
    num_base = sum(len(classes & base) for classes in training)
    num_novel = sum(len(classes & novel) for classes in training)
    return num_novel / (num_base + num_novel)
