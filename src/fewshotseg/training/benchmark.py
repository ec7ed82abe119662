"""Opens the training and test images of a fold, and draws its test episodes."""

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fewshotseg._checks import name_some
from fewshotseg.data import (
    COCO_CLASSES,
    ClassSplit,
    ClasswiseSource,
    COCOSource,
    ConcatSource,
    EpisodeDataset,
    EvaluationProtocol,
    FolderSource,
    FSS1000Source,
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
from fewshotseg.training.data_settings import (
    BENCHMARKS,
    CLASSES,
    CROSS_DOMAIN,
    TESTED,
    TRAIN_LISTS,
    DataSettings,
)
from fewshotseg.training.folds import (
    MIN_TESTED,
    MIN_TRAINED,
    check_fold,
    coco_fold,
    numbered_alike,
    quarter,
    well_stocked,
)

__all__ = [
    "BENCHMARKS",
    "TESTED",
    "Benchmark",
    "DataSettings",
    "KeptSource",
    "draw_test",
    "eval_transform",
    "hold_out",
    "open_benchmark",
    "open_folder",
    "quarter",
    "with_classes",
]


class Benchmark(NamedTuple):
    """The data of a fold: training images, test images, and base and novel classes."""

    train: SegmentationSource
    test: SegmentationSource
    split: ClassSplit

    def listed(self, min_area: int) -> int:
        """Count the training images that show a base class with at least ``min_area`` pixels."""
        base = set(self.split.base)
        areas = (areas.items() for areas in self.train.class_areas)
        return sum(any(class_id in base and area >= min_area for class_id, area in items) for items in areas)


def open_benchmark(
    settings: DataSettings, *, progress: bool = False, opener: Callable[..., SegmentationSource] | None = None
) -> Benchmark:
    """Open the images of a fold, without training images that the protocol excludes.

    Args:
        settings: The folders, the fold and the protocol.
        progress: Show progress bars while masks are read for the first time.
        opener: Function that opens a folder of ``folders``; by default `open_folder`.

    Raises:
        ValueError: If the fold has no novel class, or images and masks do not fit.
        OSError: If a folder or file is missing.
    """
    roots = [Path(path) for path in settings.data]
    protocol, fold = settings.protocol, settings.fold
    train: SegmentationSource
    test: SegmentationSource
    if settings.benchmark == "folders":
        folders = [(opener or open_folder)(root, progress=progress) for root in roots]
        first, *others = folders
        is_coco = first.class_names == COCO_CLASSES
        split = coco_fold(fold) if is_coco else quarter(first.class_names, fold)
        check_fold(split, fold)
        train = ConcatSource(without_classes(first, split.novel), *(numbered_alike(each, first) for each in others))
        test = with_classes(first, split.novel)
    elif settings.benchmark in CROSS_DOMAIN:
        test = open_cross_domain(settings.benchmark, roots[0], progress=progress)
        train, split = SubsetSource(test, []), ClassSplit((), tuple(test.class_names))
    elif fold == "all":
        raise ValueError(f"fold must be 0 to 3 for {settings.benchmark}, got 'all'")
    elif settings.benchmark == "pascal":
        split = pascal5i(fold)
        train_list = settings.train_list or TRAIN_LISTS[protocol.train_images]
        train = VOCSource(roots[0], split=train_list, progress=progress)
        test = VOCSource(roots[0], split="val", progress=progress)
    elif settings.benchmark == "coco":
        split = coco20i(fold, layout=protocol.split)
        train, test = (
            COCOSource(roots[0] / part, roots[0] / f"annotations/instances_{part}.json", progress=progress)
            for part in ("train2014", "val2014")
        )
    else:
        split = pascal5i(fold)
        size = max(protocol.train_size // 8 * 8, 32)
        train = SyntheticSource(settings.images, num_classes=20, size=size, seed=0)
        test = SyntheticSource(max(settings.images // 3, 1), num_classes=20, size=size, seed=1)
    if protocol.novel_in_training == "drop":
        train = without_classes(train, split.novel)
    if settings.benchmark == "folders" and test.class_names == COCO_CLASSES:
        split = ClassSplit(well_stocked(train, split.base, MIN_TRAINED), well_stocked(test, split.novel, MIN_TESTED))
        if fold != "all" and not split.novel:
            wanted = f"a class that {MIN_TESTED} images of the first folder show"
            raise ValueError(f"fold must be one of COCO-20i with {wanted}, got {fold}")
    return Benchmark(train, test, split)


class KeptSource:
    """A source that decodes each image once and caches it, for data that fits into memory.

    Args:
        source: Any source of class ids below 256.
    """

    def __init__(self, source: SegmentationSource) -> None:
        self.class_names, self.ids, self.class_areas = source.class_names, source.ids, source.class_areas
        self._source = source
        self._kept: dict[int, tuple[tv_tensors.Image, Tensor]] = {}

    def load(self, index: int) -> Sample:
        """Return the image at this index of ``ids`` and its mask, decoded at the first call."""
        if index not in self._kept:
            image, mask = self._source.load(index)
            self._kept[index] = image, mask.to(torch.uint8)
        image, mask = self._kept[index]
        return Sample(image, mask.long().as_subclass(tv_tensors.Mask))


def open_folder(path: Path, *, progress: bool = False) -> SegmentationSource:
    """Open a folder with images/ and masks/ or instances.json, or the validation images of a VOC 2012 root."""
    if (path / "instances.json").is_file():
        return COCOSource(path / "images", path / "instances.json", progress=progress)
    if (path / "images").is_dir():
        return FolderSource.from_root(path, progress=progress)
    return VOCSource(path, split="val", progress=progress)


def open_cross_domain(benchmark: str, root: Path, *, progress: bool = False) -> SegmentationSource:
    """Open a data set of `CROSS_DOMAIN`; raise `ValueError` unless it has as many classes as the benchmark."""
    reader = FSS1000Source if benchmark == "fss1000" else ClasswiseSource
    source = reader(root, progress=progress)
    if len(source.class_names) != CLASSES[benchmark]:
        names = name_some([*source.class_names.values()])
        raise ValueError(
            f"data must be a folder with the {CLASSES[benchmark]} class(es) that {benchmark} is tested on, "
            f"got {root} with {len(source.class_names)}: {names}"
        )
    return source


def with_classes(source: SegmentationSource, class_ids: Collection[int]) -> SubsetSource:
    """Keep the images that show at least one of these classes."""
    return SubsetSource(source, [i for i, areas in enumerate(source.class_areas) if set(areas) & set(class_ids)])


def hold_out(benchmark: Benchmark) -> tuple[Benchmark, Benchmark]:
    """Hold out a fifth of the base classes, to select checkpoints by classes that were not trained on.

    The classes with the fewest images are held out, as these images are removed from the training set.

    Returns:
        The benchmark with the remaining training images; and another whose novel classes are those held out, with
        their images as test images.
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
    benchmark: Benchmark, protocol: EvaluationProtocol, model: Any, *, shots: int, seed: int
) -> EpisodeDataset:
    """Draw the test episodes of a fold for a seed.

    Args:
        benchmark: The data of the fold.
        protocol: The protocol: number of episodes, how they are drawn and how images are resized.
        model: The model, whose ``config`` has the mean and std to normalise images by.
        shots: Number of support images in an episode.
        seed: Seed of the episodes.

    Raises:
        ValueError: If no class is novel, or a novel class has too few images.
    """
    test, (_, novel) = benchmark.test, benchmark.split
    if not novel:
        raise ValueError(
            "fold must be 0 to 3 to test a model, as 'all' leaves no class to test on, got 'all'; "
            "train with a fold, or test on other folders"
        )
    transform, min_area = eval_transform(protocol, model), protocol.min_area
    if protocol.max_passes is None or protocol.workers is None:
        return EpisodeDataset(
            test, novel, shots=shots, length=protocol.episodes, seed=seed, transform=transform, min_area=min_area
        )
    specs = pfenet_episodes(
        test,
        novel,
        shots=shots,
        length=protocol.episodes,
        max_passes=protocol.max_passes,
        seed=seed,
        workers=protocol.workers,
        min_area=min_area,
    )
    return EpisodeDataset.from_specs(test, specs, transform=transform)


def eval_transform(protocol: EvaluationProtocol, model: Any) -> v2.Compose:
    """Make the test transform of a protocol, which normalises images by the mean and std of ``model.config``."""
    preset = {"pfenet_eval": pfenet_eval, "hsnet_eval": hsnet_eval}[protocol.test_resize]
    return preset(protocol.test_size, mean=model.config.mean, std=model.config.std)
