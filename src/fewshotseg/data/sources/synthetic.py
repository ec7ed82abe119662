"""Procedural images with many classes of textured objects, for tests and first runs without a download."""

from collections.abc import Mapping, Sequence
from itertools import dropwhile
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision import tv_tensors

from fewshotseg._checks import MAX_SIDE, as_list, check_at_least, shown
from fewshotseg.data.sources import _synthetic_scenes as scenes
from fewshotseg.data.sources._synthetic_looks import NUM_LOOKS, look
from fewshotseg.data.sources.index import count_classes
from fewshotseg.data.sources.source import Sample

if TYPE_CHECKING:  # pyright accepts a property for `SegmentationSource`, but not a cached_property
    from builtins import property as cached_property
else:
    from functools import cached_property


class SyntheticSource:
    """A source of images drawn on demand: one to four objects of different classes on a cluttered background.

    A class is a contour with a texture and two hues, such as "striped star". Its objects vary in position, size,
    rotation, aspect ratio, colour and light. They overlap each other, clutter and the edge of the image, but at least
    two fifths of each object's part inside the image are visible. Clutter has textures and colours too, but is
    background. Images mix classes, so that novel objects occur in the background of images of base classes.

    An image and its mask depend only on ``seed``, the index, ``num_classes``, ``size`` and ``border``: not on
    ``length``, the order of access or the machine. Classes depend only on their ids, so that sources with different
    seeds show different images of the same classes: one to train on, one to test on.

    Drawing an image of 128 x 128 takes about 5 ms.

    Args:
        length: The number of images. Any ``num_classes`` consecutive images show every class at least once.
        num_classes: The number of classes, at most 120; their ids are 1 to ``num_classes``.
        size: Height and width of all images, or one number for both; 32 or more.
        seed: Seed of all images, 0 or more.
        border: Number of pixels on both sides of every boundary between labels that become void, as on VOC's contours;
            0 by default. A wide border may hide a small object.

    Raises:
        ValueError: If a setting is out of range.
        TypeError: If a setting is not an integer.

    Example:
        >>> source = SyntheticSource(20, num_classes=5, size=(48, 64))
        >>> source.class_names[1], source.ids[3]
        ('striped star', 'synthetic-0-000003')
        >>> image, mask = source.load(3)
        >>> image.shape, mask.shape
        (torch.Size([3, 48, 64]), torch.Size([48, 64]))
        >>> (mask == 4).sum().item() == source.class_areas[3][4] > 0
        True
    """

    def __init__(
        self,
        length: int = 1000,
        *,
        num_classes: int = 20,
        size: int | tuple[int, int] = 128,
        seed: int = 0,
        border: int = 0,
    ) -> None:
        sides = [size] * 2 if isinstance(size, int | Real) else as_list("size", size, "one number or height and width")
        if len(sides) != 2:
            raise ValueError(f"size must be one number or height and width, got {shown(size)}")
        height = check_at_least("height of size", sides[0], 32, MAX_SIDE)
        self._size = (height, check_at_least("width of size", sides[1], 32, MAX_SIDE))
        self._length = check_at_least("length", length, 1)
        self._num_classes = check_at_least("num_classes", num_classes, 1, NUM_LOOKS)
        self._seed = check_at_least("seed", seed, 0)
        self._border = check_at_least("border", border, 0)

    @cached_property
    def class_names(self) -> Mapping[int, str]:
        """Class id -> texture and contour."""
        return {number: "{1} {0}".format(*look(number)) for number in range(1, self._num_classes + 1)}

    @cached_property
    def ids(self) -> Sequence[str]:
        """The id of each image, made of seed and index."""
        return tuple(f"synthetic-{self._seed}-{index:06}" for index in range(self._length))

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id -> number of pixels in the mask.

        The first access draws all masks without the images, in about 1 ms for each of 128 x 128, and keeps the counts.
        """
        return tuple(
            count_classes(torch.from_numpy(self._scene(index, mask_only=True)[1])) for index in range(self._length)
        )

    def load(self, index: int) -> Sample:
        """Draw the image at this index of ``ids`` and its mask.

        Raises:
            IndexError: If there is no such image.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"index must be from 0 to {self._length - 1}, got {index}")
        random, labels, shown = self._scene(index)
        image, mask = scenes.draw_image(random, shown, self._size), labels.astype(np.int64)
        return Sample(  # as_subclass keeps them on the CPU, whatever the default device
            torch.from_numpy(image).as_subclass(tv_tensors.Image), torch.from_numpy(mask).as_subclass(tv_tensors.Mask)
        )

    def _scene(self, index: int, *, mask_only: bool = False) -> tuple[scenes.Random, scenes.Bytes, list[scenes.Shown]]:
        random = scenes.Random(self._seed, index)
        layers = scenes.draw_layers(random, 1 + index % self._num_classes, self._num_classes, self._size)
        if mask_only:  # clutter behind all objects does not affect the mask
            layers = list(dropwhile(lambda layer: layer.class_id == 0, layers))
        labels, shown = scenes.arrange(layers, self._size)
        return random, scenes.add_border(labels, self._border), shown
