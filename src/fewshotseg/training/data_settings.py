"""The settings of the data: benchmark, folders, fold and protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from fewshotseg._checks import check_choice
from fewshotseg.data import PROTOCOLS, EvaluationProtocol

Fold = int | Literal["all"]

FOLDERS = replace(
    PROTOCOLS["scnet-pascal"],
    name="folders",
    train_images="all folders, without the test images",
    test_images="the first folder, the images with a novel class",
    novel_in_training="drop",
    min_area=1,
    episodes=1000,
    draw="number",
    workers=None,
    max_passes=None,
    seeds=(0,),
    train_size=241,
    test_size=241,
)
"""Your own photographs. With VOC 2012 val as the data this is PASCAL-5i mini."""

SYNTHETIC = replace(
    FOLDERS,
    name="synthetic",
    train_images="SyntheticSource, seed 0",
    test_images="SyntheticSource, seed 1",
    novel_in_training="background",
    episodes=400,
    train_size=97,
    test_size=97,
)
"""Images drawn by the package, with 20 classes split into folds as in PASCAL-5i."""

BENCHMARKS = {
    "pascal": PROTOCOLS["scnet-pascal"],
    "coco": PROTOCOLS["scnet-coco"],
    "folders": FOLDERS,
    "synthetic": SYNTHETIC,
}
"""Data to train and test on -> its default protocol."""

CROSS_DOMAIN = {
    "deepglobe": PROTOCOLS["patnet-deepglobe"],
    "isic": PROTOCOLS["patnet-isic"],
    "chestx": PROTOCOLS["patnet-chestx"],
    "fss1000": PROTOCOLS["patnet-fss1000"],
    "suim": PROTOCOLS["abcdfss-suim"],
}
"""Data only to test on -> its default protocol; all classes are novel to a model that was trained on other data."""

CLASSES = {"deepglobe": 6, "isic": 3, "chestx": 1, "fss1000": 240, "suim": 7}
"""Number of classes of the data in `CROSS_DOMAIN`."""

TESTED = BENCHMARKS | CROSS_DOMAIN
"""All data to test on -> its default protocol."""

TRAIN_LISTS = {
    PROTOCOLS["scnet-pascal"].train_images: "pfenet",
    PROTOCOLS["hsnet-pascal"].train_images: "trainaug",
}
"""Training list of a protocol -> its name in `VOCSource`."""

NUMBERS_OF_FOLDERS = {
    "pascal": (1, 1, "one folder"),
    "coco": (1, 1, "one folder"),
    "folders": (1, 99, "at least one folder"),
    "synthetic": (0, 0, "none"),
    **dict.fromkeys(CROSS_DOMAIN, (1, 1, "one folder")),
}
"""Benchmark -> smallest and largest number of its folders, and the number in words."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data to train or test on, and the protocol.

    Attributes:
        benchmark: One of `BENCHMARKS` or `CROSS_DOMAIN`.
        data: Folders of the data. ``pascal``: the root of VOC 2012. ``coco``: the folder with train2014, val2014 and
            annotations. ``folders``: one or more with images/ and masks/, with images/ and COCO's instances.json, or
            VOC 2012 roots, whose classes get COCO's ids if the first folder has COCO's classes. ``synthetic``: none.
            ``fss1000``: the folder of the test classes. Others: a folder that `ClasswiseSource` reads.
        fold: 0 to 3. For ``folders`` the novel classes are this quarter of the first folder's classes, by ascending id,
            or for COCO's classes the interleaved fold of COCO-20i; ``"all"`` trains on every class and leaves none to
            test on.
        protocol: The protocol: lists, sizes, episodes and seeds.
        train_list: For ``pascal``: the split of `VOCSource` to train on; by default the protocol's.
        images: For ``synthetic``: number of training images; a third as many are tested on.

    Raises:
        ValueError: If a choice is unknown, or settings exclude each other.
    """

    benchmark: str
    data: tuple[str, ...] = ()
    fold: Fold = 0
    protocol: EvaluationProtocol
    train_list: str | None = None
    images: int = 1000

    def __post_init__(self) -> None:
        check_choice("benchmark", self.benchmark, tuple(TESTED))
        check_choice("fold", self.fold, (0, 1, 2, 3, "all"))
        few, many, wanted = NUMBERS_OF_FOLDERS[self.benchmark]
        if not few <= len(self.data) <= many:
            raise ValueError(f"data must be {wanted} for {self.benchmark}, got {len(self.data)}")
        if self.protocol.test_images != TESTED[self.benchmark].test_images:
            raise ValueError(f"protocol must be one of {self.benchmark}'s, got {self.protocol.name}")
        if self.fold == "all" and self.benchmark != "folders":
            raise ValueError(f"fold must be 0 to 3 for {self.benchmark}, got 'all'")
        if self.benchmark in CROSS_DOMAIN and self.fold != 0:
            raise ValueError(f"fold must be 0 for {self.benchmark}, which has no others, got {self.fold}")
        if self.benchmark == "folders" and self.protocol.novel_in_training != "drop" and len(self.data) == 1:
            raise ValueError(
                "novel must be 'drop' for one folder, whose images with a novel class are for testing, "
                f"got {self.protocol.novel_in_training!r}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from the values of `dataclasses.asdict`, which may have lists instead of tuples.

        Raises:
            ValueError: If a value is missing or of a wrong type.
        """
        try:
            protocol = {**values["protocol"], "seeds": tuple(values["protocol"]["seeds"])}
            return cls(**{**values, "data": tuple(values["data"]), "protocol": EvaluationProtocol(**protocol)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"data must be the settings of a training run, but: {error}") from error
