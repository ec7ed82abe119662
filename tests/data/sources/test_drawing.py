"""Outlines and run lengths as tools write them: planted objects, and planted faults."""

import math
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fewshotseg.data.sources.drawing import draw_annotations

SIZE = (6, 8)  # height, width
SQUARE = [2, 1, 5, 1, 5, 4, 2, 4]
POINTS = [[2, 1], [5, 1], [5, 4], [2, 4]]
EXPECTED = np.zeros(SIZE, dtype=np.uint8)
EXPECTED[1:4, 2:5] = 7


def annotation(segmentation, **fields):
    return {"id": 41, "category_id": 3, "segmentation": segmentation, **fields}


def drawn(size, annotations, class_of):
    mask, faults = draw_annotations(size, annotations, class_of)
    if faults:
        raise ValueError("; ".join(faults))
    return mask


def draw(segmentation, size=SIZE, **fields):
    return drawn(size, [annotation(segmentation, **fields)], {3: 7})


def compressed(mask):
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}


def uncompressed(mask):
    column_wise = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel() != 0, [2]])) != 0)
    return {"size": list(mask.shape), "counts": np.diff([0, *column_wise]).tolist()}


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        SQUARE,
        POINTS,
        [POINTS],
        [[float(number) for number in SQUARE]],
        [SQUARE, [0, 0, 1, 1]],
        [[], SQUARE],
        [SQUARE[:6], [2, 1, 5, 4, 2, 4]],
        compressed(EXPECTED),
        uncompressed(EXPECTED),
        {**uncompressed(EXPECTED), "size": ["6", 8.0]},
    ],
    ids=str,
)
def test_what_can_be_meant_in_one_way_is_drawn(segmentation):
    assert np.array_equal(draw(segmentation), EXPECTED)


@pytest.mark.parametrize("value", [0, False, "0", "false", "False", "", None])
def test_no_crowd(value):
    assert np.array_equal(draw([SQUARE], iscrowd=value), EXPECTED)


@pytest.mark.parametrize("value", [1, True, "1", "true", "TRUE", 1.0])
def test_a_crowd_is_skipped_unseen(value):
    assert not draw("anything", iscrowd=value).any()


@pytest.mark.parametrize("value", [2, -1, "yes", [1], math.nan])
def test_what_may_be_a_crowd_or_not_is_refused(value):
    with pytest.raises(ValueError, match=r"^annotation 41: iscrowd must be 0 or 1, got"):
        draw([SQUARE], iscrowd=value)


FAULTS = [
    (None, "segmentation must outline the object, got none, as where only boxes were drawn"),
    ([], "segmentation must outline the object"),
    ({}, "segmentation must outline the object"),
    ("", "segmentation must outline the object"),
    ([[]], "at least three points"),
    ([[2, 1, 5, 4]], "at least three points"),
    ([2, 1, 5, 4], "at least three points"),
    ([[2, 1], [5, 4]], "at least three points"),
    ([[2, 1, 5, 1, 5, 4, 2]], "an even number of coordinates, got 7"),
    ([SQUARE, [1]], "an even number of coordinates, got 1"),
    ([["2", "1", "5", "1", "5", "4"]], "a polygon must be a list of numbers"),
    ([[True, 1, 5, 1, 5, 4]], "a polygon must be a list of numbers"),
    ([[None, 1, 5, 1, 5, 4]], "a polygon must be a list of numbers"),
    ([{"x": 1, "y": 2}], "a polygon must be a list of numbers"),
    ([[SQUARE]], "a polygon must be a list of numbers"),
    ("rubbish", "segmentation must be polygons or run lengths, got 'rubbish'"),
    (5, "segmentation must be polygons or run lengths"),
    (True, "segmentation must be polygons or run lengths"),
    ([[2, 1, math.nan, 1, 5, 4]], "coordinates must be finite, got NaN or infinity"),
    ([[2, 1, math.inf, 1, 5, 4]], "coordinates must be finite"),
    ([[2, 1, -math.inf, 1, 5, 4]], "coordinates must be finite"),
    ([[2, 1, 10**400, 1, 5, 4]], "coordinates must be finite"),
    ([[2, 1, 1e300, 1, 5, 4]], "coordinates must fit an image of 8 x 6 pixels"),
    ([[0, 0, 1e5, 0, 1e5, 1e5]], "coordinates must fit an image of 8 x 6 pixels"),
    ([[1e9, 1e9, 1e9 + 1, 1e9, 1e9, 1e9 + 1]], "coordinates must fit"),
    ([[0, 0, 8, 6] * 1000], "an outline of 16000 pixels"),
    ({"size": [6, 8]}, "run lengths must be whole numbers of at least 0, got None"),
    ({"counts": [48]}, r"run lengths must be of size \[6, 8\] as the image, got None"),
    ({"size": [8, 6], "counts": [48]}, "run lengths must be of size"),
    ({"size": [6, 8, 1], "counts": [48]}, "run lengths must be of size"),
    ({"size": [6, None], "counts": [48]}, "run lengths must be of size"),
    ({"size": [6, 8], "counts": [47]}, "run lengths must fill 48 pixels, got 47"),
    ({"size": [6, 8], "counts": [10**30, 1]}, "run lengths must fill 48 pixels, got 1000"),
    ({"size": [6, 8], "counts": []}, "run lengths must fill 48 pixels, got 0"),
    ({"size": [6, 8], "counts": ""}, "run lengths must fill 48 pixels, got 0"),
    ({"size": [6, 8], "counts": [49, -1]}, "run lengths must be whole numbers of at least 0"),
    ({"size": [6, 8], "counts": [47.5, 0.5]}, "run lengths must be whole numbers"),
    ({"size": [6, 8], "counts": [True, 47]}, "run lengths must be whole numbers"),
    ({"size": [6, 8], "counts": ["48"]}, "run lengths must be whole numbers"),
    ({"size": [6, 8], "counts": {"a": 1}}, "run lengths must be whole numbers"),
    ({"size": [6, 8], "counts": "rubbish \n"}, "run lengths must be in COCO's characters"),
    ({"size": [6, 8], "counts": "\u00e9\u00e9"}, "run lengths must be in COCO's characters"),
    ({"size": [6, 8], "counts": "o" * 10_000}, "run lengths must be in COCO's characters"),
    ({"size": [6, 8], "counts": compressed(EXPECTED)["counts"][:-1]}, "run lengths must"),
    ({"size": [6, 8], "counts": compressed(EXPECTED)["counts"] + "o"}, "run lengths must be whole"),
]


@pytest.mark.parametrize(("segmentation", "fault"), FAULTS, ids=[str(i) for i in range(len(FAULTS))])
def test_everything_else_is_refused_by_annotation(segmentation, fault):
    with pytest.raises(ValueError, match=f"^annotation 41: .*{fault}") as error:
        draw(segmentation)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("missing", [{}, {"category_id": 8}, {"category_id": None}, {"category_id": [3]}])
def test_categories_must_be_known(missing):
    with pytest.raises(ValueError, match="annotation 9: category_id must be the id of a category that the file lists"):
        drawn(SIZE, [{"id": 9, "segmentation": [SQUARE], **missing}], {3: 7})


def test_category_ids_may_be_strings():
    assert np.array_equal(draw([SQUARE], category_id="3"), EXPECTED)
    named = {**annotation([SQUARE]), "category_id": "cup"}
    assert np.array_equal(drawn(SIZE, [named], {"cup": 7}), EXPECTED)


def test_all_faults_are_named_and_the_rest_is_drawn():
    good, bad, nameless = annotation([SQUARE]), annotation([], id="f3a"), {"category_id": 3}
    mask, faults = draw_annotations(SIZE, [bad, good, nameless], {3: 7})
    assert np.array_equal(mask, EXPECTED)
    assert [fault.partition(":")[0] for fault in faults] == ["annotation 'f3a'", "an annotation without id"]


def test_coordinates_a_little_outside_are_cut_off():
    assert (draw([[-20, -20, 30, -20, 30, 30, -20, 30]]) == 7).all()


@given(st.integers(1, 30), st.integers(1, 30), st.randoms(use_true_random=False))
def test_run_lengths_are_those_of_coco(height, width, random):
    mask = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    for runs in (compressed(mask), uncompressed(mask)):
        assert np.array_equal(draw(runs, size=(height, width)), 7 * mask)


def test_a_cut_run_length_never_shows_what_memory_held():
    whole = compressed(np.eye(200, dtype=bool))
    for length in range(len(whole["counts"])):
        with pytest.raises(ValueError, match="annotation 41: run lengths must"):
            draw({**whole, "counts": whole["counts"][:length]}, size=(200, 200))


def test_long_outlines_take_little_time_and_memory():
    start = time.perf_counter()
    teeth = [number for x in range(100) for number in (x * 6.4, 0, x * 6.4 + 3.2, 479)]
    assert draw([teeth], size=(480, 640)).any()
    assert time.perf_counter() - start < 2
    for coordinate in (1e6, 1e12, 1e300):
        with pytest.raises(ValueError, match="coordinates must fit"):
            draw([[0, 0, coordinate, 0, 0, coordinate]], size=(480, 640))
    assert time.perf_counter() - start < 4


def test_without_pycocotools_run_lengths_are_drawn_and_polygons_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert np.array_equal(draw(compressed(EXPECTED)), EXPECTED)
    with pytest.raises(ImportError, match=r"pip install 'fewshotseg\[coco\]'"):
        draw([SQUARE])
