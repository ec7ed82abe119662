"""The protocol of data sets: images with class masks, accessed by index."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torchvision import tv_tensors

VOID = 255
"""The value of void pixels, which are never scored. No class has this id."""


class Sample(NamedTuple):
    """One image with its class mask.

    Attributes:
        image: ``(3, H, W)`` uint8, RGB.
        mask: ``(H, W)`` int64, class ids; 0 background, 255 void.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask


class SegmentationSource(Protocol):
    """Images with class masks. Episodes can be drawn from any object with these four members.

    Attributes:
        class_names: Class id (1 and up, never 255) -> name.
        ids: An id for each image, in a fixed order, the same on every machine.
        class_areas: For each image, class id -> number of pixels in the stored mask; known without decoding.
    """

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class id -> name."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """The id of each image."""
        ...

    @property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id -> number of pixels."""
        ...

    def load(self, index: int) -> Sample:
        """Decode the image at this index of ``ids`` and its mask."""
        ...


def check_members(source: SegmentationSource) -> None:
    """Raise `TypeError` unless ``source`` has the members of `SegmentationSource`."""
    if not all(hasattr(source, member) for member in ("class_names", "ids", "class_areas", "load")):
        raise TypeError(
            f"source must have class_names, ids, class_areas and load, as a FolderSource has, "
            f"got {type(source).__name__}"
        )
