"""Fills polygons, simplifies them, and joins holes to their outline."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewshotseg.annotations.outlines import Region, Ring


def fill_polygon(polygon: Ring, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the pixels whose middle lies inside a polygon, by the even-odd rule.

    Args:
        polygon: ``(N, 2)`` x and y. Pixel (x, y) covers the square from there to (x + 1, y + 1).
        size: Height and width of the mask; the polygon is clipped to it.

    Returns:
        ``(H, W)`` bool.

    Example:
        >>> fill_polygon(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]), (2, 3)).tolist()
        [[True, True, False], [False, False, False]]
    """
    height, width = size
    start, end = polygon, np.roll(polygon, -1, axis=0)
    top, bottom = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.ceil(top.clip(0, height) - 0.5).astype(np.intp)  # rows whose middle an edge crosses
    last = np.ceil(bottom.clip(0, height) - 0.5).astype(np.intp)
    count = (last - first).clip(min=0)
    edge = np.repeat(np.arange(len(polygon)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    crossing = start[edge, 0] + slope * (row + 0.5 - start[edge, 1])
    column = np.ceil(crossing.clip(0, width) - 0.5).astype(np.intp)
    crossed = np.zeros((height, width + 1), dtype=np.uint8)
    np.add.at(crossed, (row, column), 1)
    return np.asarray(np.bitwise_xor.accumulate(crossed[:, :width] & 1, axis=1).astype(bool))


def polygon_of(region: Region, tolerance: float) -> list[list[float]]:
    """Convert a region to one polygon of points ``[x, y]``.

    Holes are joined by cuts: the line goes from the outline to the hole, around it, and back the same way, so that
    filling leaves the hole empty.

    Args:
        region: A region of `regions_of`.
        tolerance: Largest distance in pixels of the simplified line from the edges of pixels.
    """
    outer = simplify(region.outer, tolerance)
    for hole in sorted(region.holes, key=lambda ring: float(ring[:, 0].min())):
        outer = _join(outer, simplify(hole, tolerance))
    points: list[list[float]] = outer.tolist()
    return points


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Remove points of a closed line that are at most ``tolerance`` from the rest (Douglas-Peucker).

    A line that would keep less than three points is not changed.
    """
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    far = int(np.square(ring - ring[0]).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    kept = np.zeros(len(closed), dtype=bool)
    kept[[0, far, -1]] = True
    parts = [(0, far), (far, len(ring))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    simple = closed[:-1][kept[:-1]]
    return simple if len(simple) >= 3 else ring


def _distances(points: Ring, start: Ring, end: Ring) -> NDArray[np.float64]:
    """Compute the distances of points from the line segment between two points, which may be equal."""
    along = end - start
    length = float(np.square(along).sum())
    share = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    return np.asarray(np.sqrt(np.square(points - start - share[:, None] * along).sum(axis=1)))


def _join(outer: Ring, hole: Ring) -> Ring:
    """Join two closed lines by a cut from the hole's leftmost corner to the nearest corner of the outer line.

    The hole is traced in the opposite direction, as some programs fill by the winding number, not by even and odd.
    """
    hole = hole[::-1]
    begin = int(hole[:, 0].argmin())
    near = int(np.square(outer - hole[begin]).sum(axis=1).argmin())
    around = np.roll(hole, -begin, axis=0)
    return np.concatenate([outer[: near + 1], around, around[:1], outer[near:]])


def as_points(pairs: Sequence[object]) -> Ring | None:
    """Convert ``[[x, y], ...]`` to an array; None if it is something else."""
    try:
        points = np.array(pairs, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return points if points.ndim == 2 and points.shape[1] == 2 else None
