"""Which images, which classes, which protocol: opened from a command line, for training and evaluation alike."""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from fewshotseg.data import (
    PROTOCOLS,
    ClassSplit,
    COCOSource,
    ConcatSource,
    EpisodeDataset,
    EvaluationProtocol,
    FolderSource,
    Sample,
    SegmentationSource,
    SubsetSource,
    SyntheticSource,
    VOCSource,
    coco20i,
    hsnet_eval,
    pascal5i,
    pfenet_episodes,
    pfenet_eval,
    without_classes,
)
from fewshotseg.models.backbones import image_statistics

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

TRAIN_LISTS = {
    PROTOCOLS["scnet-pascal"].train_images: "pfenet",
    PROTOCOLS["hsnet-pascal"].train_images: "trainaug",
}
"""What `VOCSource` calls the lists that protocols train on."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Images, classes and the way they are measured.

    Attributes:
        benchmark: One of `BENCHMARKS`.
        data: Folders. ``pascal``: the root of VOC 2012. ``coco``: the folder of train2014, val2014 and annotations.
            ``folders``: one or more with images/ and masks/, or VOC 2012 roots. ``synthetic``: none.
        fold: 0 to 3. In folders novel is this quarter of the first folder's classes, by ascending id; ``"all"``: none
            is, which makes a model to use, with nothing left to test it on.
        protocol: Lists, sizes, episodes and seeds.
        train_list: For ``pascal``, the split of `VOCSource` to train on; by default the protocol's.
        images: For ``synthetic``, how many to train on; a third as many are tested on.

    Raises:
        ValueError: If settings exclude each other.
    """

    benchmark: str
    data: tuple[str, ...] = ()
    fold: int | Literal["all"] = 0
    protocol: EvaluationProtocol
    train_list: str | None = None
    images: int = 1000

    def __post_init__(self) -> None:
        wanted = {"pascal": "one folder", "coco": "one folder", "folders": "at least one folder", "synthetic": "none"}
        few, many = {"pascal": (1, 1), "coco": (1, 1), "folders": (1, 99), "synthetic": (0, 0)}[self.benchmark]
        if not few <= len(self.data) <= many:
            raise ValueError(f"data must be {wanted[self.benchmark]} for {self.benchmark}, got {len(self.data)}")
        if self.protocol.test_images != BENCHMARKS[self.benchmark].test_images:
            raise ValueError(f"protocol must be one of {self.benchmark}'s, got {self.protocol.name}")
        if self.fold == "all" and self.benchmark != "folders":
            raise ValueError(f"fold must be 0 to 3 for {self.benchmark}, got 'all'")
        if self.benchmark == "folders" and self.protocol.novel_in_training != "drop" and len(self.data) == 1:
            raise ValueError(
                "novel must be 'drop' for one folder, whose images with a novel class are for testing, "
                f"got {self.protocol.novel_in_training!r}"
            )


class Benchmark(NamedTuple):
    """A fold: images to train on, images to test on, base and novel classes."""

    train: SegmentationSource
    test: SegmentationSource
    split: ClassSplit

    def listed(self, min_area: int) -> int:
        """How many images there are to train on: those that hold a base class with that many pixels."""
        base = set(self.split.base)
        areas = (areas.items() for areas in self.train.class_areas)
        return sum(any(class_id in base and area >= min_area for class_id, area in items) for items in areas)


def open_benchmark(
    settings: DataSettings, *, progress: bool = False, opener: Callable[..., SegmentationSource] | None = None
) -> Benchmark:
    """Find the images of a fold, and leave those out of training that the protocol leaves out.

    Args:
        settings: Which.
        progress: Show progress bars while masks are read for the first time.
        opener: For ``folders``, in place of `open_folder`.
    """
    roots = [Path(path) for path in settings.data]
    protocol, fold = settings.protocol, settings.fold
    train: SegmentationSource
    if settings.benchmark == "pascal":
        split = pascal5i(fold)
        train_list = settings.train_list or TRAIN_LISTS[protocol.train_images]
        train = VOCSource(roots[0], split=train_list, progress=progress)
        test: SegmentationSource = VOCSource(roots[0], split="val", progress=progress)
    elif settings.benchmark == "coco":
        split = coco20i(fold, layout=protocol.split)
        train, test = (
            COCOSource(roots[0] / part, roots[0] / f"annotations/instances_{part}.json", progress=progress)
            for part in ("train2014", "val2014")
        )
    elif settings.benchmark == "folders":
        folders = [(opener or open_folder)(root, progress=progress) for root in roots]
        split = quarter(folders[0].class_names, fold)
        train = ConcatSource(without_classes(folders[0], split.novel), *folders[1:])
        test = with_classes(folders[0], split.novel)
    else:
        split = pascal5i(fold)
        size = max(protocol.train_size // 8 * 8, 32)
        train = SyntheticSource(settings.images, num_classes=20, size=size, seed=0)
        test = SyntheticSource(max(settings.images // 3, 1), num_classes=20, size=size, seed=1)
    if protocol.novel_in_training == "drop":
        train = without_classes(train, split.novel)
    return Benchmark(train, test, split)


class KeptSource:
    """A source whose images are decoded once and then kept in memory, for data that fits.

    Args:
        source: Any source of class ids below 256.
    """

    def __init__(self, source: SegmentationSource) -> None:
        self.class_names, self.ids, self.class_areas = source.class_names, source.ids, source.class_areas
        self._source = source
        self._kept: dict[int, tuple[tv_tensors.Image, Tensor]] = {}

    def load(self, index: int) -> Sample:
        """Decode the image at this position of ``ids`` and its mask, or remember them."""
        if index not in self._kept:
            image, mask = self._source.load(index)
            self._kept[index] = image, mask.to(torch.uint8)
        image, mask = self._kept[index]
        return Sample(image, tv_tensors.Mask(mask.long()))


def open_folder(path: Path, *, progress: bool = False) -> SegmentationSource:
    """A folder with images/ and masks/, or the validation images of a VOC 2012 root."""
    if (path / "images").is_dir():
        return FolderSource.from_root(path, progress=progress)
    return VOCSource(path, split="val", progress=progress)


def quarter(class_ids: Sequence[int], fold: int | Literal["all"]) -> ClassSplit:
    """The split when classes are dealt to four folds by ascending id, as in PASCAL-5i; "all" leaves none novel."""
    classes = sorted(class_ids)
    novel = [] if fold == "all" else classes[fold * len(classes) // 4 : (fold + 1) * len(classes) // 4]
    return ClassSplit(tuple(c for c in classes if c not in novel), tuple(novel))


def with_classes(source: SegmentationSource, class_ids: Sequence[int]) -> SubsetSource:
    """The images that hold at least one of these classes."""
    return SubsetSource(source, [i for i, areas in enumerate(source.class_areas) if set(areas) & set(class_ids)])


def hold_out(benchmark: Benchmark) -> tuple[Benchmark, Benchmark]:
    """Set a fifth of the base classes aside, to choose a model by classes that it has not seen.

    Those that the fewest images hold, as all of these images leave the training set.

    Returns:
        The benchmark with what remains to train on; and another whose test images and novel classes are those aside.
    """
    train, test, (base, novel) = benchmark
    images = Counter(class_id for areas in train.class_areas for class_id in areas)
    held = tuple(sorted(sorted(base, key=lambda class_id: images[class_id])[: max(len(base) // 5, 1)]))
    rest = tuple(class_id for class_id in base if class_id not in held)
    remaining = without_classes(train, held)
    return (
        Benchmark(remaining, test, ClassSplit(rest, novel)),
        Benchmark(remaining, with_classes(train, held), ClassSplit(rest, held)),
    )


def draw_test(
    benchmark: Benchmark, protocol: EvaluationProtocol, backbone: nn.Module, *, shots: int, seed: int
) -> EpisodeDataset:
    """The test episodes of a fold and a seed, for a model with that backbone.

    Raises:
        ValueError: If no class is novel.
    """
    if not benchmark.split.novel:
        raise ValueError("fold must be 0 to 3 to test a model, as 'all' leaves no novel classes, got 'all'")
    test, novel, transform = benchmark.test, benchmark.split.novel, eval_transform(protocol, backbone)
    common = {"shots": shots, "length": protocol.episodes, "seed": seed, "min_area": protocol.min_area}
    if protocol.draw == "number":
        return EpisodeDataset(test, novel, transform=transform, **common)
    specs = pfenet_episodes(test, novel, max_passes=protocol.max_passes, workers=protocol.workers, **common)
    return EpisodeDataset.from_specs(test, specs, transform=transform)


def eval_transform(protocol: EvaluationProtocol, backbone: nn.Module) -> v2.Compose:
    """How a protocol brings images to a model with that backbone."""
    preset = {"pfenet_eval": pfenet_eval, "hsnet_eval": hsnet_eval}[protocol.test_resize]
    return preset(protocol.test_size, **image_statistics(backbone))


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for the fields of `DataSettings`; those not given are absent from what is parsed."""
    add = parser.add_argument
    add("--data", nargs="+", metavar="FOLDER", help="VOC 2012, COCO, or folders of one's own (see the benchmark)")
    add("--fold", type=_fold, choices=(*range(4), "all"), metavar="{0,1,2,3,all}",
        help="which quarter of the classes is novel (default: 0); folders: or all, to train on all")  # fmt: skip
    add("--protocol", choices=PROTOCOLS, help="a published way to measure (default: SCNet's; others for own images)")
    add("--size", type=int, help="side of training crops and test images in pixels, in place of the protocol's")
    add("--novel", choices=("background", "ignore", "drop"), help="what novel objects in training images become")
    add("--episodes", type=int, help="test episodes a seed, in place of the protocol's")
    add("--seeds", type=int, nargs="+", help="of test episodes, one whole evaluation each")
    add("--train-list", help="pascal: the images to train on, as in VOCSource (default: the protocol's)")
    add("--images", type=int, help="synthetic: images to train on (default: 1000)")


def _fold(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def data_settings(options: dict[str, Any], default: Mapping[str, Any]) -> DataSettings:
    """Take the options of `add_data_arguments` out of ``options``; for all others the fields in ``default`` hold.

    A protocol in which something was changed carries that in its name.
    """
    protocol = PROTOCOLS[options.pop("protocol")] if "protocol" in options else default["protocol"]
    size = options.pop("size", None)
    wanted = {
        "train_size": size,
        "test_size": size,
        "novel_in_training": options.pop("novel", None),
        "episodes": options.pop("episodes", None),
        "seeds": tuple(options.pop("seeds", ())) or None,
    }
    changes = {key: value for key, value in wanted.items() if value not in (None, getattr(protocol, key))}
    if changes:
        changed = ", ".join(f"{key} {value}" for key, value in changes.items())
        protocol = replace(protocol, name=f"{protocol.name} with {changed}", **changes)
    given = {field.name: options.pop(field.name) for field in fields(DataSettings) if field.name in options}
    settings = {**default, **given, "protocol": protocol}
    return DataSettings(**{**settings, "data": tuple(settings.get("data", ()))})
