import pytest
import torch
from torch.testing import assert_close

import _reference_pieces as reference
from _inputs import label_masks, normal, uniform
from fewshotseg import correlation


def layers(*shapes, batch=2, seed=0, dtype=torch.float64):
    return [normal(batch, *shape, seed=seed + number, dtype=dtype) for number, shape in enumerate(shapes)]


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_cosines_written_out_stacked_for_each_size(masked):
    query = layers((3, 4, 3), (5, 2, 2), (2, 4, 3), (4, 2, 2))
    support = layers((3, 3, 5), (5, 2, 1), (2, 3, 5), (4, 1, 2), seed=9)
    labels = label_masks(2, 7, 9) if masked else None
    weights = (labels == 1).double().numpy() if masked else None
    first, second, third = correlation(query, support, labels)
    expected = [
        torch.from_numpy(reference.correlation(q.numpy(), s.numpy(), weights))
        for q, s in zip(query, support, strict=True)
    ]
    assert_close(first, torch.stack([expected[0], expected[2]], dim=1), rtol=1e-6, atol=1e-7)
    assert_close(second, expected[1][:, None], rtol=1e-6, atol=1e-7)
    assert_close(third, expected[3][:, None], rtol=1e-6, atol=1e-7)


def test_by_hand():
    query = torch.tensor([[[[1.0, -1.0]], [[0.0, 0.0]]]])
    support = torch.tensor([[[[3.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]]])
    (volume,) = correlation([query], [support])
    assert_close(volume[0, 0, 0, :, 0], torch.tensor([[1.0, 0.5**0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_weights_count_by_being_positive():
    query, support = layers((3, 3, 3)), layers((3, 3, 3), seed=5)
    weights = uniform(2, 3, 3) * (uniform(2, 3, 3, seed=1) > 0.5)
    weights[0, 0, 0] = 1e-3
    assert_close(correlation(query, support, weights), correlation(query, support, weights > 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_compared_in_float32(dtype):
    query, support = layers((3, 4, 4), dtype=dtype), layers((3, 4, 4), seed=5, dtype=dtype)
    (volume,) = correlation(query, support)
    assert volume.dtype == torch.float32
    assert_close(volume, correlation([query[0].float()], [support[0].float()])[0], rtol=0, atol=0)


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_lengths_do_not_matter(magnitude):
    query, support = layers((3, 4, 4)), layers((3, 4, 4), seed=5)
    expected = correlation(query, support)[0].float()
    volume = correlation([(query[0] * magnitude).float()], [(support[0] / magnitude).float()])[0]
    assert_close(volume, expected, rtol=1e-4, atol=1e-5)


def test_gradients():
    query, support = layers((3, 2, 3), (2, 2, 3)), layers((3, 2, 2), (2, 2, 2), seed=5)
    leaves = [leaf.requires_grad_() for leaf in (*query, *support)]
    masks = torch.tensor([[[1, 0], [1, 1]], [[0, 0], [0, 0]]])
    assert torch.autograd.gradcheck(lambda *maps: correlation(maps[:2], maps[2:], masks), leaves)


def test_zero_vectors_have_a_small_gradient():
    query, support = torch.zeros(1, 3, 2, 2, requires_grad=True), torch.ones(1, 3, 2, 2, requires_grad=True)
    (volume,) = correlation([query], [support])
    assert (volume == 0).all()
    volume.sum().backward()
    assert query.grad is not None
    assert support.grad is not None
    assert query.grad.abs().max() < 100
    assert support.grad.abs().max() < 100


def test_what_lies_outside_the_mask_does_not_matter():
    query, support = layers((3, 2, 2)), layers((3, 2, 2), seed=5)
    masks = torch.tensor([[[1, 0], [255, 1]]]).expand(2, 2, 2)
    spoiled = support[0].clone()
    spoiled[..., 0, 1] = torch.nan
    (volume,) = correlation(query, [spoiled.requires_grad_()], masks)
    assert_close(volume, correlation(query, support, masks)[0])
    volume.sum().backward()
    assert spoiled.grad is not None
    assert spoiled.grad.isfinite().all()


def test_an_empty_mask_correlates_with_nothing():
    query = layers((3, 2, 2))
    assert (correlation(query, query, torch.zeros(2, 9, 9, dtype=torch.long))[0] == 0).all()


@pytest.mark.parametrize(
    ("query", "support", "masks", "error", "message"),
    [
        (torch.zeros(2, 3, 4, 4), [torch.zeros(2, 3, 4, 4)], None, TypeError, "query_maps must be a list of maps"),
        ([], [], None, ValueError, "query_maps must hold at least one layer"),
        (layers((3, 2, 2)), layers((3, 2, 2), (3, 2, 2)), None, ValueError, "as many layers as query_maps, 1, got 2"),
        (layers((3, 2, 2)), layers((4, 2, 2)), None, ValueError, "layer 0 of support_maps must have the C"),
        (layers((3, 2, 2)), layers((3, 2, 2), batch=1), None, ValueError, "layer 0 of support_maps must have the B"),
        (layers((3, 2, 2)), [None], None, TypeError, "layer 0 of support_maps must be a tensor"),
        ([torch.zeros(2, 3, 2, 2).long()], layers((3, 2, 2)), None, TypeError, "layer 0 of query_maps must be a float"),
        (layers((3, 2, 2)), layers((3, 2, 2)), torch.zeros(1, 2, 2), ValueError, "support_masks must have the B"),
        (layers((3, 2, 2)), layers((3, 2, 2)), torch.zeros(2, 1, 2, 2), ValueError, "support_masks must have shape"),
        (layers((3, 2, 2)), layers((3, 2, 2)), torch.full((2, 2, 2), 255.0), ValueError, "masks must be weights"),
    ],
)
def test_bad_input_is_refused(query, support, masks, error, message):
    with pytest.raises(error, match=message):
        correlation(query, support, masks)
