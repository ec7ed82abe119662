"""Procedural scenes: layers of objects and clutter on a backdrop, drawn at random and painted back to front."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshotseg.data.sources._synthetic_looks import (
    CLUTTER,
    HOLES,
    LOOKS,
    TEXTURES,
    Array,
    contour_radii,
    direction_index,
    rgb,
    unit_vector,
    value_noise,
)

_MAX_OBJECTS = 4
_MIN_VISIBLE = 0.4  # of an object: a layer that would leave less is left out
_COVERED = 0.5  # of a pixel: from here on it belongs to the layer

Colour = tuple[float, float, float]


class Layer(NamedTuple):
    """One flat thing in a scene. Lengths are in units of the image's shorter side.

    Attributes:
        class_id: 0 for clutter.
        contour: A key of `CONTOURS` or `CLUTTER`.
        texture: A key of `TEXTURES`.
        centre: x to the right and y downwards, from the upper left corner.
        radius: Of the disc of the same area.
        turn: Rotation, in turns.
        stretch: Along its first axis; the second shrinks as much.
        frequency: Periods of the texture over the radius.
        texture_turn: Direction of the texture within the contour, in turns.
        phase: Offset of the texture, in periods.
        colours: The texture's two.
    """

    class_id: int
    contour: str
    texture: str
    centre: tuple[float, float]
    radius: float
    turn: float
    stretch: float
    frequency: float
    texture_turn: float
    phase: tuple[float, float]
    colours: tuple[Colour, Colour]


class Patch(NamedTuple):
    """Where a layer lies on the pixels.

    Attributes:
        window: Rows and columns of the rectangle around it.
        x: ``(h, w)`` positions in the layer's own axes, in radii.
        y: Likewise.
        cover: ``(h, w)``, the share of each pixel that it covers.
    """

    window: tuple[slice, slice]
    x: Array
    y: Array
    cover: Array


class Random:
    """Draws from a stream by arithmetic of its own: NumPy's may be fused, and so differ, on some machines."""

    def __init__(self, seed: int, index: int) -> None:
        self._stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(index,))))

    def uniform(self, low: float, high: float) -> float:
        """A number from ``low`` up to ``high``."""
        return low + (high - low) * self._stream.random()

    def integer(self, stop: int) -> int:
        """A whole number below ``stop``."""
        return int(self._stream.random() * stop)

    def array(self, *shape: int) -> Array:
        """Numbers from 0 to 1."""
        return self._stream.random(shape, dtype=np.float32)


def draw_scene(random: Random, first_class: int, num_classes: int, size: tuple[int, int]) -> list[Layer]:
    """Layers from back to front: clutter, one to four objects of different classes, sometimes clutter in front.

    Args:
        random: What to draw from.
        first_class: The class of the rearmost object, which is always there.
        num_classes: The others' classes are up to this one.
        size: Height and width in pixels; only their ratio counts.
    """
    height, width = size
    extent = (width / min(size), height / min(size))
    layers = [_clutter(random, extent, 0.35, 0.8, contrast=0.15) for _ in range(random.integer(3))]
    layers += [_clutter(random, extent, 0.03, 0.11, contrast=0.35) for _ in range(4 + random.integer(5))]
    class_ids = [first_class]
    others = [class_id for class_id in range(1, num_classes + 1) if class_id != first_class]
    more = min(random.integer(_MAX_OBJECTS), random.integer(_MAX_OBJECTS))  # few objects more often than many
    for _ in range(min(more, len(others))):
        class_ids.append(others.pop(random.integer(len(others))))
    centres: list[tuple[float, float]] = []
    for class_id in class_ids:
        centres.append(_free_place(random, extent, centres))
        layers.append(_object(random, class_id, centres[-1]))
    layers += [_clutter(random, extent, 0.03, 0.09, contrast=0.35) for _ in range(random.integer(3))]
    return layers


def _object(random: Random, class_id: int, centre: tuple[float, float]) -> Layer:
    look = LOOKS[class_id - 1]
    light = random.uniform(0.75, 1.15)
    first, second = (hue + random.uniform(-0.04, 0.04) for hue in look.hues)
    return Layer(
        class_id=class_id,
        contour=look.contour,
        texture=look.texture,
        centre=centre,
        radius=random.uniform(0.17, 0.34),
        turn=random.uniform(0, 1),
        stretch=random.uniform(0.85, 1.18),
        frequency=look.frequency * random.uniform(0.85, 1.15),
        texture_turn=look.turn,
        phase=(random.uniform(0, 1), random.uniform(0, 1)),
        colours=(
            rgb(first, random.uniform(0.55, 0.85), light * random.uniform(0.8, 0.95)),
            rgb(second, random.uniform(0.55, 0.85), light * random.uniform(0.35, 0.6)),
        ),
    )


def _clutter(random: Random, extent: tuple[float, float], smallest: float, largest: float, *, contrast: float) -> Layer:
    hue, saturation, light = random.uniform(0, 1), random.uniform(0.05, 0.4), random.uniform(0.4, 0.9)
    return Layer(
        class_id=0,
        contour=list(CLUTTER)[random.integer(len(CLUTTER))],
        texture=list(TEXTURES)[random.integer(len(TEXTURES))],
        centre=(random.uniform(0, extent[0]), random.uniform(0, extent[1])),
        radius=random.uniform(smallest, largest),
        turn=random.uniform(0, 1),
        stretch=random.uniform(0.7, 1.4),
        frequency=random.uniform(0.7, 2.5),
        texture_turn=random.uniform(0, 1),
        phase=(random.uniform(0, 64), random.uniform(0, 64)),
        colours=(
            rgb(hue, saturation, light),
            rgb(hue + random.uniform(-contrast, contrast) / 2, saturation, light * (1 - random.uniform(0, contrast))),
        ),
    )


def _free_place(
    random: Random, extent: tuple[float, float], taken: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Of a few places the one farthest from all that are taken."""
    width, height = extent
    places = [(width * random.uniform(0.1, 0.9), height * random.uniform(0.1, 0.9)) for _ in range(4)]
    return max(places, key=lambda p: min(((p[0] - x) ** 2 + (p[1] - y) ** 2 for x, y in taken), default=0.0))


def visible_layers(layers: Sequence[Layer], labels: NDArray[np.uint8]) -> Iterator[tuple[Layer, Patch]]:
    """Write layers into the ``(H, W)`` labels back to front, without those that would hide an object too far."""
    spare: dict[int, int] = {}  # how many more pixels of each object may be hidden
    for layer in layers:
        patch = _patch(layer, labels.shape)
        inside = patch.cover >= _COVERED
        below = labels[patch.window]
        hidden = np.bincount(below[inside], minlength=256)
        if any(hidden[class_id] > pixels for class_id, pixels in spare.items()):
            continue
        for class_id in spare:
            spare[class_id] -= int(hidden[class_id])
        below[inside] = layer.class_id
        if layer.class_id:
            spare[layer.class_id] = int(inside.sum() * (1 - _MIN_VISIBLE))
        yield layer, patch


def _patch(layer: Layer, size: tuple[int, ...]) -> Patch:
    height, width = size
    scale = min(size)
    radius = layer.radius * scale
    radii = contour_radii(layer.contour)
    reach = radius * float(radii.max()) * max(layer.stretch, 1 / layer.stretch) + 1
    column, row = layer.centre[0] * scale - 0.5, layer.centre[1] * scale - 0.5
    top, bottom = max(int(row - reach), 0), min(int(row + reach) + 2, height)
    left, right = max(int(column - reach), 0), min(int(column + reach) + 2, width)
    down = (np.arange(top, bottom, dtype=np.float32) - row)[:, None]
    across = np.arange(left, right, dtype=np.float32) - column
    cosine, sine = unit_vector(layer.turn)
    x = across * (cosine / (radius * layer.stretch)) + down * (sine / (radius * layer.stretch))
    y = down * (cosine * layer.stretch / radius) - across * (sine * layer.stretch / radius)
    cover = _share(radii[direction_index(x, y)] - np.sqrt(x * x + y * y), radius)
    if layer.contour in HOLES:
        middle, hole = HOLES[layer.contour]
        cover = cover * _share(np.sqrt((x - middle) ** 2 + y * y) - hole, radius)
    return Patch((slice(top, bottom), slice(left, right)), x, y, cover)


def _share(depth: Array, radius: float) -> Array:
    share: Array = np.clip(depth * radius + 0.5, 0, 1)
    return share


def paint(layer: Layer, patch: Patch, image: Array) -> None:
    """Blend a layer into the ``(3, H, W)`` image."""
    cosine, sine = unit_vector(layer.texture_turn)
    cosine, sine = cosine * layer.frequency, sine * layer.frequency
    share = TEXTURES[layer.texture](
        patch.x * cosine + patch.y * sine + layer.phase[0],
        patch.y * cosine - patch.x * sine + layer.phase[1],
    )
    rows, columns = patch.window
    for channel, first, second in zip(image, *layer.colours, strict=True):
        below = channel[rows, columns]
        below += patch.cover * (first + share * (second - first) - below)


def draw_backdrop(random: Random, size: tuple[int, int]) -> Array:
    """``(3, H, W)`` of clouds in three colours, from 0 to 255."""
    scale = min(size)
    across = np.arange(size[1], dtype=np.float32) / scale
    down = np.arange(size[0], dtype=np.float32)[:, None] / scale
    shares = []
    for frequency in (random.uniform(1, 3), random.uniform(4, 12)):
        cosine, sine = unit_vector(random.uniform(0, 1))
        x = across * (cosine * frequency) + down * (sine * frequency) + random.uniform(0, 64)
        y = down * (cosine * frequency) - across * (sine * frequency) + random.uniform(0, 64)
        shares.append(value_noise(x, y))
    light = random.uniform(0.45, 0.95)
    colours = [
        rgb(random.uniform(0, 1), random.uniform(0.1, 0.45), light * random.uniform(0.75, 1.1)) for _ in range(3)
    ]
    return np.stack(
        [
            first + shares[0] * (second - first) + shares[1] * (0.4 * (third - first))
            for first, second, third in zip(*colours, strict=True)
        ]
    )


def photograph(random: Random, image: Array) -> NDArray[np.uint8]:
    """The ``(3, H, W)`` image in light that falls off to one side, with noise, rounded to bytes."""
    height, width = image.shape[1:]
    cosine, sine = unit_vector(random.uniform(0, 1))
    slope = random.uniform(0, 0.5) / max(height, width)
    across = (np.arange(width, dtype=np.float32) - width / 2) * (cosine * slope)
    down = (np.arange(height, dtype=np.float32) - height / 2) * (sine * slope)
    light = (across + down[:, None] + 1) * random.uniform(0.8, 1.15)
    lit = image * light + (random.array(3, height, width) - 0.5) * random.uniform(4, 20)
    photo: NDArray[np.uint8] = np.clip(lit, 0, 255).astype(np.uint8)
    return photo
