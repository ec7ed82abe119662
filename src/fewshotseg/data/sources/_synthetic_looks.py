"""What procedural objects look like: contours in polar form, textures on the plane, colours.

Additions, products, quotients and square roots are the same on every machine to the last bit; sines, cosines and
powers are not. So whatever comes from the latter is rounded to `_EXACT` steps before pixels depend on it.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32 throughout

_DIRECTIONS = 1024  # around a contour: finer than a pixel up to objects of some 300 pixels across
_EXACT = 2**16


@cache
def contour_radii(name: str) -> Array:
    """Radii of a contour in all directions of `direction_index`, scaled so that it encloses the unit disc's area."""
    side = (np.arange(_DIRECTIONS) + 0.5) * 4 / _DIRECTIONS - 1
    x = np.where(side < 1, 1 - np.abs(side), np.abs(side - 2) - 1)
    y = np.where(side < 1, side, 2 - side)
    angles = np.arctan2(y, x)
    radii = (CONTOURS | CLUTTER)[name](angles)
    steps = np.diff(np.unwrap(angles), append=angles[0] + 2 * np.pi)
    radii = radii / math.sqrt((radii**2 * steps).sum() / (2 * np.pi))
    table: Array = (np.rint(radii * _EXACT) / _EXACT).astype(np.float32)
    table.flags.writeable = False
    return table


def direction_index(x: Array, y: Array) -> NDArray[np.int32]:
    """The entry of `contour_radii` for the direction of points, found along a diamond, without a trigonometric."""
    side = y / (np.abs(x) + np.abs(y) + 1e-9)
    side = np.where(x < 0, 2 - side, side)
    return ((side + 1) * (_DIRECTIONS / 4)).astype(np.int32) % _DIRECTIONS


def unit_vector(turn: float) -> tuple[float, float]:
    """Cosine and sine of an angle in turns, rounded."""
    angle = 2 * math.pi * turn
    return round(math.cos(angle) * _EXACT) / _EXACT, round(math.sin(angle) * _EXACT) / _EXACT


def rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """A colour from 0 to 255 a channel; ``saturation`` and ``value`` from 0 to 1, hues repeat after 1."""
    red, green, blue = (
        255 * value * (1 - saturation * min(max(abs((hue * 6 + shift) % 6 - 3) - 1, 0.0), 1.0))
        for shift in (3.0, 1.0, 5.0)
    )
    return red, green, blue


def value_noise(x: Array, y: Array) -> Array:
    """Smooth noise from 0 to 1 with features of size 1, the same at every call."""
    left, top = np.floor(x), np.floor(y)
    right_share, bottom_share = _smooth(x - left), _smooth(y - top)
    lattice = _lattice()
    column, row = left.astype(np.int32) % 64, top.astype(np.int32) % 64
    next_column, next_row = (column + 1) % 64, (row + 1) % 64
    upper, lower = lattice[row, column], lattice[next_row, column]
    upper = upper + (lattice[row, next_column] - upper) * right_share
    lower = lower + (lattice[next_row, next_column] - lower) * right_share
    noise: Array = upper + (lower - upper) * bottom_share
    return noise


@cache
def _lattice() -> Array:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(0)))
    return generator.random((64, 64)).astype(np.float32)


def _smooth(share: Array) -> Array:
    return share * share * (3 - 2 * share)


def _star(points: int, inner: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Straight edges between tips at radius 1 and notches at ``inner``; with a cosine for that, a polygon."""
    half = math.pi / points

    def radii(angles: NDArray[np.float64]) -> NDArray[np.float64]:
        folded = np.abs((angles + half) % (2 * half) - half)
        return inner * math.sin(half) / (np.sin(folded) + inner * np.sin(half - folded))

    return radii


def _bar(angles: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return np.minimum(1 / (np.abs(np.cos(angles)) + 1e-9), width / (np.abs(np.sin(angles)) + 1e-9))


def _polygon(corners: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return _star(corners, math.cos(math.pi / corners))


CONTOURS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "star": _star(5, 0.42),
    "ring": np.ones_like,
    "cross": lambda a: np.maximum(_bar(a, 0.33), _bar(a + math.pi / 2, 0.33)),
    "blob": lambda a: 1 + 0.22 * np.sin(2 * a) + 0.2 * np.cos(3 * a + 1) + 0.1 * np.sin(5 * a),
    "square": lambda a: np.maximum(np.abs(np.cos(a)), np.abs(np.sin(a))) ** -0.8,
    "gear": lambda a: 1 + 0.16 * np.clip(4 * np.cos(9 * a), -1, 1),
    "crescent": np.ones_like,
    "triangle": lambda a: np.minimum(_polygon(3)(a), 0.8),
    "flower": lambda a: 1 + 0.3 * np.cos(6 * a),
    "oval": lambda a: 1 / np.sqrt(np.cos(a) ** 2 + 3.2 * np.sin(a) ** 2),
    "saw": lambda a: 0.65 + 0.5 * (a * 7 / (2 * math.pi) % 1),
    "peanut": lambda a: 1 + 0.5 * np.cos(2 * a),
}
"""Contours of classes: name to radius by angle."""

CLUTTER: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "disc": np.ones_like,
    "bar": lambda a: _bar(a, 0.22),
    "diamond": _star(2, 0.5),
    "pentagon": _polygon(5),
}
"""Contours of what belongs to no class."""

HOLES = {"ring": (0.0, 0.55), "crescent": (0.5, 0.78)}
"""Contour name to the centre, on the x axis, and the radius of a round hole."""


def _wave(x: Array) -> Array:
    """A triangle wave: 1 at whole numbers, 0 halfway between."""
    wave: Array = np.abs(x - np.floor(x) - 0.5) * 2
    return wave


def _sharpen(x: Array, slope: float = 6.0, level: float = 0.5) -> Array:
    sharp: Array = np.clip((x - level) * slope + 0.5, 0, 1)
    return sharp


def _checked(x: Array, y: Array) -> Array:
    first, second = _sharpen(_wave(x)), _sharpen(_wave(y))
    return first + second - 2 * first * second


def _bricked(x: Array, y: Array) -> Array:
    shift = np.floor(y) % 2 * 0.5
    return np.maximum(_sharpen(_wave(x / 2 + shift), 10, 0.86), _sharpen(_wave(y), 6, 0.72))


TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "striped": lambda x, y: _sharpen(_wave(x)),
    "checked": _checked,
    "dotted": lambda x, y: _sharpen((1 - _wave(x)) ** 2 + (1 - _wave(y)) ** 2, 4, 0.35),
    "zigzag": lambda x, y: _sharpen(_wave(y + _wave(x))),
    "bricked": _bricked,
    "marbled": lambda x, y: _sharpen(_wave(x / 2 + 2 * value_noise(x, y)), 3),
    "banded": lambda x, y: _sharpen(_wave(np.sqrt(x * x + y * y))),
    "netted": lambda x, y: np.maximum(_sharpen(_wave(x), 8, 0.75), _sharpen(_wave(y), 8, 0.75)),
    "speckled": lambda x, y: _sharpen(value_noise(x * 2.5, y * 2.5), 8, 0.6),
    "shaded": lambda x, y: _sharpen(_wave(x / 6), 1.3),
}
"""Texture name to the share of the second colour, from 0 to 1, at points in units of the texture's period."""


class Look(NamedTuple):
    """What all objects of a class have in common.

    Attributes:
        contour: A key of `CONTOURS`.
        texture: A key of `TEXTURES`.
        frequency: Periods of the texture over the object's radius.
        turn: Direction of the texture within the object, in turns.
        hues: Of the texture's two colours, from 0 to 1.
    """

    contour: str
    texture: str
    frequency: float
    turn: float
    hues: tuple[float, float]

    @property
    def name(self) -> str:
        """Texture and contour, as in "striped star"."""
        return f"{self.texture} {self.contour}"


def _look(number: int) -> Look:
    """Laps through the contours, each with other textures, so that no two looks have both in common."""
    lap, contour = divmod(number, len(CONTOURS))
    # Multiples of irrational numbers keep any first few classes apart.
    hue, other, turn = (number * step % 1 for step in (0.618034, 0.754878, 0.569840))
    return Look(
        contour=list(CONTOURS)[contour],
        texture=list(TEXTURES)[(contour + 3 * lap) % len(TEXTURES)],
        frequency=1.5 + 0.9 * other,
        turn=turn,
        hues=(hue, (hue + 0.25 + 0.5 * other) % 1),
    )


LOOKS = [_look(number) for number in range(len(CONTOURS) * len(TEXTURES))]
"""The look of class 1, of class 2, and so on."""
