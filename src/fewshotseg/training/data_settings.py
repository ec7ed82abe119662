"""What a benchmark is made of, as data: folders, fold and protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

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
"""One's own photographs; on those of VOC 2012 val and others this is PASCAL-5i mini."""

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
"""Images that the package makes, with 20 classes in the folds of PASCAL-5i."""

BENCHMARKS = {
    "pascal": PROTOCOLS["scnet-pascal"],
    "coco": PROTOCOLS["scnet-coco"],
    "folders": FOLDERS,
    "synthetic": SYNTHETIC,
}
"""What can be trained and tested on, each with the protocol that counts unless another is named."""

CROSS_DOMAIN = {
    "deepglobe": PROTOCOLS["patnet-deepglobe"],
    "isic": PROTOCOLS["patnet-isic"],
    "chestx": PROTOCOLS["patnet-chestx"],
    "fss1000": PROTOCOLS["patnet-fss1000"],
    "suim": PROTOCOLS["abcdfss-suim"],
}
"""What can be tested on only: all classes are novel to a model that was trained on other data."""

CLASSES = {"deepglobe": 6, "isic": 3, "chestx": 1, "fss1000": 240, "suim": 7}
"""How many classes these have."""

TESTED = BENCHMARKS | CROSS_DOMAIN
"""All that can be tested on."""

TRAIN_LISTS = {
    PROTOCOLS["scnet-pascal"].train_images: "pfenet",
    PROTOCOLS["hsnet-pascal"].train_images: "trainaug",
}
"""What `VOCSource` calls the lists that protocols train on."""

NUMBERS_OF_FOLDERS = {
    "pascal": (1, 1, "one folder"),
    "coco": (1, 1, "one folder"),
    "folders": (1, 99, "at least one folder"),
    "synthetic": (0, 0, "none"),
    **dict.fromkeys(CROSS_DOMAIN, (1, 1, "one folder")),
}
"""How many folders of data each benchmark takes: from, to, in words."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Images, classes and the way they are measured.

    Attributes:
        benchmark: One of `BENCHMARKS` or `CROSS_DOMAIN`.
        data: Folders. ``pascal``: the root of VOC 2012. ``coco``: the folder of train2014, val2014 and annotations.
            ``folders``: one or more with images/ and masks/, with images/ and COCO's instances.json, or VOC 2012 roots;
            VOC's classes are COCO's where the first folder has COCO's. ``synthetic``: none. ``fss1000``: the folder of
            the test classes. Others: what `ClasswiseSource` reads.
        fold: 0 to 3. In folders novel is this quarter of the first folder's classes, by ascending id, or the
            interleaved fold of COCO-20i where they are COCO's; ``"all"``: none is, which makes a model to use, with
            nothing left to test it on.
        protocol: Lists, sizes, episodes and seeds.
        train_list: For ``pascal``, the split of `VOCSource` to train on; by default the protocol's.
        images: For ``synthetic``, how many to train on; a third as many are tested on.

    Raises:
        ValueError: If settings exclude each other.
    """

    benchmark: str
    data: tuple[str, ...] = ()
    fold: Fold = 0
    protocol: EvaluationProtocol
    train_list: str | None = None
    images: int = 1000

    def __post_init__(self) -> None:
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
        """Make settings of what `dataclasses.asdict` gives, with lists in place of tuples.

        Raises:
            ValueError: If these are no settings.
        """
        try:
            protocol = {**values["protocol"], "seeds": tuple(values["protocol"]["seeds"])}
            return cls(**{**values, "data": tuple(values["data"]), "protocol": EvaluationProtocol(**protocol)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"data must be the settings of a training run, but: {error}") from error
