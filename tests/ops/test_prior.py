import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import _reference as reference
from _inputs import generator, label_masks, normal, uniform
from _strategies import seeds
from fewshotseg import prior_mask


def assert_equals_reference(query, support, masks, atol=1e-5):
    prior = prior_mask(query, support, masks)
    expected = reference.prior_mask(reference.array(query), reference.array(support), reference.array(masks))
    assert_close(prior, torch.from_numpy(expected).to(prior.dtype), rtol=0, atol=atol)
    return prior


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(
    ("batch", "shots", "query_size", "support_size", "mask_size"),
    [
        (1, 1, (1, 1), (1, 1), (1, 1)),
        (1, 1, (5, 5), (5, 5), (5, 5)),
        (2, 1, (5, 5), (5, 5), (33, 33)),
        (2, 3, (4, 7), (3, 5), (9, 13)),
        (3, 2, (1, 6), (6, 1), (31, 18)),
        (1, 2, (6, 4), (7, 7), (2, 3)),
        (2, 1, (3, 3), (4, 4), (1, 1)),
    ],
)
def test_is_the_best_cosine_over_all_support_positions(
    batch, shots, query_size, support_size, mask_size, positive, dtype
):
    query = normal(batch, 6, *query_size, dtype=dtype)
    support = normal(batch, shots, 6, *support_size, seed=1, dtype=dtype)
    if positive:
        query, support = query.relu(), support.relu()
    prior = assert_equals_reference(query, support, label_masks(batch, shots, *mask_size))
    assert prior.dtype == dtype
    assert prior.shape == (batch, 1, *query_size)
    assert prior.min() >= 0
    assert prior.max() <= 1


def test_every_small_pair_of_sizes():
    query = normal(1, 4, 1, 5, dtype=torch.float64)
    for size in range(1, 10):
        support = normal(1, 1, 4, 1, size, seed=size, dtype=torch.float64)
        for mask_size in range(1, 20):
            for seed in range(3):
                assert_equals_reference(query, support, label_masks(1, 1, 1, mask_size, seed=seed), atol=1e-4)


def test_by_hand():
    query = torch.tensor([[[[1.0, 0.0, 3.0, -1.0]], [[0.0, 1.0, 4.0, 0.0]]]])
    support = torch.tensor([[[[[2.0, 0.0]], [[0.0, 7.0]]]]])
    # Best cosines with the first position alone: 1, 0, 0.6, and -1, which the masked-out zero vector beats.
    prior = prior_mask(query, support, torch.tensor([[[[1, 0]]]]))
    assert_close(prior, torch.tensor([[[[1.0, 0.0, 0.6, 0.0]]]]))
    # With both: 1, 1, 0.8 and 0, which is the second position's cosine.
    assert_close(prior_mask(query, support, torch.tensor([[[[1, 1]]]])), torch.tensor([[[[1.0, 1.0, 0.8, 0.0]]]]))
    # Nothing masked out: the negative cosine stands, and the range is from -1 to 1.
    alone = prior_mask(query, support[..., :1], torch.ones(1, 1, 1, 1, dtype=torch.long))
    assert_close(alone, torch.tensor([[[[1.0, 0.5, 0.8, 0.0]]]]))


def test_void_is_not_foreground():
    query, support = normal(1, 4, 5, 5), normal(1, 1, 4, 3, 3, seed=1)
    masks = torch.tensor([[[[0, 1, 255], [255, 0, 1], [1, 255, 0]]]])
    assert_close(prior_mask(query, support, masks), prior_mask(query, support, masks == 1), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64])
def test_masks_of_any_dtype_count_alike(dtype):
    query, support = normal(2, 4, 5, 5), normal(2, 2, 4, 5, 5, seed=1)
    masks = (label_masks(2, 2, 33, 33) == 1).long()
    prior = prior_mask(query, support, masks.to(dtype))
    assert prior.dtype == torch.float32
    assert_close(prior, prior_mask(query, support, masks))


def test_a_position_on_a_background_pixel_is_background():
    # 32 -> 8: the last position lies exactly on the last pixel, so its foreground neighbour has no weight in it.
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    masks[..., 30, 30] = 1
    assert_equals_reference(uniform(1, 4, 3, 3), uniform(1, 1, 4, 8, 8, seed=1), masks)


def test_weights_count_as_foreground_where_not_zero():
    query, support = normal(2, 4, 5, 5), normal(2, 1, 4, 3, 3, seed=1)
    weights = uniform(2, 1, 3, 3) * (label_masks(2, 1, 3, 3) == 0)
    assert_equals_reference(query, support, weights)
    assert_close(prior_mask(query, support, weights), prior_mask(query, support, weights > 0))


@pytest.mark.parametrize("value", [0, 255])
def test_without_foreground_the_prior_is_zero(value):
    query, support = normal(2, 4, 5, 5), normal(2, 2, 4, 5, 5, seed=1)
    masks = torch.full((2, 2, 9, 9), value)
    assert (prior_mask(query, support, masks) == 0).all()


def test_a_shot_without_foreground_halves_the_other():
    query, support = normal(2, 4, 5, 5), normal(2, 2, 4, 5, 5, seed=1)
    masks = label_masks(2, 2, 9, 9)
    masks[:, 1] = 0
    assert_close(prior_mask(query, support, masks), prior_mask(query, support[:, :1], masks[:, :1]) / 2)


def test_shots_are_averaged():
    query, support, masks = normal(2, 4, 5, 5), normal(2, 3, 4, 5, 5, seed=1), label_masks(2, 3, 9, 9)
    alone = [prior_mask(query, support[:, s : s + 1], masks[:, s : s + 1]) for s in range(3)]
    assert_close(prior_mask(query, support, masks), sum(alone) / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_features(dtype):
    masks = torch.ones(1, 1, 3, 3, dtype=torch.long)
    masks[..., 0] = 0
    zeros, ones = torch.zeros(1, 4, 3, 3, dtype=dtype), torch.ones(1, 4, 3, 3, dtype=dtype)
    for query, support in ((zeros, zeros), (zeros, ones), (ones, zeros)):
        assert (prior_mask(query, support[:, None], masks) == 0).all()
    prior = prior_mask(ones, ones[:, None], masks)
    assert prior.isfinite().all()
    one_zero = ones.clone()
    one_zero[..., 1, 1] = 0
    prior = prior_mask(one_zero, ones[:, None], masks)
    expected = torch.ones_like(prior)
    expected[..., 1, 1] = 0
    assert_close(prior, expected)


def test_one_query_position_has_no_range():
    prior = prior_mask(normal(2, 4, 1, 1), normal(2, 1, 4, 3, 3, seed=1), torch.ones(2, 1, 3, 3))
    assert (prior == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("magnitudes", [(1e-30, 1e-30), (1e30, 1e30), (1e30, 1e-30), (1.0, 1e-30)])
def test_extreme_magnitudes(magnitudes, dtype):
    query, support, masks = normal(2, 4, 5, 5), normal(2, 2, 4, 5, 5, seed=1), label_masks(2, 2, 9, 9)
    query, support = query.double() * magnitudes[0], support.double() * magnitudes[1]
    extreme = prior_mask(query.to(dtype), support.to(dtype), masks)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    ordinary = prior_mask(query / magnitudes[0], support / magnitudes[1], masks)
    assert_close(extreme.double(), ordinary, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype):
    query, support = normal(2, 64, 5, 5, dtype=dtype), normal(2, 2, 64, 5, 5, seed=1, dtype=dtype)
    masks = label_masks(2, 2, 9, 9)
    prior = prior_mask(query, support, masks)
    assert prior.dtype == torch.float32
    assert_close(prior, prior_mask(query.float(), support.float(), masks), rtol=0, atol=0)
    assert_close(prior_mask(query, support.float(), masks), prior, rtol=0, atol=1e-6)


def test_no_gradient():
    query, support = normal(1, 4, 5, 5).requires_grad_(), normal(1, 1, 4, 5, 5).requires_grad_()
    assert not prior_mask(query, support, uniform(1, 1, 5, 5).requires_grad_()).requires_grad


def test_no_image_at_all():
    prior = prior_mask(torch.zeros(0, 3, 4, 5), torch.zeros(0, 2, 3, 4, 4), torch.zeros(0, 2, 9, 9))
    assert prior.shape == (0, 1, 4, 5)


@given(seed=seeds)
def test_the_length_of_features_does_not_matter(seed):
    query, support, masks = normal(2, 4, 4, 3, seed=seed), normal(2, 2, 4, 3, 4, seed=seed + 1), label_masks(2, 2, 9, 9)
    query_scales = 2.0 ** torch.randint(-60, 60, (2, 1, 4, 3), generator=generator(seed))
    support_scales = 2.0 ** torch.randint(-60, 60, (2, 2, 1, 3, 4), generator=generator(seed))
    prior = prior_mask(query, support, masks)
    assert_close(prior_mask(query * query_scales, support * support_scales, masks), prior, rtol=0, atol=1e-5)


@given(seed=seeds, shots=st.integers(1, 3))
def test_episodes_are_compared_on_their_own(seed, shots):
    query, support = normal(3, 4, 4, 3, seed=seed), normal(3, shots, 4, 3, 4, seed=seed + 1)
    masks = label_masks(3, shots, 9, 9, seed=seed)
    together = prior_mask(query, support, masks)
    for b in range(3):
        one = slice(b, b + 1)
        assert_close(together[one], prior_mask(query[one], support[one], masks[one]), rtol=0, atol=1e-5)


@given(seed=seeds, order=st.permutations(range(3)), positions=st.permutations(range(12)))
def test_the_order_of_shots_and_positions_does_not_matter(seed, order, positions):
    query, support = normal(2, 4, 4, 3, seed=seed), normal(2, 3, 4, 12, 1, seed=seed + 1)
    masks = label_masks(2, 3, 12, 1, seed=seed)
    prior = prior_mask(query, support, masks)
    permuted = prior_mask(query, support[:, order][..., positions, :], masks[:, order][..., positions, :])
    assert_close(permuted, prior, rtol=0, atol=1e-5)


@given(seed=seeds)
def test_features_outside_the_foreground_do_not_matter(seed):
    query, support, masks = normal(2, 4, 4, 3, seed=seed), normal(2, 2, 4, 3, 4, seed=seed + 1), label_masks(2, 2, 3, 4)
    others = torch.where((masks == 1)[:, :, None], support, 100 * normal(2, 2, 4, 3, 4, seed=seed + 2))
    assert_close(prior_mask(query, others, masks), prior_mask(query, support, masks), rtol=0, atol=1e-6)


QUERY, SUPPORT, MASKS = torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 3, 4, 4), torch.zeros(2, 1, 9, 9, dtype=torch.long)


@pytest.mark.parametrize(
    ("query", "support", "masks", "error", "name"),
    [
        (QUERY[0], SUPPORT, MASKS, ValueError, "query"),
        (QUERY.tolist(), SUPPORT, MASKS, TypeError, "query"),
        (QUERY.long(), SUPPORT, MASKS, TypeError, "query"),
        (QUERY, SUPPORT[0], MASKS, ValueError, "support"),
        (QUERY, SUPPORT.tolist(), MASKS, TypeError, "support"),
        (QUERY, SUPPORT.long(), MASKS, TypeError, "support"),
        (QUERY, SUPPORT[:1], MASKS, ValueError, "support"),
        (QUERY, SUPPORT[:, :, :2], MASKS, ValueError, "support"),
        (QUERY, SUPPORT[:, :0], MASKS[:, :0], ValueError, "support"),
        (QUERY, SUPPORT, MASKS[0], ValueError, "support_masks"),
        (QUERY, SUPPORT, MASKS[:, 0], ValueError, "support_masks"),
        (QUERY, SUPPORT, MASKS.tolist(), TypeError, "support_masks"),
        (QUERY, SUPPORT, MASKS[:1], ValueError, "support_masks"),
        (QUERY, SUPPORT, MASKS.expand(-1, 2, -1, -1), ValueError, "support_masks"),
    ],
)
def test_bad_input_is_refused(query, support, masks, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        prior_mask(query, support, masks)


def test_never_nan():
    query, support = normal(1, 4, 3, 3), normal(1, 1, 4, 3, 3)
    for masks in (torch.zeros(1, 1, 3, 3), torch.full((1, 1, 3, 3), 1e-30), torch.ones(1, 1, 3, 3)):
        prior = prior_mask(query, support, masks)
        assert prior.isfinite().all()
        assert not math.isnan(prior.sum())
