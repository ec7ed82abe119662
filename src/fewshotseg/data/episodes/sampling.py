"""Draws episodes: the class, the query and the supports of episode n, from (seed, n)."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, overload

import numpy as np
from typing_extensions import override

from fewshotseg._checks import as_list, check_at_least
from fewshotseg.data.episodes.lists import EpisodeSpec, check_class_id
from fewshotseg.data.sources.source import SegmentationSource, check_members

MAX_SEED = 2**63 - 1


def images_by_class(
    source: SegmentationSource, class_ids: Iterable[int], *, shots: int, min_area: int
) -> dict[int, list[int]]:
    """List the images that show each class with at least ``min_area`` pixels, in the order of the source.

    Args:
        source: Images with class masks.
        class_ids: The classes.
        shots: Number of supports; every class must have at least ``shots + 1`` images.
        min_area: Smallest area in pixels of the stored mask.

    Returns:
        Class id, ascending -> positions in the source.

    Raises:
        ValueError: If there is no class, one has too few images, a number is out of range, or ids of the source repeat.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> images = images_by_class(SyntheticSource(20, num_classes=4), [1, 2], shots=1, min_area=1)
        >>> list(images)
        [1, 2]
    """
    shots = check_at_least("shots", shots, 1)
    min_area = check_at_least("min_area", min_area, 1)
    check_source(source)
    images: dict[int, list[int]] = {class_id: [] for class_id in check_class_ids("class_ids", class_ids)}
    for position, areas in enumerate(source.class_areas):
        for class_id, area in areas.items():
            if class_id in images and area >= min_area:
                images[class_id].append(position)
    refuse_small_classes(source, images, shots, f" of {min_area} pixels or more")
    return images


def refuse_small_classes(
    source: SegmentationSource, images: Mapping[int, Sequence[int]], shots: int, condition: str = ""
) -> None:
    """Raise unless there is a class, and every class has images for ``shots`` supports and a query."""
    few = {class_id: len(found) for class_id, found in images.items() if len(found) <= shots}
    if few or not images:
        counts = [f"{class_id} ({source.class_names.get(class_id, 'unknown')}): {few[class_id]}" for class_id in few]
        listed = ", ".join(counts[:8] + ["..."] * (len(counts) > 8))
        raise ValueError(
            f"class_ids must be classes with at least {shots + 1} images ({shots} supports and a query)"
            f"{condition}, got {listed or 'no class'}"
        )


def check_class_ids(name: str, class_ids: Iterable[int]) -> tuple[int, ...]:
    """Return the class ids as Python integers, ascending, without repetitions; raise unless all are possible ids."""
    return tuple(
        sorted(
            {check_class_id(f"every class of {name}", each) for each in as_list(name, class_ids, "a list of classes")}
        )
    )


def check_source(source: SegmentationSource) -> None:
    """Raise unless ``source`` follows `SegmentationSource`, and every image has a different id."""
    check_members(source)
    if len(source.ids) != len(source.class_areas):
        raise ValueError(
            f"source must have class_areas for each of its ids, got {len(source.class_areas)} for {len(source.ids)}"
        )
    if len(set(source.ids)) < len(source.ids):
        raise ValueError(f"source must have different ids, got {len(source.ids) - len(set(source.ids))} repetitions")


def episode_number(number: int, length: int) -> int:
    """Return ``number`` as a Python integer from 0 on; raise unless it is one of ``length`` episodes."""
    if isinstance(number, slice) or not hasattr(number, "__index__"):
        raise TypeError(f"the number of an episode must be an integer, got {type(number).__name__}")
    try:
        return range(length)[number]
    except IndexError:
        raise IndexError(f"the number of an episode must be below their count, {length}, got {number}") from None


Spec_co = TypeVar("Spec_co", covariant=True)
"""What describes an episode: an `EpisodeSpec` or another named tuple."""


class Specs(Sequence[Spec_co]):
    """A sequence of episodes, each of which is drawn when it is accessed."""

    @abstractmethod
    def draw(self, number: int) -> Spec_co:
        """Draw episode ``number``, from 0 to ``len(self) - 1``."""

    @overload
    def __getitem__(self, number: int) -> Spec_co: ...
    @overload
    def __getitem__(self, number: slice) -> list[Spec_co]: ...
    @override
    def __getitem__(self, number: int | slice) -> Spec_co | list[Spec_co]:
        if isinstance(number, slice):
            return [self.draw(each) for each in range(len(self))[number]]
        return self.draw(episode_number(number, len(self)))


class DrawnSpecs(Specs[EpisodeSpec]):
    """Draws the class uniformly, then the query and the supports uniformly from its images.

    Args:
        ids: The ids of all images.
        images: Class id -> positions in ``ids``.
        shots: Number of supports of an episode.
        length: The number of episodes.
        seed: Seed of all random numbers.
    """

    def __init__(self, ids: Sequence[str], images: Mapping[int, list[int]], shots: int, length: int, seed: int) -> None:
        self._ids, self._images, self._classes = ids, images, list(images)
        self._shots, self._length, self._seed = shots, length, seed

    @override
    def __len__(self) -> int:
        return self._length

    @override
    def draw(self, number: int) -> EpisodeSpec:
        stream = np.random.default_rng((self._seed, number))
        class_id = self._classes[stream.integers(len(self._classes))]
        remaining = list(self._images[class_id])
        query, *supports = (self._ids[remaining.pop(stream.integers(len(remaining)))] for _ in range(1 + self._shots))
        return EpisodeSpec(class_id, query, tuple(supports))
