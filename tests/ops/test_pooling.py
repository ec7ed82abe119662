import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import _reference as reference
from _inputs import choice, label_masks, normal, subset, uniform
from _strategies import seeds
from fewshotseg import masked_average_pool

SHAPES = [(1, 1, 1, 1), (1, 4, 5, 3), (2, 3, 1, 7), (3, 2, 4, 4), (2, 5, 9, 2)]


@pytest.mark.parametrize("eps", [0.0, 5e-4, 1.0])
@pytest.mark.parametrize("num_masks", [None, 1, 3])
@pytest.mark.parametrize(("batch", "channels", "height", "width"), SHAPES)
def test_equals_the_mean_written_out(batch, channels, height, width, num_masks, eps):
    features = normal(batch, channels, height, width, dtype=torch.float64)
    shape = (batch, height, width) if num_masks is None else (batch, num_masks, height, width)
    for masks in (subset(*shape), uniform(*shape, dtype=torch.float64)):
        pooled = masked_average_pool(features, masks, eps=eps)
        expected = reference.masked_average_pool(features.numpy(), masks.numpy(), eps)
        assert_close(pooled, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 0.0], [0.0, 8.0]]]])
    assert_close(masked_average_pool(features, torch.tensor([[[1, 0], [0, 1]]])), torch.tensor([[2.5, 3.5]]))
    assert_close(masked_average_pool(features, torch.tensor([[[0.5, 0.0], [1.0, 0.5]]])), torch.tensor([[2.75, 1.75]]))
    assert_close(masked_average_pool(features, torch.tensor([[[0, 0], [0, 1]]]), eps=1.0), torch.tensor([[2.0, 4.0]]))


def test_one_mask_is_the_same_as_a_stack_of_one():
    features, masks = normal(2, 3, 5, 4), subset(2, 5, 4)
    assert_close(
        masked_average_pool(features, masks[:, None])[:, 0], masked_average_pool(features, masks), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64])
def test_masks_of_any_dtype_count_alike(dtype):
    features, masks = normal(2, 3, 4, 5), subset(2, 4, 5)
    pooled = masked_average_pool(features, masks.to(dtype))
    assert pooled.dtype == torch.float32
    assert_close(pooled, masked_average_pool(features, masks.float()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("eps", [0.0, 5e-4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_empty_mask_gives_zero_and_no_gradient(dtype, eps):
    features = normal(2, 3, 4, 4, dtype=dtype).requires_grad_()
    masks = torch.zeros(2, 2, 4, 4, dtype=dtype)
    masks[0, 1, 2, 2] = 1
    masks.requires_grad_()
    pooled = masked_average_pool(features, masks, eps=eps)
    empty = torch.tensor([[True, False], [True, True]])
    assert (pooled[empty] == 0).all()
    assert (pooled[~empty] != 0).all()
    pooled.sum().backward()
    assert features.grad is not None
    assert masks.grad is not None
    assert (features.grad[1] == 0).all()
    assert (features.grad[0, :, 2, 2] != 0).all()
    assert masks.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_neither_overflow_nor_saturate(dtype):
    # 65 * 65 * 100 is beyond float16, and a running bfloat16 sum of ones stops at 256.
    for value in (1.0, 100.0):
        features = torch.full((1, 2, 65, 65), value, dtype=dtype)
        pooled = masked_average_pool(features, torch.ones(1, 65, 65, dtype=dtype))
        assert pooled.dtype == dtype
        assert (pooled == value).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_rounded_float32_result(dtype):
    features, masks = normal(2, 3, 9, 7, dtype=dtype), uniform(2, 2, 9, 7)
    assert_close(
        masked_average_pool(features, masks),
        masked_average_pool(features.float(), masks).to(dtype),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("weight", [1e-6, 1e-3, 1.0])
def test_the_scale_of_the_weights_does_not_matter(weight):
    features, masks = normal(2, 3, 5, 5), uniform(2, 5, 5)
    assert_close(masked_average_pool(features, masks * weight), masked_average_pool(features, masks))


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_extreme_magnitudes(magnitude):
    features, masks = normal(2, 3, 5, 5, dtype=torch.float64), subset(2, 5, 5)
    pooled = masked_average_pool((features * magnitude).float(), masks)
    expected = masked_average_pool(features, masks) * magnitude
    assert_close(pooled.double(), expected, rtol=1e-4, atol=1e-6 * magnitude)


def test_gradients():
    features = normal(2, 3, 3, 4, dtype=torch.float64).requires_grad_()
    masks = uniform(2, 2, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(masked_average_pool, (features, masks))
    assert torch.autograd.gradcheck(lambda f, m: masked_average_pool(f, m, eps=0.1), (features, masks[:, 0]))
    assert torch.autograd.gradcheck(lambda f: masked_average_pool(f, masks > 0.5), (features,))


@given(seed=seeds, batch=st.integers(1, 3), height=st.integers(1, 6), width=st.integers(1, 6))
def test_a_prototype_lies_within_the_features_that_it_pools(seed, batch, height, width):
    features = normal(batch, 3, height, width, seed=seed)
    masks = choice([0, 1, 2, 5], batch, height, width, seed=seed) / 5
    pooled = masked_average_pool(features, masks)
    inside = (masks > 0)[:, None].expand_as(features)
    lowest = features.masked_fill(~inside, math.inf).amin(dim=(2, 3))
    highest = features.masked_fill(~inside, -math.inf).amax(dim=(2, 3))
    empty = ~inside.any(dim=3).any(dim=2)
    slack = 1e-6
    assert (empty | ((pooled >= lowest - slack) & (pooled <= highest + slack))).all()
    assert (pooled[empty] == 0).all()


@given(seed=seeds, num_masks=st.integers(1, 4))
def test_images_and_masks_are_pooled_on_their_own(seed, num_masks):
    features, masks = normal(3, 4, 5, 3, seed=seed), subset(3, num_masks, 5, 3, seed=seed)
    together = masked_average_pool(features, masks)
    for b in range(3):
        for k in range(num_masks):
            alone = masked_average_pool(features[b : b + 1], masks[b : b + 1, k])
            assert_close(together[b, k], alone[0], rtol=1e-5, atol=1e-6)


# resize

SIZES = [((3, 4), (9, 7)), ((3, 4), (3, 4)), ((1, 1), (5, 3)), ((1, 5), (4, 1)), ((9, 7), (4, 3))]


def brought_together(features, weights, resize):
    """The mean written out, after one was resized as an array."""
    if resize == "masks":
        weights = reference.resize_bilinear(weights, features.shape[2:])
    else:
        features = reference.resize_bilinear(features, weights.shape[-2:])
    return torch.from_numpy(reference.masked_average_pool(features, weights, 0.1))


@pytest.mark.parametrize("resize", ["masks", "features"])
@pytest.mark.parametrize("num_masks", [None, 2])
@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_resizing_equals_the_mean_of_what_was_resized(grid, size, num_masks, resize):
    features = normal(2, 3, *grid, dtype=torch.float64)
    shape = (2, *size) if num_masks is None else (2, num_masks, *size)
    labels = label_masks(*shape)
    for masks, weights in (
        (uniform(*shape, dtype=torch.float64), uniform(*shape, dtype=torch.float64)),
        (labels, labels == 1),
        (labels.to(torch.uint8), labels == 1),
        (labels == 0, labels == 0),
    ):
        pooled = masked_average_pool(features, masks, eps=0.1, resize=resize)
        expected = brought_together(features.numpy(), weights.double().numpy(), resize)
        assert_close(pooled, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("resize", ["masks", "features"])
def test_resizing_changes_nothing_where_sizes_agree(resize):
    features, masks = normal(2, 3, 5, 4), uniform(2, 5, 4)
    assert_close(masked_average_pool(features, masks, resize=resize), masked_average_pool(features, masks))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("resize", ["masks", "features"])
def test_resizing_in_half_precision_is_the_rounded_float32_result(dtype, resize):
    features, masks = normal(2, 3, 9, 7, dtype=dtype), label_masks(2, 2, 33, 40)
    pooled = masked_average_pool(features, masks, resize=resize)
    assert_close(pooled, masked_average_pool(features.float(), masks, resize=resize).to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype):
        assert_close(masked_average_pool(features, masks, resize=resize), pooled, rtol=0, atol=0)


@pytest.mark.parametrize("resize", ["masks", "features"])
def test_gradients_through_resizing(resize):
    features = normal(2, 3, 3, 4, dtype=torch.float64).requires_grad_()
    masks = uniform(2, 2, 5, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, m: masked_average_pool(f, m, resize=resize), (features, masks))


def test_an_object_between_the_positions_of_the_grid():
    features, masks = normal(1, 3, 3, 3), torch.zeros(1, 9, 9, dtype=torch.long)
    masks[:, 2, 2] = 1
    assert (masked_average_pool(features, masks, resize="masks") == 0).all()
    pooled = masked_average_pool(features, masks, resize="features")
    assert_close(pooled, features[..., :2, :2].mean(dim=(2, 3)))


@pytest.mark.parametrize("resize", ["masks", "features"])
def test_empty_masks_of_another_size_give_zero(resize):
    features = normal(2, 3, 4, 4).requires_grad_()
    masks = torch.zeros(2, 2, 9, 9, dtype=torch.long)
    masks[0, 0, :4] = 255
    masks[1, 1, 3:6, 3:6] = 1
    pooled = masked_average_pool(features, masks, resize=resize)
    pooled.sum().backward()
    assert (pooled[0] == 0).all()
    assert (pooled[1, 0] == 0).all()
    assert (pooled[1, 1] != 0).all()
    assert features.grad is not None
    assert (features.grad[0] == 0).all()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("resize", ["masks", "features"])
def test_values_outside_a_mask_of_another_size_do_not_matter(resize):
    features, masks = normal(1, 3, 3, 3), torch.zeros(1, 17, 17)
    masks[:, :9, :9] = 1
    spoiled = features.clone()
    spoiled[..., 2, 2] = math.nan
    expected = masked_average_pool(features, masks, resize=resize)
    assert_close(masked_average_pool(spoiled, masks, resize=resize), expected)


@pytest.mark.parametrize("resize", ["masks", "features"])
def test_resizing_compiles_whole(resize):
    features, masks = normal(2, 3, 5, 4), label_masks(2, 9, 7)
    compiled = torch.compile(masked_average_pool, fullgraph=True, backend="eager")
    expected = masked_average_pool(features, masks, resize=resize)
    assert_close(compiled(features, masks, resize=resize), expected)


@pytest.mark.parametrize("value", [2, -1])
def test_labels_of_several_classes_are_refused(value):
    with pytest.raises(ValueError, match=f"masks must hold 0 .* got {value}; with several classes, pass one at a time"):
        masked_average_pool(FEATURES, torch.full((2, 9, 9), value), resize="masks")


@pytest.mark.parametrize("resize", ["masks", "features"])
@pytest.mark.parametrize("value", [-0.5, 2.0, 255.0])
def test_weights_are_looked_at_before_resizing(value, resize):
    with pytest.raises(ValueError, match="masks must be weights from 0 to 1"):
        masked_average_pool(FEATURES, torch.full((2, 9, 9), value), resize=resize)


def test_another_size_is_refused_with_the_shape_that_was_given_and_what_to_do():
    with pytest.raises(ValueError, match=r'size of features, 4x5, got shape \(2, 9, 9\); resize="masks" resizes'):
        masked_average_pool(FEATURES, torch.ones(2, 9, 9))


@pytest.mark.parametrize("resize", ["mask", True, 1])
def test_an_unknown_way_is_refused(resize):
    with pytest.raises(ValueError, match="resize must be one of None, 'masks', 'features'"):
        masked_average_pool(FEATURES, MASKS, resize=resize)


FEATURES, MASKS = torch.zeros(2, 3, 4, 5), torch.ones(2, 4, 5)


@pytest.mark.parametrize(
    ("features", "masks", "eps", "error", "name"),
    [
        (FEATURES[0], MASKS, 0.0, ValueError, "features"),
        (FEATURES[None], MASKS, 0.0, ValueError, "features"),
        (FEATURES.numpy(), MASKS, 0.0, TypeError, "features"),
        (FEATURES.long(), MASKS, 0.0, TypeError, "features"),
        (FEATURES.to(torch.complex64), MASKS, 0.0, TypeError, "features"),
        (FEATURES, MASKS[0], 0.0, ValueError, "masks"),
        (FEATURES, MASKS[None, None], 0.0, ValueError, "masks"),
        (FEATURES, MASKS.numpy(), 0.0, TypeError, "masks"),
        (FEATURES, MASKS[:1], 0.0, ValueError, "masks"),
        (FEATURES, MASKS[:, :3], 0.0, ValueError, "masks"),
        (FEATURES, MASKS[:, :, :1], 0.0, ValueError, "masks"),
        (FEATURES, MASKS[:1, None], 0.0, ValueError, "masks"),
        (FEATURES, MASKS[:, None, :1], 0.0, ValueError, "masks"),
        (FEATURES, MASKS, -1.0, ValueError, "eps"),
        (FEATURES, MASKS, math.nan, ValueError, "eps"),
    ],
)
def test_bad_input_is_refused(features, masks, eps, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        masked_average_pool(features, masks, eps=eps)


def test_label_masks_become_weights_first():
    labels, features = label_masks(2, 6, 6), normal(2, 3, 6, 6)
    expected = reference.masked_average_pool(reference.array(features), (labels == 1).numpy())
    assert_close(masked_average_pool(features, labels == 1), torch.from_numpy(expected).float())
