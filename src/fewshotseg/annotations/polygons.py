"""Fills polygons, simplifies them, and joins holes to their outline."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewshotseg.annotations.outlines import Region, Ring

CROSSINGS = 2**18
"""Number of crossings of edges with rows that are computed at a time, so that memory does not grow with them."""

NEAR = 1024
"""Number of corners that are compared with a hole at first, to find the nearest."""


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
    after = np.roll(polygon, -1, axis=0)
    falls = (polygon[:, 1] <= after[:, 1])[:, None]
    top, bottom = np.where(falls, polygon, after), np.where(falls, after, polygon)  # there and back are the same
    first = np.ceil(top[:, 1].clip(0, height) - 0.5).astype(np.intp)  # rows whose middle an edge crosses
    last = np.ceil(bottom[:, 1].clip(0, height) - 0.5).astype(np.intp)
    ends = np.cumsum(last - first)
    crossed = np.zeros((height, width + 1), dtype=np.uint8)
    total = int(ends.max(initial=0))
    for begin in range(0, total, CROSSINGS):
        number = np.arange(begin, min(begin + CROSSINGS, total))
        edge = np.searchsorted(ends, number, side="right")
        row = last[edge] - (ends[edge] - number)
        (left, above), (right, below) = top[edge].T, bottom[edge].T
        crossing = left + (right - left) / (below - above) * (row + 0.5 - above)
        column = np.ceil(crossing.clip(0, width) - 0.5).astype(np.intp)
        np.add.at(crossed.reshape(-1), row * (width + 1) + column, np.uint8(1))
    return np.asarray(np.bitwise_xor.accumulate(crossed[:, :width] & 1, axis=1).astype(bool))


def polygon_of(region: Region, tolerance: float) -> list[list[float]]:
    """Convert a region to one polygon of points ``[x, y]``.

    Holes are joined by cuts: the line goes from the outline to the hole, around it, and back the same way, so that
    filling leaves the hole empty. The cut leads from the hole's leftmost corner to the nearest corner further left.
    Holes are traced in the opposite direction, as some programs fill by the winding number, not by even and odd.

    Args:
        region: A region of `regions_of`.
        tolerance: Largest distance in pixels of the simplified line from the edges of pixels.
    """
    outer, holes = simplify(region.outer, tolerance), []
    for hole in region.holes:
        ring = simplify(hole, tolerance)[::-1]
        holes.append(np.roll(ring, -int(ring[:, 0].argmin()), axis=0))
    corners = np.concatenate([outer, *holes])
    starts = np.cumsum([len(outer), *map(len, holes)]).tolist()
    cuts: dict[int, list[range]] = {}  # corner -> the corners of the holes that are joined to it
    for near, start, end in zip(_nearest(corners, len(outer), starts[:-1]), starts, starts[1:], strict=False):
        cuts.setdefault(near, []).append(range(start, end))
    line: list[int] = []
    ahead = [*range(len(outer))][::-1]
    while ahead:
        line.append(corner := ahead.pop())
        for hole_corners in cuts.pop(corner, []):
            ahead += [corner, hole_corners[0], *hole_corners[::-1]]
    points: list[list[float]] = corners[line].tolist()
    return points


def _nearest(corners: Ring, outer: int, starts: Sequence[int]) -> list[int]:
    """Find the corner to join each hole to: the nearest one further left, else the nearest of the ``outer`` first.

    Args:
        corners: All corners.
        outer: Number of those of the outline, which come first.
        starts: For each hole the number of its leftmost corner.
    """
    order = np.argsort(corners[:, 0], kind="stable")
    by_column = corners[order]
    found: list[int] = []
    for start in starts:
        corner, near = corners[start], NEAR
        end = int(np.searchsorted(by_column[:, 0], corner[0]))
        among = by_column[max(end - near, 0) : end] if end else corners[:outer]
        squares = np.square(among - corner).sum(axis=1)
        while len(among) < end and squares.min() > np.square(corner[0] - among[0, 0]):
            near *= 4
            among = by_column[max(end - near, 0) : end]
            squares = np.square(among - corner).sum(axis=1)
        best = int(squares.argmin())
        found.append(int(order[end - len(among) + best]) if end else best)
    return found


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


def as_points(pairs: Sequence[object]) -> Ring | None:
    """Convert ``[[x, y], ...]`` to an array; None if it is something else."""
    try:
        points = np.array(pairs, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return points if points.ndim == 2 and points.shape[1] == 2 else None
