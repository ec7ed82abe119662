"""How many novel-class objects a fold hides in the background of its training images (Fig. 2)."""

from fewshotseg.data.sources.source import SegmentationSource
from fewshotseg.data.splits import ClassSplit


def hidden_novel_share(source: SegmentationSource, split: ClassSplit) -> float:
    r"""The share of novel classes among all that stands in the training images of a fold.

    Training images are those that hold at least one base class. A class counts once in each of them that has a pixel
    of it, however many objects these are, since class masks do not tell objects apart: with $B$ pairs of a training
    image and a base class, and $N$ pairs of a training image and a novel class, the share is $N / (B + N)$. Classes
    in neither part of the split do not count.

    Args:
        source: Images with class masks; only ``class_areas`` is looked at.
        split: Base and novel classes.

    Returns:
        From 0, where training images hold no novel class, towards 1. The paper has 0.235 for Fold-2 of PASCAL-5i.

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
