import math

import pytest
import torch
from torch.testing import assert_close

import _reference_pieces as reference
from _inputs import choice, normal, uniform
from fewshotseg import gram_distance, vote_shots

# vote_shots


@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_votes_equal_those_counted(shots, dtype):
    masks = choice([0, 0, 1], 3, shots, 4, 5)
    masks[0] = 0
    shares = vote_shots(masks.to(dtype))
    assert shares.dtype == torch.float32
    assert_close(shares, torch.from_numpy(reference.vote_shots(masks.numpy())).float())


def test_many_shots_do_not_wrap_round():
    assert (vote_shots(torch.ones(1, 300, 2, 2, dtype=torch.uint8)) == 1).all()


@pytest.mark.parametrize(
    ("masks", "error"),
    [
        (torch.zeros(2, 3, 4, 4), TypeError),
        (torch.zeros(2, 4, 4).bool(), ValueError),
        (torch.full((2, 3, 4, 4), 255), ValueError),
        (torch.full((2, 3, 4, 4), -1), ValueError),
        (None, TypeError),
    ],
)
def test_bad_votes_are_refused(masks, error):
    with pytest.raises(error, match=r"masks must"):
        vote_shots(masks)


# gram_distance


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("size", [(4, 3), (2, 5)])
def test_distances_equal_the_sums_written_out(size, shots):
    query, support = normal(2, 4, 4, 3, dtype=torch.float64), normal(2, shots, 4, *size, seed=1, dtype=torch.float64)
    support[0, 0, 1] = 0
    expected = torch.from_numpy(reference.gram_distance(query.numpy(), support.numpy()))
    assert_close(gram_distance(query, support), expected, rtol=1e-9, atol=1e-12)


def test_the_range():
    query = uniform(2, 8, 5, 5)
    distances = gram_distance(query, torch.stack([query, uniform(2, 8, 5, 5, seed=1)], dim=1))
    assert (distances[:, 0] < 1e-6).all()
    assert (distances[:, 1] > 0.05).all()
    assert (distances <= 1).all()
    apart = torch.eye(2)[None, :, None]  # channels that are never active together
    assert_close(gram_distance(apart, torch.ones(1, 1, 2, 1, 2)), torch.tensor([[0.5**0.5]]))


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_the_scale_of_features_does_not_matter(factor):
    query, support = uniform(2, 4, 3, 3), uniform(2, 2, 4, 3, 3, seed=1)
    assert_close(gram_distance(query * factor, support), gram_distance(query, support))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype):
    query, support = normal(2, 4, 3, 3, dtype=dtype), normal(2, 2, 4, 3, 3, seed=1, dtype=dtype)
    assert_close(gram_distance(query, support), gram_distance(query.float(), support.float()), rtol=0, atol=0)


def test_gradients_of_distances():
    query = normal(1, 3, 2, 3, dtype=torch.float64).requires_grad_()
    support = normal(1, 2, 3, 2, 2, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gram_distance, (query, support))
    gram_distance(query, query.detach()[:, None]).sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_channel_that_is_not_finite_is_like_none(bad):
    query, support = normal(1, 3, 2, 3), normal(1, 1, 3, 2, 3, seed=1)
    spoiled, zeroed = query.clone(), query.clone()
    spoiled[0, 1, 0, 0], zeroed[0, 1] = bad, 0
    assert_close(gram_distance(spoiled, support), gram_distance(zeroed, support))


@pytest.mark.parametrize(
    ("query", "support", "error", "name"),
    [
        (normal(2, 3, 4, 4).long(), normal(2, 1, 3, 4, 4), TypeError, "query"),
        (normal(2, 3, 4), normal(2, 1, 3, 4, 4), ValueError, "query"),
        (normal(2, 3, 4, 4), normal(2, 3, 4, 4), ValueError, "support"),
        (normal(2, 3, 4, 4), normal(2, 1, 4, 4, 4), ValueError, "support"),
        (normal(2, 3, 4, 4), normal(1, 1, 3, 4, 4), ValueError, "support"),
    ],
)
def test_bad_features_are_refused(query, support, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        gram_distance(query, support)
