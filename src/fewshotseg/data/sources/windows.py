"""Windows around small objects, in which a model sees them as large as others."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2.functional import crop

from fewshotseg._checks import check_at_least
from fewshotseg.data.sources.index import count_classes
from fewshotseg.data.sources.source import Sample, SegmentationSource, check_members

MAX_SHARE = 0.12
"""Largest share of an image that a class may cover to get a window."""

MIN_PIXELS = 150
"""Pixels of the smallest object that gets a window; a smaller one has no shape that could be enlarged."""

MIN_SIDE = 80
"""Smallest side of a window in pixels."""

MARGIN = (1.4, 3.0)
"""Smallest and largest side of a window, as multiples of the object's longer side."""


class Window(NamedTuple):
    """A square of an image.

    Attributes:
        image: Position of the image in the source.
        top: First row.
        left: First column.
        side: Rows and columns.
    """

    image: int
    top: int
    left: int
    side: int


class WindowSource:
    """A source, and after its images one window for each small class of an image, around the largest such object.

    At a training size of a few hundred pixels many objects are a cell or two of the feature map. In a window they are
    as large as those that fill a photograph. Windows depend on the seed and the image alone.

    Args:
        source: Any source; its masks are read once.
        class_ids: The classes whose objects get windows.
        seed: Seed of the windows' sides and places, 0 or more.

    Attributes:
        windows: The windows, in the order of ``ids`` after the source's own.

    Raises:
        ImportError: If scipy is not installed.
        ValueError: If the seed is negative.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> closer = WindowSource(SyntheticSource(40, num_classes=3, size=(200, 300)), [1, 2, 3], seed=0)
        >>> closer.windows[0]
        Window(image=30, top=10, left=188, side=112)
        >>> closer.ids[40], tuple(closer.load(40).mask.shape)
        ('synthetic-0-000030@2', (112, 112))
    """

    def __init__(self, source: SegmentationSource, class_ids: Collection[int], *, seed: int) -> None:
        check_members(source)
        seed = check_at_least("seed", seed, 0)
        self._source, self.class_names = source, source.class_names
        self.windows: list[Window] = []
        self.ids: list[str] = [*source.ids]
        self.class_areas: list[Mapping[int, int]] = [dict(areas) for areas in source.class_areas]
        for index, areas in enumerate(source.class_areas):
            seen = sorted(c for c in set(areas) & set(class_ids) if areas[c] >= MIN_PIXELS)
            mask = source.load(index).mask if seen else torch.zeros(0, 0)
            for class_id in seen:
                if areas[class_id] > MAX_SHARE * mask.numel():
                    continue
                found = draw_window((mask == class_id).numpy(), np.random.default_rng((seed, index, class_id)))
                if found is None:
                    continue
                top, left, side = found
                inside = count_classes(crop(mask, top, left, side, side))
                if class_id in inside:
                    self.windows.append(Window(index, top, left, side))
                    self.ids.append(f"{source.ids[index]}@{class_id}")
                    self.class_areas.append(inside)

    def load(self, index: int) -> Sample:
        """Load the image at this position of ``ids`` and its mask, or the part of them in a window.

        Raises:
            IndexError: If there is no such position.
        """
        if not 0 <= index < len(self.ids):
            raise IndexError(f"index must be from 0 to {len(self.ids) - 1}, got {index}")
        if index < len(self.ids) - len(self.windows):
            return self._source.load(index)
        number, top, left, side = self.windows[index - len(self.ids)]
        image, mask = self._source.load(number)
        return Sample(crop(image, top, left, side, side), crop(mask, top, left, side, side))


def draw_window(inside: np.ndarray, draw: np.random.Generator) -> tuple[int, int, int] | None:
    """Draw top, left and side of a random window around the largest connected part of a mask.

    Returns:
        None if the part is too small, or the window would be most of the image.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError('windows need scipy: pip install "fewshotseg[train]"') from error
    parts, _ = ndimage.label(inside)
    sizes = np.bincount(parts.ravel())[1:]
    largest = int(sizes.argmax())
    if sizes[largest] < MIN_PIXELS:
        return None
    rows, columns = np.nonzero(parts == largest + 1)
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    side = int(max(longer * draw.uniform(*MARGIN), MIN_SIDE))
    height, width = inside.shape
    if side > 0.75 * min(height, width):
        return None
    places = []
    for where, length in ((rows, height), (columns, width)):
        middle = (where.min() + where.max()) / 2 + draw.uniform(-0.2, 0.2) * side
        places.append(int(np.clip(middle - side / 2, 0, length - side)))
    return places[0], places[1], side
