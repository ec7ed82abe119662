"""Drawing episodes: the class, the query and the supports of number n from (seed, n) alone."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg.data.episodes.lists import EpisodeSpec
from fewshotseg.data.sources.source import SegmentationSource


def images_by_class(
    source: SegmentationSource, class_ids: Iterable[int], *, shots: int, min_area: int
) -> dict[int, list[int]]:
    """Which images hold each class with at least ``min_area`` pixels, in the order of the source.

    Args:
        source: Images with class masks.
        class_ids: The classes.
        shots: Every class must have one image more than that.
        min_area: In pixels of the stored mask.

    Returns:
        Class id, ascending, to positions in the source.

    Raises:
        ValueError: If there is no class, one has too few images, or a setting is below 1.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> images = images_by_class(SyntheticSource(20, num_classes=4), [1, 2], shots=1, min_area=1)
        >>> list(images)
        [1, 2]
    """
    check_at_least("shots", shots, 1)
    check_at_least("min_area", min_area, 1)
    check_ids(source)
    images: dict[int, list[int]] = {int(class_id): [] for class_id in sorted(class_ids)}
    for position, areas in enumerate(source.class_areas):
        for class_id, area in areas.items():
            if class_id in images and area >= min_area:
                images[class_id].append(position)
    few = {class_id: len(found) for class_id, found in images.items() if len(found) <= shots}
    if few or not images:
        names = source.class_names
        counts = ", ".join(f"{class_id} ({names.get(class_id, 'unknown')}): {few[class_id]}" for class_id in few)
        raise ValueError(
            f"class_ids must be classes with at least {shots + 1} images ({shots} supports and a query) "
            f"of {min_area} pixels or more, got {counts or 'no class'}"
        )
    return images


def check_ids(source: SegmentationSource) -> None:
    """Raise unless every image of the source has an id of its own."""
    if len(set(source.ids)) < len(source.ids):
        raise ValueError(f"source must have different ids, got {len(source.ids) - len(set(source.ids))} repetitions")


class DrawnSpecs(Sequence[EpisodeSpec]):
    """Episodes that are drawn when they are asked for."""

    def __init__(self, ids: Sequence[str], images: dict[int, list[int]], shots: int, length: int, seed: int) -> None:
        self._ids, self._images, self._classes = ids, images, list(images)
        self._shots, self._length, self._seed = shots, length, seed

    @override
    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, number: int) -> EpisodeSpec: ...
    @overload
    def __getitem__(self, number: slice) -> list[EpisodeSpec]: ...
    @override
    def __getitem__(self, number: int | slice) -> EpisodeSpec | list[EpisodeSpec]:
        if isinstance(number, slice):
            return [self[each] for each in range(self._length)[number]]
        number = range(self._length)[number]
        stream = np.random.default_rng((self._seed, number))
        class_id = self._classes[stream.integers(len(self._classes))]
        remaining = list(self._images[class_id])
        query, *supports = (self._ids[remaining.pop(stream.integers(len(remaining)))] for _ in range(1 + self._shots))
        return EpisodeSpec(class_id, query, tuple(supports))
