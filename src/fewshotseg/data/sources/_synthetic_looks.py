"""Contours, textures and colours of procedural objects.

Sums, products, quotients and square roots are bit-identical on every machine; sines, cosines and powers are not, so
their results are rounded to steps of 1 / `_EXACT` before pixels depend on them.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32, but for the angles and radii of contours

_DIRECTIONS = 1024  # samples around a contour: finer than a pixel for objects up to about 300 pixels across
_EXACT = 2**16
_NOISE = np.random.Generator(np.random.PCG64(np.random.SeedSequence(0))).random((64, 64)).astype(np.float32)
_LATTICE = np.pad(_NOISE, (0, 1), mode="wrap")


def _star(angles: Array, points: int, inner: float) -> Array:
    """Compute the radii of a star with tips at radius 1 and notches at radius ``inner``."""
    half = math.pi / points
    folded = np.abs((angles + half) % (2 * half) - half)
    return np.asarray(inner * math.sin(half) / (np.sin(folded) + inner * np.sin(half - folded)))


def _bar(angles: Array, width: float) -> Array:
    return np.minimum(1 / (np.abs(np.cos(angles)) + 1e-9), width / (np.abs(np.sin(angles)) + 1e-9))


CONTOURS: dict[str, Callable[[Array], Array]] = {  # contours of classes: angle -> radius
    "star": lambda a: _star(a, 5, 0.42),
    "ring": np.ones_like,
    "cross": lambda a: np.maximum(_bar(a, 0.33), _bar(a + math.pi / 2, 0.33)),
    "blob": lambda a: 1 + 0.22 * np.sin(2 * a) + 0.2 * np.cos(3 * a + 1) + 0.1 * np.sin(5 * a),
    "square": lambda a: np.maximum(np.abs(np.cos(a)), np.abs(np.sin(a))) ** -0.8,
    "gear": lambda a: 1 + 0.16 * np.clip(4 * np.cos(9 * a), -1, 1),
    "crescent": np.ones_like,
    "triangle": lambda a: np.minimum(_star(a, 3, math.cos(math.pi / 3)), 0.8),
    "flower": lambda a: 1 + 0.3 * np.cos(6 * a),
    "oval": lambda a: 1 / np.sqrt(np.cos(a) ** 2 + 3.2 * np.sin(a) ** 2),
    "saw": lambda a: 0.65 + 0.5 * (a * 7 / (2 * math.pi) % 1),
    "peanut": lambda a: 1 + 0.5 * np.cos(2 * a),
}
CLUTTER: dict[str, Callable[[Array], Array]] = {  # contours of clutter, which has no class
    "disc": np.ones_like,
    "bar": lambda a: _bar(a, 0.22),
    "diamond": lambda a: _star(a, 2, 0.5),
    "pentagon": lambda a: _star(a, 5, math.cos(math.pi / 5)),
}
HOLES = {"ring": (0.0, 0.55), "crescent": (0.5, 0.78)}  # x of the centre and radius of a round hole


@cache
def contour_radii(name: str) -> Array:
    """Compute a contour's radii in the directions of `direction_index`, scaled to enclose the area of the unit disc."""
    side = (np.arange(_DIRECTIONS) + 0.5) * 4 / _DIRECTIONS - 1
    y = 1 - np.abs(side - 1)
    angles = np.arctan2(y, np.copysign(1 - np.abs(y), 1 - side))
    radii = (CONTOURS | CLUTTER)[name](angles)
    steps = np.diff(np.unwrap(angles), append=angles[0] + 2 * np.pi)
    radii = radii / math.sqrt((radii**2 * steps).sum() / (2 * np.pi))
    return (np.rint(radii * _EXACT) / _EXACT).astype(np.float32)


def direction_index(x: Array, y: Array) -> NDArray[np.int32]:
    """Compute the index in `contour_radii` of the direction of points, along a diamond, which needs no arctangent."""
    side = y / (np.abs(x) + np.abs(y) + 1e-9)
    return ((np.where(x < 0, 2 - side, side) + 1) * (_DIRECTIONS / 4)).astype(np.int32) % _DIRECTIONS


def unit_vector(turn: float) -> tuple[float, float]:
    """Compute cosine and sine of an angle in turns, rounded."""
    angle = 2 * math.pi * turn
    return round(math.cos(angle) * _EXACT) / _EXACT, round(math.sin(angle) * _EXACT) / _EXACT


def turn_points(x: Array, y: Array, turn: float, scale: float, shift: tuple[float, float]) -> tuple[Array, Array]:
    """Rotate, scale and then shift points."""
    cosine, sine = (scale * part for part in unit_vector(turn))
    return x * cosine + y * sine + shift[0], y * cosine - x * sine + shift[1]


def rgb(hue: float, saturation: float, value: float) -> tuple[float, ...]:
    """Convert HSV, each from 0 to 1, to RGB from 0 to 255; hues repeat after 1."""
    distances = (min(max(abs((hue * 6 + shift) % 6 - 3) - 1, 0.0), 1.0) for shift in (3.0, 1.0, 5.0))
    return tuple(255 * value * (1 - saturation * distance) for distance in distances)


def value_noise(x: Array, y: Array) -> Array:
    """Compute smooth noise from 0 to 1 with features of size 1, the same at every call."""
    left, top = np.floor(x), np.floor(y)
    right, down = (share * share * (3 - 2 * share) for share in (x - left, y - top))
    column, row = left.astype(np.int32) % 64, top.astype(np.int32) % 64
    upper, lower = (_between(_LATTICE[i, column], _LATTICE[i, column + 1], right) for i in (row, row + 1))
    return _between(upper, lower, down)


def _between(first: Array, second: Array, share: Array) -> Array:
    return np.asarray(first + (second - first) * share)


def _wave(x: Array) -> Array:
    """Compute a triangle wave: 1 at integers, 0 halfway between."""
    return np.asarray(np.abs(x - np.floor(x) - 0.5) * 2)


def _sharpen(x: Array, slope: float = 6.0, level: float = 0.5) -> Array:
    return np.asarray(np.clip((x - level) * slope + 0.5, 0, 1))


def _either(first: Array, second: Array) -> Array:
    return first + second - 2 * first * second


TEXTURES: dict[str, Callable[[Array, Array], Array]] = {  # x, y in periods -> share of the second colour
    "striped": lambda x, y: _sharpen(_wave(x)),
    "checked": lambda x, y: _either(_sharpen(_wave(x)), _sharpen(_wave(y))),
    "dotted": lambda x, y: _sharpen((1 - _wave(x)) ** 2 + (1 - _wave(y)) ** 2, 4, 0.35),
    "zigzag": lambda x, y: _sharpen(_wave(y + _wave(x))),
    "bricked": lambda x, y: np.maximum(
        _sharpen(_wave(x / 2 + np.floor(y) % 2 * 0.5), 10, 0.86), _sharpen(_wave(y), 6, 0.72)
    ),
    "marbled": lambda x, y: _sharpen(_wave(x / 2 + 2 * value_noise(x, y)), 3),
    "banded": lambda x, y: _sharpen(_wave(np.sqrt(x * x + y * y))),
    "netted": lambda x, y: np.maximum(_sharpen(_wave(x), 8, 0.75), _sharpen(_wave(y), 8, 0.75)),
    "speckled": lambda x, y: _sharpen(value_noise(x * 2.5, y * 2.5), 8, 0.6),
    "shaded": lambda x, y: _sharpen(_wave(x / 6), 1.3),
}
NUM_LOOKS = len(CONTOURS) * len(TEXTURES)


def look(class_id: int) -> tuple[str, str, float, float, tuple[float, float]]:
    """Return what all objects of a class share: contour, texture, its periods per radius, its direction, its two hues.

    No two classes share both contour and texture: each pass over the contours pairs them with other textures.
    """
    lap, contour = divmod(class_id - 1, len(CONTOURS))
    # Multiples of irrational numbers spread the hues and directions of the first classes evenly.
    hue, other, turn = ((class_id - 1) * step % 1 for step in (0.618034, 0.754878, 0.569840))
    texture = list(TEXTURES)[(contour + 3 * lap) % len(TEXTURES)]
    return list(CONTOURS)[contour], texture, 1.5 + 0.9 * other, turn, (hue, (hue + 0.25 + 0.5 * other) % 1)
