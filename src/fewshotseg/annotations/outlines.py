"""Traces the outlines of a mask along the edges of its pixels, so that filling them restores the mask exactly."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""``(N, 2)``: x and y of the corners of a closed line. Pixel (x, y) covers the square from there to (x + 1, y + 1)."""


class Region(NamedTuple):
    """A connected part of a mask.

    Attributes:
        outer: The outline.
        holes: The outlines of its holes.
    """

    outer: Ring
    holes: list[Ring]


def regions_of(mask: NDArray[np.bool_]) -> list[Region]:
    """Trace the connected regions of a mask; pixels that touch only at a corner belong to different regions.

    Args:
        mask: ``(H, W)``.

    Example:
        >>> ring = np.ones((3, 4), bool)
        >>> ring[1, 1] = False
        >>> [(region.outer.tolist(), len(region.holes)) for region in regions_of(ring)]
        [([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]], 1)]
    """
    corners, right, down = _corners(mask)
    cycles, cycle_of = _cycles(right, down)
    inside = np.pad(mask, ((0, 1), (0, 1)))
    rings = [corners[cycle] for cycle in cycles]
    first = np.array([ring[0] for ring in rings], dtype=np.intp).reshape(
        -1, 2
    )  # the leftmost of the topmost corners, see _cycles
    is_outer = inside[first[:, 1], first[:, 0]]
    beside = _cycle_to_the_left(corners, down, cycle_of, first)
    regions: dict[int, Region] = {}
    owner: list[int] = []
    for number, ring in enumerate(rings):  # from top to bottom, so that the owner of the line to the left is known
        owner.append(number if is_outer[number] else owner[beside[number]])
        if is_outer[number]:
            regions[number] = Region(ring.astype(np.float64), [])
        else:
            regions[owner[number]].holes.append(ring.astype(np.float64))
    return list(regions.values())


def _corners(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Find the corners of all outlines, ``(N, 2)`` row by row, and the neighbours of each in its row and its column.

    In each row of corners the first is joined with the second, the third with the fourth and so on; likewise in each
    column. Where two pixels of the mask touch at a corner, two outlines turn, so there are two corners.
    """
    around = np.pad(mask, 1)
    above_left, above_right = around[:-1, :-1], around[:-1, 1:]
    below_left, below_right = around[1:, :-1], around[1:, 1:]
    odd = above_left ^ above_right ^ below_left ^ below_right
    touch = (above_left == below_right) & (above_right == below_left) & (above_left != above_right)
    rows, columns = np.nonzero(odd | touch)
    copies = np.where(touch[rows, columns], 2, 1)
    # Of two corners in one place the first belongs to the left; it is the lower one if the pixels lie like / and not \.
    swapped = np.repeat(touch[rows, columns] & above_right[rows, columns], copies)
    corners = np.repeat(np.stack([columns, rows], axis=1), copies, axis=0)
    number = np.arange(len(corners))
    vertical = np.where(swapped, -number, number)
    by_column = np.lexsort((vertical, corners[:, 1], corners[:, 0]))
    across, updown = np.empty_like(number), np.empty_like(number)
    across[0::2], across[1::2] = number[1::2], number[0::2]
    updown[by_column[0::2]], updown[by_column[1::2]] = by_column[1::2], by_column[0::2]
    return corners, across, updown


def _cycles(across: NDArray[np.intp], updown: NDArray[np.intp]) -> tuple[list[list[int]], NDArray[np.intp]]:
    """Join corners to closed lines, each beginning at its first corner; also return the line of each corner."""
    to_side, to_end = across.tolist(), updown.tolist()
    cycle_of = [-1] * len(to_side)
    cycles: list[list[int]] = []
    for start in range(len(to_side)):
        if cycle_of[start] >= 0:
            continue
        cycle, corner = [], start
        while cycle_of[corner] < 0:
            side = to_side[corner]
            cycle_of[corner] = cycle_of[side] = len(cycles)
            cycle += [corner, side]
            corner = to_end[side]
        cycles.append(cycle)
    return cycles, np.array(cycle_of, dtype=np.intp)


def _cycle_to_the_left(
    corners: NDArray[np.intp], updown: NDArray[np.intp], cycle_of: NDArray[np.intp], points: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Find for each point the nearest line to its left, half a pixel below it; any line if there is none."""
    upper = np.nonzero(corners[:, 1] < corners[updown, 1])[0]
    lengths = corners[updown[upper], 1] - corners[upper, 1]
    edge = np.repeat(upper, lengths)  # one entry for each pixel of height
    row = corners[edge, 1] + np.arange(len(edge)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    width = int(corners[:, 0].max(initial=0)) + 1
    place = row * width + corners[edge, 0]
    order = np.argsort(place)
    found = np.searchsorted(place[order], points[:, 1] * width + points[:, 0]) - 1
    return cycle_of[edge[order[np.maximum(found, 0)]]] if len(edge) else np.empty(0, np.intp)
