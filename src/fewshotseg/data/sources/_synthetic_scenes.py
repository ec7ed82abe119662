"""Procedural scenes: random layers of objects and clutter, painted from back to front."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fewshotseg.data.sources import _synthetic_looks as looks
from fewshotseg.data.sources._synthetic_looks import Array, rgb
from fewshotseg.data.sources.source import VOID

_MAX_OBJECTS = 4
_MIN_VISIBLE = 0.4  # smallest visible share of an object; a layer that would leave less is skipped
_COVERED = 0.5  # share of a pixel from which on it belongs to the layer

Pair = tuple[float, float]
Bytes = NDArray[np.uint8]
Patch = tuple[tuple[slice, slice], Array, Array, Array]
"""A layer in pixels: rows and columns of its window; ``(h, w)`` x and y on its own axes, in radii; cover, 0 to 1."""


class Layer(NamedTuple):
    """One flat object of a scene. Lengths are in units of the image's shorter side, angles in turns."""

    class_id: int  # 0 for clutter
    contour: str
    texture: str
    centre: Pair  # x to the right and y downwards, from the upper left corner
    radius: float  # of the disc of the same area
    turn: float
    stretch: float  # factor along the first axis; the second is divided by it
    frequency: float  # periods of the texture per radius
    texture_turn: float  # angle of the texture within the contour
    phase: Pair  # of the texture, in periods
    colours: Sequence[tuple[float, ...]]  # the two colours of the texture


Shown = tuple[Layer, Patch]


class Random:
    """Draws random numbers with plain arithmetic, as NumPy's may use fused operations that differ between machines."""

    def __init__(self, seed: int, index: int) -> None:
        self.stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(index,))))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from ``low`` up to ``high``."""
        return low + (high - low) * self.stream.random()

    def integer(self, stop: int) -> int:
        """Draw an integer from 0 to ``stop - 1``."""
        return int(self.stream.random() * stop)


def draw_layers(random: Random, first_class: int, num_classes: int, size: tuple[int, int]) -> list[Layer]:
    """Draw layers from back to front: clutter, one to four objects of different classes, and more clutter.

    There is always an object of ``first_class``.
    """
    extent = (size[1] / min(size), size[0] / min(size))
    layers = [_clutter(random, extent, 0.35, 0.8, contrast=0.15) for _ in range(random.integer(3))]
    layers += [_clutter(random, extent, 0.03, 0.11, contrast=0.35) for _ in range(4 + random.integer(5))]
    others = [class_id for class_id in range(1, num_classes + 1) if class_id != first_class]
    more = min(random.integer(_MAX_OBJECTS), random.integer(_MAX_OBJECTS))  # few objects more often than many
    chosen = [others.pop(random.integer(len(others))) for _ in range(min(more, len(others)))]
    centres: list[Pair] = []

    def distance(place: Pair) -> float:
        return min(((place[0] - x) ** 2 + (place[1] - y) ** 2 for x, y in centres), default=0.0)

    for class_id in (first_class, *chosen):
        places = [(extent[0] * random.uniform(0.1, 0.9), extent[1] * random.uniform(0.1, 0.9)) for _ in range(4)]
        centres.append(max(places, key=distance))
        layers.append(_object(random, class_id, centres[-1]))
    return layers + [_clutter(random, extent, 0.03, 0.09, contrast=0.35) for _ in range(random.integer(3))]


def _object(random: Random, class_id: int, centre: Pair) -> Layer:
    contour, texture, frequency, texture_turn, hues = looks.look(class_id)
    light = random.uniform(0.75, 1.15)
    first, second = (hue + random.uniform(-0.04, 0.04) for hue in hues)
    radius, turn, stretch = random.uniform(0.17, 0.34), random.uniform(0, 1), random.uniform(0.85, 1.18)
    frequency *= random.uniform(0.85, 1.15)
    phase = (random.uniform(0, 1), random.uniform(0, 1))
    bright = rgb(first, random.uniform(0.55, 0.85), light * random.uniform(0.8, 0.95))
    colours = (bright, rgb(second, random.uniform(0.55, 0.85), light * random.uniform(0.35, 0.6)))
    return Layer(class_id, contour, texture, centre, radius, turn, stretch, frequency, texture_turn, phase, colours)


def _clutter(random: Random, extent: Pair, smallest: float, largest: float, *, contrast: float) -> Layer:
    hue, saturation, light = random.uniform(0, 1), random.uniform(0.05, 0.4), random.uniform(0.4, 0.9)
    contour, texture = (list(names)[random.integer(len(names))] for names in (looks.CLUTTER, looks.TEXTURES))
    centre = (random.uniform(0, extent[0]), random.uniform(0, extent[1]))
    radius, turn, stretch = random.uniform(smallest, largest), random.uniform(0, 1), random.uniform(0.7, 1.4)
    frequency, texture_turn = random.uniform(0.7, 2.5), random.uniform(0, 1)
    phase = (random.uniform(0, 64), random.uniform(0, 64))
    second = rgb(hue + random.uniform(-contrast, contrast) / 2, saturation, light * (1 - random.uniform(0, contrast)))
    colours = (rgb(hue, saturation, light), second)
    return Layer(0, contour, texture, centre, radius, turn, stretch, frequency, texture_turn, phase, colours)


def arrange(layers: Iterable[Layer], size: tuple[int, int]) -> tuple[Bytes, list[Shown]]:
    """Compute ``(H, W)`` labels, and the layers that they show; a layer that would hide too much is skipped."""
    labels, shown = np.zeros(size, np.uint8), []
    spare: dict[int, int] = {}  # how many more pixels of each object may be hidden
    for layer in layers:
        patch = _patch(layer, size)
        window, _, _, cover = patch
        inside, below = cover >= _COVERED, labels[window]
        hidden = np.bincount(below[inside], minlength=256)
        left = {class_id: pixels - int(hidden[class_id]) for class_id, pixels in spare.items()}
        if min(left.values(), default=0) >= 0:
            below[inside] = layer.class_id
            shown.append((layer, patch))
            spare = left | ({layer.class_id: int(inside.sum() * (1 - _MIN_VISIBLE))} if layer.class_id else {})
    return labels, shown


def _patch(layer: Layer, size: tuple[int, int]) -> Patch:
    radius, stretch, radii = layer.radius * min(size), layer.stretch, looks.contour_radii(layer.contour)
    reach = radius * float(radii.max()) * max(stretch, 1 / stretch) + 1
    column, row = (position * min(size) - 0.5 for position in layer.centre)
    top, bottom = max(int(row - reach), 0), min(int(row + reach) + 2, size[0])
    left, right = max(int(column - reach), 0), min(int(column + reach) + 2, size[1])
    down = (np.arange(top, bottom, dtype=np.float32) - row)[:, None]
    across = np.arange(left, right, dtype=np.float32) - column
    cosine, sine = looks.unit_vector(layer.turn)
    x = across * (cosine / (radius * stretch)) + down * (sine / (radius * stretch))
    y = down * (cosine * stretch / radius) - across * (sine * stretch / radius)
    depth = radii[looks.direction_index(x, y)] - np.sqrt(x * x + y * y)
    cover = np.clip(depth * radius + 0.5, 0, 1)
    if layer.contour in looks.HOLES:
        middle, hole = looks.HOLES[layer.contour]
        depth = np.sqrt((x - middle) ** 2 + y * y) - hole
        cover = cover * np.clip(depth * radius + 0.5, 0, 1)
    return (slice(top, bottom), slice(left, right)), x, y, cover


def add_border(labels: Bytes, width: int) -> Bytes:
    """Make pixels void that have another label within ``width`` rows and columns."""
    around = sliding_window_view(np.pad(labels, width, mode="edge"), (2 * width + 1,) * 2)
    return np.where(around.min(axis=(2, 3)) == around.max(axis=(2, 3)), labels, np.uint8(VOID))


def paint(layer: Layer, patch: Patch, image: Array) -> None:
    """Blend a layer into the ``(3, H, W)`` image."""
    window, x, y, cover = patch
    share = looks.TEXTURES[layer.texture](*looks.turn_points(x, y, layer.texture_turn, layer.frequency, layer.phase))
    for channel, first, second in zip(image, *layer.colours, strict=True):
        below = channel[window]
        below += cover * (first + share * (second - first) - below)


def draw_image(random: Random, shown: Iterable[Shown], size: tuple[int, int]) -> Bytes:
    """Paint the image ``(3, H, W)``: clouds in three colours, the layers, a gradient of light, and noise."""
    across, down = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    clouds = []
    for frequency in (random.uniform(1, 3), random.uniform(4, 12)):
        turn, shift = random.uniform(0, 1), (random.uniform(0, 64), random.uniform(0, 64))
        points = looks.turn_points(across / min(size), down / min(size), turn, frequency, shift)
        clouds.append(looks.value_noise(*points))
    light = random.uniform(0.45, 0.95)
    colours = [
        rgb(random.uniform(0, 1), random.uniform(0.1, 0.45), light * random.uniform(0.75, 1.1)) for _ in range(3)
    ]
    channels = zip(*colours, strict=True)
    image = np.stack([a + clouds[0] * (b - a) + clouds[1] * (0.4 * (c - a)) for a, b, c in channels])
    for layer, patch in shown:
        paint(layer, patch, image)

    turn, slope = random.uniform(0, 1), random.uniform(0, 0.5) / max(size)
    falling, _ = looks.turn_points(across - size[1] / 2, down - size[0] / 2, turn, slope, (1, 0))
    lit = image * (falling * random.uniform(0.8, 1.15))
    noise = random.stream.random(image.shape, dtype=np.float32) - 0.5
    return np.asarray(np.clip(lit + noise * random.uniform(4, 20), 0, 255)).astype(np.uint8)
