"""Sources made of other sources: some of the images of one, or all images of several."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from fewshotseg.data.sources.source import Sample, SegmentationSource


class SubsetSource:
    """Some images of a source. A `SegmentationSource` itself.

    Args:
        source: Any source.
        keep: The positions to keep, in the order to keep them in; may be empty.

    Raises:
        IndexError: If a position is not in the source.
        ValueError: If a position repeats.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(10, num_classes=3, size=(48, 64))
        >>> SubsetSource(source, [7, 2]).ids == [source.ids[7], source.ids[2]]
        True
    """

    def __init__(self, source: SegmentationSource, keep: Sequence[int]) -> None:
        for index in keep:
            if not 0 <= index < len(source.ids):
                raise IndexError(f"keep must have positions from 0 to {len(source.ids) - 1}, got {index}")
        if len(set(keep)) < len(keep):
            raise ValueError("keep must not name a position twice")
        self._source = source
        self._keep = list(keep)
        self.ids = [source.ids[index] for index in self._keep]

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class id to name: all of the source, whether an image of theirs is kept or not."""
        return self._source.class_names

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id to number of pixels in the stored mask."""
        areas = self._source.class_areas
        return [areas[index] for index in self._keep]

    def load(self, index: int) -> Sample:
        """Decode the image at this position of ``ids`` and its mask."""
        return self._source.load(self._keep[index])


class ConcatSource:
    """All images of several sources, one after the other. A `SegmentationSource` itself.

    Args:
        *sources: At least one source. Their ids must differ, and a class id that several use must mean the same.

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
            for class_id, name in source.class_names.items():
                if names.setdefault(class_id, name) != name:
                    raise ValueError(f"sources must agree on class {class_id}, got {names[class_id]!r} and {name!r}")
        self.class_names = dict(sorted(names.items()))
        self.ids = [name for source in sources for name in source.ids]
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise ValueError(f"sources must not share ids, got {', '.join(map(repr, repeated))} more than once")
        self._parts = [(source, index) for source in sources for index in range(len(source.ids))]
        self._sources = sources

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id to number of pixels in the stored mask."""
        return [areas for source in self._sources for areas in source.class_areas]

    def load(self, index: int) -> Sample:
        """Decode the image at this position of ``ids`` and its mask."""
        source, position = self._parts[index]
        return source.load(position)


def without_classes(source: SegmentationSource, class_ids: Collection[int]) -> SubsetSource:
    """Keep the images that hold no pixel of some classes, such as a fold's novel classes for training.

    Args:
        source: Any source.
        class_ids: The classes that must not occur.

    Returns:
        The remaining images, in their order; there may be none.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(10, num_classes=3, size=(48, 64))
        >>> any(2 in areas for areas in without_classes(source, {2}).class_areas)
        False
    """
    unwanted = set(class_ids)
    return SubsetSource(source, [i for i, areas in enumerate(source.class_areas) if unwanted.isdisjoint(areas)])
