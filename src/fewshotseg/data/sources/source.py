"""What every data set looks like to the rest of the library: images with class masks, addressed by position."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torchvision import tv_tensors

VOID = 255
"""The value of pixels that belong to no class and are never scored. No class has this id."""


class Sample(NamedTuple):
    """One image with its class mask.

    Attributes:
        image: ``(3, H, W)`` uint8, RGB.
        mask: ``(H, W)`` int64, class ids; 0 background, 255 void.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask


class SegmentationSource(Protocol):
    """Images with class masks. Anything with these four members can be drawn episodes from.

    Attributes:
        class_names: Class id (1 and up, never 255) to name.
        ids: A name for each image that is the same on every machine, in a fixed order.
        class_areas: For each image, class id to its number of pixels in the stored mask; known without decoding.
    """

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class id to name."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """A name for each image."""
        ...

    @property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """Class id to pixels, for each image."""
        ...

    def load(self, index: int) -> Sample:
        """Decode the image at this position of ``ids`` and its mask."""
        ...


def check_members(source: SegmentationSource) -> None:
    """Raise `TypeError` unless ``source`` has what a `SegmentationSource` has."""
    if not all(hasattr(source, member) for member in ("class_names", "ids", "class_areas", "load")):
        raise TypeError(
            f"source must have class_names, ids, class_areas and load, as a FolderSource has, "
            f"got {type(source).__name__}"
        )
