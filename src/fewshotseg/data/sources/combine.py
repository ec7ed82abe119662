"""Sources made of other sources: subsets, concatenations and renumbered classes."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torchvision import tv_tensors

from fewshotseg._checks import as_list, check_at_least, name_some, shown
from fewshotseg._io import StrPath
from fewshotseg.data.sources.faults import faulty_files
from fewshotseg.data.sources.source import VOID, Sample, SegmentationSource, check_members
from fewshotseg.data.sources.tables import read_text

if TYPE_CHECKING:  # pyright accepts a property for `SegmentationSource`, but not a cached_property
    from builtins import property as cached_property
else:
    from functools import cached_property


class SubsetSource:
    """A source with some of the images of another.

    Args:
        source: Any source.
        keep: The positions to keep, in the order to keep them in; may be empty.

    Raises:
        IndexError: If a position is not in the source.
        ValueError: If a position repeats.
        TypeError: If a position is not an integer.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(10, num_classes=3, size=(48, 64))
        >>> SubsetSource(source, [7, 2]).ids == [source.ids[7], source.ids[2]]
        True
    """

    def __init__(self, source: SegmentationSource, keep: Sequence[int]) -> None:
        check_members(source)
        keep = as_list("keep", keep, "positions")
        for index in keep:
            if isinstance(index, bool) or not isinstance(index, int):
                raise TypeError(f"keep must have positions, which are whole numbers, got {shown(index)}")
            if not 0 <= index < len(source.ids):
                raise IndexError(f"keep must have positions from 0 to {len(source.ids) - 1}, got {shown(index)}")
        if len(set(keep)) < len(keep):
            twice = next(index for index, count in Counter(keep).items() if count > 1)
            raise ValueError(f"keep must not name a position twice, got {twice} more than once")
        self._source = source
        self._keep: list[int] = keep
        self._listed: dict[str, set[int]] | None = None
        self.ids: list[str] = [source.ids[index] for index in self._keep]

    @classmethod
    def from_pairs(cls, source: SegmentationSource, pairs: StrPath | Iterable[tuple[str, int]]) -> Self:
        """Select the pairs of an image and a class in a list, such as the test lists of papers.

        Masks do not change, but ``class_areas`` holds only the listed classes, so that episodes with ``min_area=1`` are
        drawn from the listed pairs.

        Args:
            source: Any source with these images.
            pairs: Pairs of an image id and a class id; or a text file with a pair on each line: ``2007_000033__01`` as
                in HSNet's lists, or ``2007_000033 1``.

        Returns:
            A source of the images in the order of the list.

        Raises:
            ValueError: If a line is not such a pair, the source lacks an image, or an image does not show its class;
                the message names the first few.
            FileNotFoundError: If there is no such file.

        Example:
            >>> from fewshotseg.data import SyntheticSource
            >>> source = SyntheticSource(10, num_classes=3, size=(48, 64))
            >>> listed = SubsetSource.from_pairs(source, [(source.ids[4], 2)])
            >>> listed.ids == [source.ids[4]], list(listed.class_areas[0])
            (True, [2])
        """
        listed: dict[str, set[int]] = {}
        for pair in _read_pairs(Path(pairs)) if isinstance(pairs, str | PathLike) else pairs:
            if not isinstance(pair, tuple) or [type(value) for value in pair] != [str, int]:
                raise TypeError(f"pairs must be tuples of an image id and a class id, got {shown(pair)}")
            image_id, class_id = pair
            listed.setdefault(image_id, set()).add(class_id)
        position = {image_id: index for index, image_id in enumerate(source.ids)}
        faults = [
            f"image {image_id!r} is not in the source"
            if image_id not in position
            else f"image {image_id!r} does not hold class {class_id}"
            for image_id, class_ids in listed.items()
            for class_id in sorted(class_ids)
            if image_id not in position or not source.class_areas[position[image_id]].get(class_id)
        ]
        if faults:
            raise faulty_files(pairs if isinstance(pairs, str | PathLike) else "pairs", faults)
        subset = cls(source, [position[image_id] for image_id in listed])
        subset._listed = listed
        return subset

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class id -> name, for all classes of the source."""
        return self._source.class_names

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id -> number of pixels in the stored mask."""
        areas = [self._source.class_areas[index] for index in self._keep]
        if self._listed is None:
            return areas
        return [
            {class_id: area for class_id, area in held.items() if class_id in self._listed[image_id]}
            for image_id, held in zip(self.ids, areas, strict=True)
        ]

    def load(self, index: int) -> Sample:
        """Decode the image at this index of ``ids`` and its mask."""
        return self._source.load(self._keep[index])


def _read_pairs(path: Path) -> Iterable[tuple[str, int]]:
    lines = [line.strip() for line in read_text(path).splitlines()]
    pairs = {line: re.fullmatch(r"(.+?)(?:__|\s+)(\d{1,9})", line) for line in lines if line}
    faults = [f"{line!r} must be an image id and a class id" for line, pair in pairs.items() if pair is None]
    if faults or not pairs:
        raise faulty_files(path, faults or ["it holds no pair of an image id and a class id"])
    return [(pair[1], int(pair[2])) for pair in pairs.values() if pair]


class ConcatSource:
    """A source with all images of several others, one after the other.

    Args:
        *sources: At least one source. Image ids must differ, and a class id must have the same name in all.

    Raises:
        ValueError: If there is no source, ids repeat, or a class has two names.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(10, num_classes=3, size=(48, 64))
        >>> both = ConcatSource(SubsetSource(source, [0, 1]), SubsetSource(source, [5]))
        >>> both.ids[2] == source.ids[5]
        True
    """

    def __init__(self, *sources: SegmentationSource) -> None:
        if not sources:
            raise ValueError("sources must hold at least one source, got none")
        names: dict[int, str] = {}
        for source in sources:
            check_members(source)
            for class_id, name in source.class_names.items():
                if names.setdefault(class_id, name) != name:
                    raise ValueError(
                        f"sources must agree on class {class_id}, got {shown(names[class_id])} and {shown(name)}"
                    )
        self.class_names = dict(sorted(names.items()))
        self.ids = [name for source in sources for name in source.ids]
        repeated = [repr(name) for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise ValueError(f"sources must not share ids, got {name_some(repeated)} more than once")
        self._parts = [(source, index) for source in sources for index in range(len(source.ids))]
        self._sources = sources

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id -> number of pixels in the stored mask."""
        return [areas for source in self._sources for areas in source.class_areas]

    def load(self, index: int) -> Sample:
        """Decode the image at this index of ``ids`` and its mask."""
        source, position = self._parts[index]
        return source.load(position)


class RenumberedSource:
    """A source with other class ids, for example VOC's images with COCO's class ids.

    Args:
        source: Any source of class ids below 255.
        new_ids: Class id of the source -> new id below 255; a different one for each class.
        class_names: New id -> name; may name more classes than the source has.

    Raises:
        ValueError: If a class of the source gets no new id, two get the same, or a new id has no name.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(10, num_classes=2, size=(48, 64))
        >>> other = RenumberedSource(source, {1: 7, 2: 5}, {5: "cross", 7: "star"})
        >>> [*source.class_areas[0]], [*other.class_areas[0]], other.load(0).mask.unique().tolist()
        ([1], [7], [0, 7])
    """

    def __init__(self, source: SegmentationSource, new_ids: Mapping[int, int], class_names: Mapping[int, str]) -> None:
        check_members(source)
        ids = [new_ids.get(class_id) for class_id in source.class_names]
        if None in ids or len(set(ids)) < len(ids) or not class_names.keys() >= set(ids):
            raise ValueError(
                "new_ids must give each class of the source an id of its own that class_names names, "
                f"got {shown(dict(new_ids))}"
            )
        self.class_names = class_names
        self.ids = source.ids
        self._source = source
        self._new_ids = new_ids
        self._table = torch.arange(VOID + 1, device="cpu")
        self._table[[*new_ids]] = torch.tensor([*new_ids.values()], device="cpu")

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id -> number of pixels in the stored mask."""
        return [
            {self._new_ids[class_id]: area for class_id, area in areas.items()} for areas in self._source.class_areas
        ]

    def load(self, index: int) -> Sample:
        """Decode the image at this index of ``ids`` and its mask."""
        image, mask = self._source.load(index)
        renumbered = self._table[mask.as_subclass(torch.Tensor).long()]
        return Sample(image, renumbered.as_subclass(tv_tensors.Mask))


def without_classes(source: SegmentationSource, class_ids: Collection[int]) -> SubsetSource:
    """Remove the images that show any of some classes, for example a fold's novel classes before training.

    Args:
        source: Any source.
        class_ids: The classes that must not occur.

    Returns:
        A source of the remaining images, in order; may be empty.

    Raises:
        TypeError: If ``class_ids`` are not integers.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(10, num_classes=3, size=(48, 64))
        >>> any(2 in areas for areas in without_classes(source, {2}).class_areas)
        False
    """
    check_members(source)
    unwanted = {check_at_least("every number of class_ids", each, 0) for each in as_list("class_ids", class_ids, "ids")}
    return SubsetSource(source, [i for i, areas in enumerate(source.class_areas) if unwanted.isdisjoint(areas)])
