"""Evaluation protocols of published numbers, as data."""

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
    """The image lists, episodes and sizes behind a number; numbers of different protocols cannot be compared.

    Make a variant with `dataclasses.replace` and give it a new name; its `hash` differs from the others.

    Attributes:
        name: The name, such as ``"pfenet-pascal"``.
        benchmark: The data set, which determines the classes.
        split: How the classes are split into folds: ``"contiguous"`` (fold i of PASCAL-5i has classes 5i+1 to 5i+5),
            ``"interleaved"`` (fold i of COCO-20i has classes i+1, i+5, i+9, ...), or ``"all novel"``.
        train_images: The list of training images.
        test_images: The list of images that test episodes are drawn from.
        novel_in_training: How objects of novel classes in training images are treated: as ``"background"``, as void
            (``"ignore"``), or the images are left out (``"drop"``).
        min_area: Smallest area in pixels, in the mask at its original size, for an image to be listed for a class.
        episodes: Number of test episodes for each fold and seed.
        draw: How episodes are drawn: ``"pfenet"``, with PFENet's own random numbers, see `pfenet_episodes`; or
            ``"number"``, by seed and number, see `EpisodeDataset`.
        workers: Number of workers of PFENet's loader, on which its episodes depend; None unless ``draw="pfenet"``.
        max_passes: Largest number of passes over PFENet's list; None unless ``draw="pfenet"``.
        seeds: Seeds of the test episodes; each is a whole evaluation.
        train_size: Side of the training crops in pixels.
        test_size: Side in pixels of the square that test images are resized to.
        test_resize: The preset that resizes them: ``"pfenet_eval"`` or ``"hsnet_eval"``.
        scoring: Where pixels are counted: ``"original"``, at the size of the label file, with logits resized by
            `restore_size`; or ``"resized"``, on the square of ``test_size``. Pixels labelled 255 are never counted.

    Raises:
        ValueError: If the value of a field is not allowed.
        TypeError: If a field is of a wrong type.

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
        """Compute twelve hexadecimal digits from all fields but the name; they are the same on every machine."""
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
"""PFENet on PASCAL-5i, as its released code tests (the paper says 5000 episodes; the loop scores one more)."""

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

Its episodes depend on the order of its list of images, which is not known here; `COCOSource` orders by image id.
"""

SCNET_PASCAL = replace(PFENET_PASCAL, name="scnet-pascal")
"""SCNet on PASCAL-5i: the paper follows PFENet and states no difference."""

SCNET_COCO = replace(PFENET_COCO, name="scnet-coco", train_size=473, test_size=473)
"""SCNet on COCO-20i: as PFENet, but with crops of 473 pixels, which the paper states for both benchmarks."""

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
"""HSNet's sizes and number of episodes on PASCAL-5i, and nearly its lists; the episodes are drawn by this package.

HSNet's test lists leave out small objects by an unpublished rule: they hold 346, 451, 725 and 346 pairs of an image and
a class in folds 0 to 3, all from VOC 2012 val. A minimum area of 2048 pixels comes closest, with 365, 467, 734 and 357
pairs, of which 25, 16, 25 and 13 differ from HSNet's. To use exactly its pairs, pass one of its lists to
`SubsetSource.from_pairs`, and draw with ``min_area=1``. HSNet goes through its list in order, and its 5-shot supports
may repeat; here episodes are drawn by class, without repetition. Its training lists hold 10092 of the 10582 images.
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
"""HSNet on COCO-20i, likewise. Whether HSNet's lists leave out images is not known here, so none are left out."""

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
"""PATNet's sizes and number of episodes on DeepGlobe; the episodes are drawn by this package.

PATNet's code takes the classes in turn, so that all have equally many episodes; here classes are drawn. Its code tests
600 episodes with one seed, while its paper probably averages five runs, hence the five seeds.
"""

PATNET_ISIC = replace(
    PATNET_DEEPGLOBE,
    name="patnet-isic",
    benchmark="ISIC 2018",
    test_images="the training images of task 1, 3 classes",
)
"""PATNet on ISIC 2018, with the classes of PATNet's list."""

PATNET_CHESTX = replace(
    PATNET_DEEPGLOBE,
    name="patnet-chestx",
    benchmark="Chest X-ray",
    test_images="the images with a mask of the lungs, 1 class",
)
"""PATNet on the chest X-rays of Montgomery and Shenzhen."""

PATNET_FSS1000 = replace(
    PATNET_DEEPGLOBE,
    name="patnet-fss1000",
    benchmark="FSS-1000",
    test_images="the 240 test classes, 2400",
    episodes=2400,
)
"""PATNet on the test classes of FSS-1000.

HSNet's and ABCDFSS's code segment each of the 2400 images once; PATNet's own reader of this data was not available.
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
"""All protocols by name."""
