"""Procedural images with many classes of textured objects: data for tests and first runs, without a download."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torchvision import tv_tensors

from fewshotseg._checks import check_at_least
from fewshotseg.data.sources._synthetic_looks import LOOKS
from fewshotseg.data.sources._synthetic_scenes import (
    Layer,
    Random,
    draw_backdrop,
    draw_scene,
    paint,
    photograph,
    visible_layers,
)
from fewshotseg.data.sources.source import VOID, Sample


class SyntheticSource:
    """Images made on demand: one to four objects of different classes on a cluttered background.

    A class is a contour with a texture and two hues, such as "striped star". Its objects vary in place, size,
    rotation, proportions, colour and light; they stand behind each other, behind clutter and beyond the edge of the
    image, but at least two fifths of what lies within it can be seen. Clutter has textures and colours as well, but
    is background. Images mix classes, so that novel objects stand in the background of images of base classes.

    An image and its mask depend on ``seed``, the index, ``num_classes``, ``size`` and ``border`` and on nothing else:
    not on ``length``, the order of access or the machine. Classes depend on their ids alone, so that sources of
    different seeds hold different images of the same classes: one to train on, one to test on.

    An image of 128 x 128 takes about 5 ms to make. It is a `SegmentationSource`.

    Args:
        length: The number of images. Any ``num_classes`` images in a row hold every class at least once.
        num_classes: Classes have the ids 1 to ``num_classes``, at most 120.
        size: Height and width of all images, or one number for both; 32 or more.
        seed: Of all images, 0 or more.
        border: This many pixels on both sides of every boundary between labels become void, as on VOC's contours.
            By default none: every pixel has its exact label. A wide border may swallow a small object.

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
        check_at_least("length", length, 1)
        check_at_least("num_classes", num_classes, 1)
        if num_classes > len(LOOKS):
            raise ValueError(f"num_classes must be at most {len(LOOKS)}, got {num_classes}")
        check_at_least("seed", seed, 0)
        check_at_least("border", border, 0)
        self._length = length
        self._num_classes = num_classes
        self._size = _height_and_width(size)
        self._seed = seed
        self._border = border

    @cached_property
    def class_names(self) -> Mapping[int, str]:
        """Class id to texture and contour."""
        return {class_id: look.name for class_id, look in enumerate(LOOKS[: self._num_classes], start=1)}

    @cached_property
    def ids(self) -> Sequence[str]:
        """A name for each image, made of seed and index."""
        return tuple(f"synthetic-{self._seed}-{index:06}" for index in range(self._length))

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id to its number of pixels in the mask.

        The first access draws all masks, without the images, about 1 ms for each of 128 x 128, and keeps the numbers.
        """
        return tuple(self._areas(index) for index in range(self._length))

    def load(self, index: int) -> Sample:
        """Make the image at this position of ``ids`` and its mask.

        Args:
            index: From 0 to ``length - 1``.

        Raises:
            IndexError: If there is no such image.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"index must be from 0 to {self._length - 1}, got {index}")
        random, layers, labels = self._scene(index)
        image = draw_backdrop(random, self._size)
        for layer, patch in visible_layers(layers, labels):
            paint(layer, patch, image)
        mask = _void_borders(labels, self._border).astype(np.int64)
        return Sample(
            tv_tensors.Image(torch.from_numpy(photograph(random, image))),
            tv_tensors.Mask(torch.from_numpy(mask)),
        )

    def _areas(self, index: int) -> dict[int, int]:
        _, layers, labels = self._scene(index)
        while layers[0].class_id == 0:  # clutter behind all objects leaves no trace in a mask
            del layers[0]
        for _ in visible_layers(layers, labels):
            pass
        counts = np.bincount(_void_borders(labels, self._border).ravel(), minlength=VOID).tolist()
        return {class_id: counts[class_id] for class_id in range(1, VOID) if counts[class_id]}

    def _scene(self, index: int) -> tuple[Random, list[Layer], NDArray[np.uint8]]:
        random = Random(self._seed, index)
        layers = draw_scene(random, 1 + index % self._num_classes, self._num_classes, self._size)
        return random, layers, np.zeros(self._size, np.uint8)


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size must be one number or height and width, got {size!r}")
    height, width = pair
    check_at_least("height of size", height, 32)
    check_at_least("width of size", width, 32)
    return height, width


def _void_borders(labels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The labels, void where another label is at most ``width`` rows and columns away."""
    if width == 0:
        return labels
    neighbours = sliding_window_view(np.pad(labels, width, mode="edge"), (2 * width + 1, 2 * width + 1))
    return np.where(neighbours.min(axis=(2, 3)) == neighbours.max(axis=(2, 3)), labels, np.uint8(VOID))
