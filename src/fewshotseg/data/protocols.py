"""How published numbers were measured, as data: what differs between papers stands in fields, not in prose."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Literal, get_args

from fewshotseg._checks import check_at_least, check_choice, check_whole_numbers

BenchmarkName = Literal["PASCAL-5i", "COCO-20i", "DeepGlobe", "ISIC 2018", "Chest X-ray", "FSS-1000", "SUIM"]
SplitName = Literal["contiguous", "interleaved", "all novel"]


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """The lists, episodes and sizes behind a number. Numbers of different protocols cannot be compared.

    Make a variant with `dataclasses.replace`, under a name of its own; its `hash` tells it from the others.

    Attributes:
        name: What it is called, such as ``"pfenet-pascal"``.
        benchmark: The classes and their folds.
        split: How the classes are dealt to the folds: ``"contiguous"`` (fold i of PASCAL-5i has classes 5i+1 to 5i+5)
            or ``"interleaved"`` (fold i of COCO-20i has classes i+1, i+5, i+9, ...).
        train_images: The list to train on.
        test_images: The list to draw test episodes from.
        novel_in_training: What becomes of training images with objects of novel classes: these objects count as
            ``"background"``, are void (``"ignore"``), or the images are left out (``"drop"``).
        min_area: An image is listed for a class from this many pixels on, in the mask at its original size.
        episodes: Test episodes of a fold and a seed.
        draw: ``"pfenet"``: PFENet's own random numbers, see `pfenet_episodes`; ``"number"``: by seed and
            number, see `EpisodeDataset`.
        workers: Of PFENet's loader, on which its episodes depend; None for the other way to draw.
        max_passes: Passes over PFENet's list at most; None for the other way to draw.
        seeds: One whole evaluation each.
        train_size: Side of the training crops, in pixels.
        test_size: Side of the square that test images are brought to, in pixels.
        test_resize: The preset that does it: ``"pfenet_eval"`` or ``"hsnet_eval"``.
        scoring: Where pixels are counted: ``"original"``: at the size of the label file, logits resized as
            `restore_size` does by default; ``"resized"``: on the square of ``test_size``.
            Pixels labelled 255 are never counted.

    Raises:
        ValueError: If a field has no possible value.
        TypeError: If a field is of another type.

    Example:
        >>> print(PFENET_PASCAL)
        name               pfenet-pascal
        benchmark          PASCAL-5i
        split              contiguous
        train_images       VOC 2012 train with 5623 images of SBD, 5953 together
        test_images        VOC 2012 val, 1449
        novel_in_training  background
        min_area           2048
        episodes           5001
        draw               pfenet
        workers            8
        max_passes         20
        seeds              321
        train_size         473
        test_size          473
        test_resize        pfenet_eval
        scoring            original
        hash               8231d2acfe72
        >>> from dataclasses import replace
        >>> replace(PFENET_PASCAL, name="short", episodes=1000).hash() != PFENET_PASCAL.hash()
        True
    """

    name: str
    benchmark: BenchmarkName
    split: SplitName
    train_images: str
    test_images: str
    novel_in_training: Literal["background", "ignore", "drop"]
    min_area: int
    episodes: int
    draw: Literal["pfenet", "number"]
    workers: int | None
    max_passes: int | None
    seeds: tuple[int, ...]
    train_size: int
    test_size: int
    test_resize: Literal["pfenet_eval", "hsnet_eval"]
    scoring: Literal["original", "resized"]

    def __post_init__(self) -> None:
        for name in ("name", "train_images", "test_images"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a string, got {type(getattr(self, name)).__name__}")
        check_choice("benchmark", self.benchmark, get_args(BenchmarkName))
        check_choice("split", self.split, get_args(SplitName))
        check_choice("novel_in_training", self.novel_in_training, ("background", "ignore", "drop"))
        check_choice("draw", self.draw, ("pfenet", "number"))
        check_choice("test_resize", self.test_resize, ("pfenet_eval", "hsnet_eval"))
        check_choice("scoring", self.scoring, ("original", "resized"))
        for name in ("min_area", "episodes", "train_size", "test_size"):
            check_at_least(name, getattr(self, name), 1)
        for name, minimum in {"workers": 0, "max_passes": 1}.items():
            if (getattr(self, name) is None) != (self.draw == "number"):
                raise ValueError(f"{name} must be set for PFENet's draws and None otherwise, got {getattr(self, name)}")
            if getattr(self, name) is not None:
                check_at_least(name, getattr(self, name), minimum)
        if not isinstance(self.seeds, tuple):
            raise TypeError(f"seeds must be a tuple of integers, got {type(self.seeds).__name__}")
        if not check_whole_numbers("seeds", self.seeds, 0):
            raise ValueError("seeds must hold at least one seed, got none")

    def hash(self) -> str:
        """Twelve hexadecimal digits that change with any field but the name; the same on every machine."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        rows = [(field.name, getattr(self, field.name)) for field in fields(self)]
        rows = [(name, ", ".join(map(str, value)) if isinstance(value, tuple) else value) for name, value in rows]
        return "\n".join(f"{name:<17}  {value}" for name, value in [*rows, ("hash", self.hash())])


PFENET_PASCAL = EvaluationProtocol(
    name="pfenet-pascal",
    benchmark="PASCAL-5i",
    split="contiguous",
    train_images="VOC 2012 train with 5623 images of SBD, 5953 together",
    test_images="VOC 2012 val, 1449",
    novel_in_training="background",
    min_area=2048,
    episodes=5001,
    draw="pfenet",
    workers=8,
    max_passes=20,
    seeds=(321,),
    train_size=473,
    test_size=473,
    test_resize="pfenet_eval",
    scoring="original",
)
"""PFENet on PASCAL-5i, as its released code tests (its text says 5000 episodes, the loop scores one more)."""

PFENET_COCO = replace(
    PFENET_PASCAL,
    name="pfenet-coco",
    benchmark="COCO-20i",
    split="interleaved",
    train_images="COCO 2014 train, 82081",
    test_images="COCO 2014 val, 40137",
    episodes=20001,
    workers=16,
    train_size=641,
    test_size=641,
)
"""PFENet on COCO-20i with its released settings.

Its episodes follow the order of its list of images, which is not known here; `COCOSource` goes by image id.
"""

SCNET_PASCAL = replace(PFENET_PASCAL, name="scnet-pascal")
"""SCNet on PASCAL-5i: says that it follows PFENet, and differs in nothing that it says."""

SCNET_COCO = replace(PFENET_COCO, name="scnet-coco", train_size=473, test_size=473)
"""SCNet on COCO-20i: as PFENet, with the crops of 473 pixels that its text states for both benchmarks."""

HSNET_PASCAL = replace(
    PFENET_PASCAL,
    name="hsnet-pascal",
    train_images="VOC 2012 and SBD without VOC 2012 val, 10582",
    min_area=2048,  # about, see below
    episodes=1000,
    draw="number",
    workers=None,
    max_passes=None,
    seeds=(0,),
    train_size=400,
    test_size=400,
    test_resize="hsnet_eval",
    scoring="resized",
)
"""The sizes and number of episodes of HSNet on PASCAL-5i, and nearly its lists; the episodes are this package's.

HSNet's test lists leave out small objects by a rule that is not published: they hold 346, 451, 725 and 346 pairs of an
image and a class in folds 0 to 3, all of them in VOC 2012 val. An area of 2048 pixels comes closest, with 365, 467, 734
and 357 pairs, of which 25, 16, 25 and 13 differ from HSNet's. For exactly its pairs, give one of its lists to
`SubsetSource.from_pairs`, and draw with ``min_area=1``. HSNet goes through its list in order, and its 5-shot supports
may repeat; episodes here are drawn by class, without repetition. Its training lists hold 10092 of the 10582 images.
"""

HSNET_COCO = replace(
    HSNET_PASCAL,
    name="hsnet-coco",
    benchmark="COCO-20i",
    split="interleaved",
    train_images=PFENET_COCO.train_images,
    test_images=PFENET_COCO.test_images,
    min_area=1,
)
"""The same on COCO-20i. Which images HSNet's lists of COCO leave out, if any, is not known here, so none are."""

PATNET_DEEPGLOBE = replace(
    HSNET_PASCAL,
    name="patnet-deepglobe",
    benchmark="DeepGlobe",
    split="all novel",
    train_images="none of this data: VOC 2012 and SBD in PATNet",
    test_images="the crops that PATNet makes of the training images, 6 classes",
    min_area=1,
    episodes=600,
    seeds=(0, 1, 2, 3, 4),
)
"""The sizes and the number of episodes of PATNet on DeepGlobe; the episodes are this package's.

PATNet's code takes the classes in turn, so that all have equally many episodes; here they are drawn. It tests 600
episodes with one seed, while its paper, as far as is remembered, averages five runs. So these are five seeds.
"""

PATNET_ISIC = replace(
    PATNET_DEEPGLOBE,
    name="patnet-isic",
    benchmark="ISIC 2018",
    test_images="the training images of task 1, 3 classes",
)
"""The same on ISIC 2018, with the classes of PATNet's list."""

PATNET_CHESTX = replace(
    PATNET_DEEPGLOBE,
    name="patnet-chestx",
    benchmark="Chest X-ray",
    test_images="the images with a mask of the lungs, 1 class",
)
"""The same on the chest X-rays of Montgomery and Shenzhen."""

PATNET_FSS1000 = replace(
    PATNET_DEEPGLOBE,
    name="patnet-fss1000",
    benchmark="FSS-1000",
    test_images="the 240 test classes, 2400",
    episodes=2400,
)
"""The same on the test classes of FSS-1000.

HSNet's and ABCDFSS's code ask for each of the 2400 images once; PATNet's own reader of this set was not seen.
"""

ABCDFSS_SUIM = replace(
    PATNET_DEEPGLOBE,
    name="abcdfss-suim",
    benchmark="SUIM",
    test_images="training and test images together, 7 classes",
    episodes=1650,
)
"""SUIM as ABCDFSS tests it, which samples 1650 of its 3859 pairs of an image and a class."""

PROTOCOLS: Mapping[str, EvaluationProtocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            PFENET_PASCAL,
            PFENET_COCO,
            SCNET_PASCAL,
            SCNET_COCO,
            HSNET_PASCAL,
            HSNET_COCO,
            PATNET_DEEPGLOBE,
            PATNET_ISIC,
            PATNET_CHESTX,
            PATNET_FSS1000,
            ABCDFSS_SUIM,
        )
    }
)
"""All of them by name, for command lines."""
