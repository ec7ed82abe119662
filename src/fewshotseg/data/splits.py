"""The class splits of PASCAL-5i and COCO-20i: the base and novel classes of each fold."""

from collections.abc import Mapping
from typing import NamedTuple

from fewshotseg._checks import check_choice


def _numbered(names: str) -> dict[int, str]:
    return dict(enumerate(" ".join(names.split()).split(", "), start=1))


PASCAL_CLASSES: Mapping[int, str] = _numbered(
    """aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
    pottedplant, sheep, sofa, train, tvmonitor"""
)
"""PASCAL VOC's names by class id, 1 to 20."""

COCO_CLASSES: Mapping[int, str] = _numbered(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush"""
)
"""COCO's names by class id, 1 to 80: the rank of a category among the sorted category ids, which go up to 90."""


_COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

PASCAL_TO_COCO: Mapping[int, int] = {
    pascal: next(coco for coco, other in COCO_CLASSES.items() if other == _COCO_NAMES.get(name, name))
    for pascal, name in PASCAL_CLASSES.items()
}
"""PASCAL VOC's class id -> COCO's; COCO has all twenty classes."""


class ClassSplit(NamedTuple):
    """The classes of a fold.

    Attributes:
        base: Class ids to train on, ascending.
        novel: Class ids to test on, ascending.
    """

    base: tuple[int, ...]
    novel: tuple[int, ...]


def pascal5i(fold: int) -> ClassSplit:
    """Return a split of PASCAL-5i: five consecutive classes are novel, the other fifteen are base.

    Args:
        fold: 0 to 3. The novel classes are ``5 * fold + 1`` to ``5 * fold + 5``.

    Raises:
        ValueError: If there is no such fold.

    Example:
        >>> pascal5i(1).novel
        (6, 7, 8, 9, 10)
        >>> [PASCAL_CLASSES[i] for i in pascal5i(1).novel]
        ['bus', 'car', 'cat', 'chair', 'cow']
    """
    check_choice("fold", fold, range(4))
    return _split(20, {5 * fold + i for i in range(1, 6)})


def coco20i(fold: int, *, layout: str = "interleaved") -> ClassSplit:
    """Return a split of COCO-20i: twenty classes are novel, the other sixty are base.

    Args:
        fold: 0 to 3.
        layout: ``"interleaved"``, every fourth class from ``fold + 1`` on, as in PFENet, HSNet and SCNet; or
            ``"contiguous"``, the classes ``20 * fold + 1`` to ``20 * fold + 20``, as in PANet. Results with different
            layouts cannot be compared.

    Raises:
        ValueError: If there is no such fold or layout.

    Example:
        >>> coco20i(0).novel[:4], coco20i(0, layout="contiguous").novel[:4]
        ((1, 5, 9, 13), (1, 2, 3, 4))
    """
    check_choice("fold", fold, range(4))
    check_choice("layout", layout, ("interleaved", "contiguous"))
    if layout == "interleaved":
        return _split(80, set(range(fold + 1, 81, 4)))
    return _split(80, set(range(20 * fold + 1, 20 * fold + 21)))


def _split(num_classes: int, novel: set[int]) -> ClassSplit:
    base = tuple(class_id for class_id in range(1, num_classes + 1) if class_id not in novel)
    return ClassSplit(base, tuple(sorted(novel)))
