"""Small objects are not lost when their mask becomes smaller, or falls between the locations of a grid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshotseg.images import keep_location, keep_object
from fewshotseg.ops import foreground_weights, sample_nearest


def dot(height, width, row, column):
    mask = torch.zeros(height, width, dtype=torch.long)
    mask[row, column] = 1
    mask[0, 0] = 255
    return mask


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_dot_is_kept_where_it_lies(height, width, new_height, new_width, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = dot(height, width, row, column)
    mask[row, column] = 1
    empty = torch.zeros(new_height, new_width, dtype=torch.long)
    found = (keep_object(mask, empty) == 1).nonzero()
    assert len(found)
    if new_height <= height and new_width <= width:
        for place, new, old, size in zip(found.T, (new_height, new_width), (row, column), (height, width), strict=True):
            assert (place * size // new <= old).all()  # the pixel covers the dot
            assert ((place + 1) * size >= old * new).all()


def test_masks_that_show_their_object_are_given_back_as_they_are():
    mask = dot(8, 8, 4, 4)
    seen = mask[::4, ::4]
    assert keep_object(mask, seen) is seen
    nothing = torch.zeros(8, 8, dtype=torch.long)
    assert keep_object(nothing, seen) is seen
    lost = dot(8, 8, 5, 5)[::4, ::4]
    assert keep_object(dot(8, 8, 5, 5), lost).tolist() == [[255, 0], [0, 1]]
    assert lost.tolist() == [[255, 0], [0, 0]]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 12), st.integers(1, 12), st.data())
def test_every_object_is_seen_by_the_nearest_location(height, width, rows, columns, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = torch.zeros(height, width, dtype=torch.long)
    mask[row, column] = 1
    before = foreground_weights(mask[None], (rows, columns))[0]
    kept = keep_location(mask, (rows, columns))
    weights = foreground_weights(kept[None], (rows, columns))[0]
    if before.max() > 0:
        assert kept is mask
        return
    assert weights.max() > 0.99
    assert mask.sum() == 1  # the user's mask is left alone
    assert kept.sum() <= 1 + 4
    nearest = [
        round(place * (grid - 1) / (side - 1)) if side > 1 else 0
        for place, grid, side in zip((row, column), (rows, columns), (height, width), strict=True)
    ]
    assert weights[nearest[0], nearest[1]] > 0.99


def test_the_step_of_eight_of_the_usual_size():
    mask = dot(473, 473, 101, 305)
    assert not (sample_nearest(mask[None], (60, 60)) == 1).any()
    kept = keep_location(mask, (60, 60))
    assert (kept == 1).nonzero().tolist() == [[101, 305], [104, 304]]


def test_the_middle_of_an_object_is_what_is_seen():
    mask = torch.zeros(17, 17, dtype=torch.long)
    mask[9, [9, 10, 11, 13]] = 1
    assert (keep_location(mask, (3, 3)) - mask).nonzero().tolist() == [[8, 8]]


def test_no_object_stays_no_object():
    nothing = torch.full((9, 9), 255)
    assert keep_location(nothing, (2, 2)) is nothing


@pytest.mark.parametrize("keep", [lambda mask: keep_object(mask, mask), lambda mask: keep_location(mask, (2, 2))])
def test_other_shapes_are_refused(keep):
    with pytest.raises(ValueError, match=r"mask must have shape \(H, W\), got \(1, 4, 4\)"):
        keep(torch.zeros(1, 4, 4, dtype=torch.long))
