"""Outlines of masks and filled polygons: one gives the other back, for pycocotools too."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from fewshotseg.annotations.outlines import regions_of
from fewshotseg.annotations.polygons import fill_polygon, polygon_of, simplify

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def filled(mask, tolerance=0.0):
    found = np.zeros(mask.shape, bool)
    for region in regions_of(mask):
        found |= fill_polygon(np.array(polygon_of(region, tolerance)), mask.shape)
    return found


@given(MASKS)
def test_filling_the_outlines_gives_the_mask(mask):
    assert np.array_equal(filled(mask), mask)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 5.0])
def test_simpler_holes_are_all_cut_out(tolerance):
    mask = np.random.default_rng(0).random((60, 80)) < 0.7
    for region in regions_of(mask):
        joined = fill_polygon(np.array(polygon_of(region, tolerance)), mask.shape)
        parts = [fill_polygon(simplify(ring, tolerance), mask.shape) for ring in (region.outer, *region.holes)]
        assert np.array_equal(joined, np.logical_xor.reduce(parts))


def test_many_holes_are_joined_fast():
    mask = np.random.default_rng(0).random((600, 600)) < 0.6  # quadratic work takes half a minute
    start = time.process_time()
    polygons = [polygon_of(region, 0) for region in regions_of(mask)]
    assert time.process_time() - start < 6
    holed = max(polygons, key=len)
    assert len(holed) > 100_000


@given(MASKS)
def test_every_region_fills_its_own_pixels_and_holes_are_not_of_it(mask):
    total = np.zeros(mask.shape, int)
    for region in regions_of(mask):
        total += fill_polygon(region.outer, mask.shape)
        for hole in region.holes:
            total -= fill_polygon(hole, mask.shape)
    assert np.array_equal(total, mask)


@given(MASKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pycocotools_fills_the_same_pixels(mask):
    found = np.zeros(mask.shape, bool)
    for region in regions_of(mask):
        if not region.holes:
            found |= coco.decode(coco.frPyObjects([region.outer.ravel().tolist()], *mask.shape))[..., 0] > 0
        else:
            mask = mask & ~fill_polygon(np.array(polygon_of(region, 0)), mask.shape)
    assert np.array_equal(found, mask)


def test_parts_that_touch_by_corners_are_two():
    mask = np.eye(2, dtype=bool)
    assert [len(region.outer) for region in regions_of(mask)] == [4, 4]
    assert len(regions_of(mask[::-1])) == 2


def test_a_hole_belongs_to_what_is_around_it():
    mask = np.zeros((9, 20), bool)
    mask[:, 1:9] = mask[2:7, 11:20] = True
    mask[3:5, 3:5] = mask[3:6, 13:15] = mask[4:6, 17:18] = False
    mask[4, 13] = True  # touches the rim of the hole
    regions = sorted(regions_of(mask), key=lambda region: region.outer[0, 0])
    assert [len(region.holes) for region in regions] == [1, 2]


def test_a_straight_line_has_two_points():
    line = regions_of(np.ones((3, 50), bool))[0].outer
    assert line.tolist() == [[0, 0], [50, 0], [50, 3], [0, 3]]


def disc(size=200, radius=80, hole=30):
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    return (x**2 + y**2 < radius**2) & (x**2 + y**2 > hole**2)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
def test_simpler_outlines_stray_no_farther_than_they_may(tolerance):
    mask = disc()
    region = regions_of(mask)[0]
    simple = simplify(region.outer, tolerance)
    assert len(simple) < len(region.outer) / (1 if tolerance < 1 else 3)
    closed = np.concatenate([simple, simple[:1]])
    for point in region.outer:
        start, along = closed[:-1], np.diff(closed, axis=0)
        share = (((point - start) * along).sum(1) / (along**2).sum(1)).clip(0, 1)
        assert np.hypot(*(point - start - share[:, None] * along).T).min() <= tolerance + 1e-9
    wrong = filled(mask, tolerance) ^ mask
    assert wrong.mean() < 0.01 * tolerance
    radius = np.hypot(*(np.argwhere(wrong) + 0.5 - 100).T)
    assert (np.minimum(abs(radius - 80), abs(radius - 30)) <= tolerance + 1).all()


def test_what_would_collapse_stays():
    square = regions_of(np.ones((1, 1), bool))[0].outer
    assert simplify(square, 5).tolist() == square.tolist()
    cross = np.zeros((3, 3), bool)
    cross[1], cross[:, 1] = True, True
    assert fill_polygon(simplify(regions_of(cross)[0].outer, 5), (3, 3)).any()


def test_polygons_reach_out_of_the_picture_and_cross_themselves():
    assert fill_polygon(np.array([[-5, -5], [9, -5], [9, 9], [-5, 9]]), (3, 4)).all()
    assert not fill_polygon(np.array([[-5, -5], [-1, -5], [-1, 9]]), (3, 4)).any()
    assert not fill_polygon(np.empty((0, 2)), (3, 4)).any()
    bow = fill_polygon(np.array([[0, 0.1], [4, 4.1], [4, 0.1], [0, 4.1]]), (4, 4))
    assert bow[1].tolist() == [True, False, False, True]
    assert not bow[0, 1:3].any()


def test_an_empty_mask_has_no_outlines():
    assert regions_of(np.zeros((3, 4), bool)) == []


@given(MASKS)
def test_holes_are_gone_round_the_other_way(mask):
    """Also those who fill whatever a line winds around leave them empty: what it winds around adds up to the mask."""
    total = 0.0
    for region in regions_of(mask):
        x, y = np.array(polygon_of(region, 0)).T
        total += (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    assert total == mask.sum()
