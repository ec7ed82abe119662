import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import _reference as reference
from _inputs import choice, label_masks, normal, uniform
from _strategies import seeds
from fewshotseg.ops import foreground_weights, resize_bilinear, sample_nearest
from fewshotseg.ops.resizing import resize_by_products, resizing_weights

SIZES = [((1, 1), (1, 1)), ((5, 3), (1, 1)), ((1, 1), (4, 3)), ((4, 7), (9, 2)), ((9, 9), (3, 5)), ((2, 5), (2, 5))]

# resize_bilinear


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_is_the_formula(old, new):
    maps = normal(2, 3, *old, dtype=torch.float64)
    assert_close(resize_bilinear(maps, new), torch.from_numpy(reference.resize_bilinear(maps.numpy(), new)))


def test_bilinear_by_hand():
    maps = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    assert resize_bilinear(maps, (3, 3)).tolist() == [[[[0, 2, 4], [4, 6, 8], [8, 10, 12]]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bilinear_keeps_the_dtype(dtype):
    maps = normal(1, 2, 5, 5, dtype=dtype)
    resized = resize_bilinear(maps, (9, 3))
    assert resized.dtype == dtype
    expected = reference.resize_bilinear(reference.array(maps), (9, 3))
    assert_close(resized, torch.from_numpy(expected).to(dtype))


def test_bilinear_of_the_same_size_is_the_input():
    maps = normal(1, 2, 5, 4)
    assert resize_bilinear(maps, (5, 4)) is maps


def test_bilinear_gradients():
    maps = normal(2, 1, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: resize_bilinear(m, (5, 2)), (maps,))


@pytest.mark.parametrize(
    ("maps", "error"),
    [
        (torch.zeros(3, 4, 5), ValueError),
        (torch.zeros(1, 2, 3, 4, 5), ValueError),
        (torch.zeros(1, 2, 3, 4, dtype=torch.long), TypeError),
        ([[[[1.0]]]], TypeError),
    ],
)
def test_bad_maps_are_refused(maps, error):
    with pytest.raises(error, match=r"\bmaps\b.* must"):
        resize_bilinear(maps, (3, 3))


# sample_nearest


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize(
    ("old", "new"),
    [((1, 1), (1, 1)), ((5, 3), (1, 1)), ((1, 2), (4, 8)), ((4, 7), (9, 2)), ((13, 9), (6, 5)), ((3, 3), (3, 3))],
)
def test_nearest_takes_the_nearest(old, new, dtype):
    if (old, new) == ((4, 7), (9, 2)):
        new = (8, 2)  # 4 -> 9 has ties
    labels = choice([0, 1, 1, 255], 2, *old).to(dtype)
    sampled = sample_nearest(labels, new)
    assert sampled.dtype == dtype
    assert_close(sampled, torch.from_numpy(reference.sample_nearest(labels.numpy(), new)), rtol=0, atol=0)


def test_every_pair_of_lengths():
    for old in range(1, 34):
        row = torch.arange(old)[None, None]
        for new in range(1, 34):
            expected = [max(nearest) for nearest in reference.nearest_indices(old, new)]
            assert sample_nearest(row, (1, new))[0, 0].tolist() == expected, (old, new)
            assert sample_nearest(row.mT, (new, 1))[0, :, 0].tolist() == expected, (old, new)


@pytest.mark.parametrize(("old", "new", "step"), [(473, 60, 8), (641, 81, 8), (641, 41, 16), (33, 5, 8)])
def test_whole_steps_take_every_so_many_pixels(old, new, step):
    labels = torch.arange(old * old).reshape(1, old, old)
    assert_close(sample_nearest(labels, (new, new)), labels[:, ::step, ::step])


@given(seed=seeds, old=st.tuples(*[st.integers(1, 20)] * 2), new=st.tuples(*[st.integers(1, 20)] * 2))
def test_nearest_keeps_corners_and_values(seed, old, new):
    labels = label_masks(1, *old, seed=seed)
    sampled = sample_nearest(labels, new)
    assert sampled.shape == (1, *new)
    assert set(sampled.unique().tolist()) <= set(labels.unique().tolist())
    assert sampled[0, 0, 0] == labels[0, 0, 0]
    if min(new) > 1:
        assert sampled[0, -1, -1] == labels[0, -1, -1]


@pytest.mark.parametrize(
    ("labels", "error"),
    [(torch.zeros(3, 4), ValueError), (torch.zeros(1, 2, 3, 4), ValueError), ([[[1]]], TypeError)],
)
def test_bad_labels_are_refused(labels, error):
    with pytest.raises(error, match=r"\blabels\b.* must"):
        sample_nearest(labels, (3, 3))


# foreground_weights


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_only_the_foreground_has_weight(old, new):
    masks = label_masks(2, *old)
    weights = foreground_weights(masks, new)
    assert weights.dtype == torch.float32
    expected = reference.resize_bilinear((masks.numpy() == 1).astype(float), new)
    assert_close(weights, torch.from_numpy(expected).float())
    assert_close(foreground_weights(masks == 1, new), weights)
    assert_close(foreground_weights(masks.to(torch.uint8), new), weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_resized_as_they_are(dtype):
    masks = uniform(2, 5, 7, dtype=dtype)
    weights = foreground_weights(masks, (3, 9))
    assert weights.dtype == dtype
    expected = reference.resize_bilinear(reference.array(masks), (3, 9))
    assert_close(weights, torch.from_numpy(expected).to(dtype))


@pytest.mark.parametrize(("old", "new", "step"), [(473, 60, 8), (641, 81, 8), (641, 41, 16), (33, 5, 8), (8, 8, 1)])
def test_whole_steps_stay_exactly_binary(old, new, step):
    masks = label_masks(1, old, old)
    weights = foreground_weights(masks, (new, new))
    assert_close(weights, (masks[:, ::step, ::step] == 1).float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("masks", "error"), [(torch.zeros(3, 4), ValueError), (torch.zeros(1, 2, 3, 4), ValueError), ([[[1]]], TypeError)]
)
def test_bad_masks_are_refused(masks, error):
    with pytest.raises(error, match=r"\bmasks\b.* must"):
        foreground_weights(masks, (3, 3))


@pytest.mark.parametrize(("old", "new"), [((5, 5), (13, 13)), ((5, 7), (4, 9)), ((1, 3), (6, 1)), ((8, 8), (8, 8))])
def test_products_resize_as_interpolation_does(old, new):
    maps = normal(2, 3, *old, dtype=torch.float64).requires_grad_()
    found, expected = resize_by_products(maps, *resizing_weights(old, new, maps)), resize_bilinear(maps, new)
    assert_close(found, expected)
    weights = normal(*found.shape, dtype=torch.float64, seed=1)
    gradients = [torch.autograd.grad((result * weights).sum(), maps)[0] for result in (found, expected)]
    assert_close(*gradients)
