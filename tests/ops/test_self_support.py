import math

import pytest
import torch
from torch.testing import assert_close

import _reference_pieces as reference
from _inputs import normal, subset
from fewshotseg import local_prototypes, masked_average_pool, self_support_masks

# self_support_masks


@pytest.mark.parametrize(("background", "foreground", "fallback"), [(0.6, 0.7, 12), (0.95, 0.5, 3), (0.999, 0.999, 2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (6, 5)])
def test_masks_equal_the_thresholds_written_out(size, background, foreground, fallback):
    logits = 2 * normal(3, 2, *size, dtype=torch.float64)
    masks = self_support_masks(logits, background=background, foreground=foreground, fallback=fallback)
    expected = reference.self_support_masks(logits.numpy(), (background, foreground), fallback)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, torch.from_numpy(expected))


def test_the_settings_are_those_of_the_paper():
    logits = 2 * normal(2, 2, 9, 9)
    assert torch.equal(
        self_support_masks(logits), self_support_masks(logits, background=0.6, foreground=0.7, fallback=12)
    )


def test_no_sure_location_falls_back_to_the_most_probable():
    probabilities = torch.linspace(0.01, 0.5, 30).view(1, 5, 6)
    masks = self_support_masks(torch.stack([1 - probabilities, probabilities], dim=1).log(), fallback=4)
    assert masks[:, 1].sum() == 4
    assert masks[0, 1].flatten()[-4:].all()
    assert masks[:, 0].sum() == (1 - probabilities > 0.6).sum()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_location_that_is_not_finite_is_not_sure(bad):
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 1, 0] = 9
    logits[0, :, 1, 2] = bad
    masks = self_support_masks(logits, fallback=2)
    assert not masks[..., 1, 2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_count_in_float32(dtype):
    logits = normal(2, 2, 5, 5, dtype=dtype)
    assert torch.equal(self_support_masks(logits), self_support_masks(logits.float()))


@pytest.mark.parametrize(
    ("logits", "settings", "error", "name"),
    [
        (torch.zeros(2, 3, 4, 4), {}, ValueError, "logits"),
        (torch.zeros(2, 4, 4), {}, ValueError, "logits"),
        (torch.zeros(2, 2, 4, 4).long(), {}, TypeError, "logits"),
        (torch.zeros(2, 2, 4, 4), {"background": 1.0}, ValueError, "background"),
        (torch.zeros(2, 2, 4, 4), {"foreground": 0}, ValueError, "foreground"),
        (torch.zeros(2, 2, 4, 4), {"foreground": "0.5"}, TypeError, "foreground"),
        (torch.zeros(2, 2, 4, 4), {"fallback": 0}, ValueError, "fallback"),
    ],
)
def test_bad_answers_are_refused(logits, settings, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        self_support_masks(logits, **settings)


# local_prototypes


@pytest.mark.parametrize("scale", [0.0, 2.0, 20.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
def test_local_prototypes_equal_the_weighted_means_written_out(size, scale):
    features, masks = normal(3, 4, *size, dtype=torch.float64), subset(3, *size)
    masks[0] = False
    expected = reference.local_prototypes(features.numpy(), masks.numpy(), scale)
    assert_close(local_prototypes(features, masks, scale=scale), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_without_scale_they_are_the_mean():
    features, masks = normal(2, 4, 5, 6), subset(2, 5, 6)
    prototypes = local_prototypes(features, masks, scale=0)
    assert_close(prototypes, masked_average_pool(features, masks)[:, :, None, None].expand_as(features))


def test_a_location_gets_what_is_like_it():
    features = torch.tensor([[[[5.0, 0.0, 2.0]], [[0.0, 3.0, 0.0]]]])
    prototypes = local_prototypes(features, torch.tensor([[[True, True, False]]]), scale=100)
    assert_close(prototypes[0, :, 0], torch.tensor([[5.0, 0.0, 5.0], [0.0, 3.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_local_prototypes_of_half_precision_are_the_rounded_float32_ones(dtype):
    features, masks = normal(2, 4, 5, 5, dtype=dtype), subset(2, 5, 5)
    expected = local_prototypes(features.float(), masks).to(dtype)
    assert_close(local_prototypes(features, masks), expected, rtol=0, atol=0)


def test_gradients_of_local_prototypes():
    masks = subset(2, 2, 3)
    masks[0] = False
    features = normal(2, 3, 2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: local_prototypes(f, masks), (features,))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_outside_the_mask_do_not_matter(bad):
    features, masks = normal(1, 3, 2, 3), torch.tensor([[[True, True, False], [False, True, True]]])
    spoiled = features.clone()
    spoiled[..., 0, 2] = bad
    spoiled.requires_grad_()
    prototypes = local_prototypes(spoiled, masks)
    inside = masks[:, None].expand_as(features)
    assert_close(prototypes[inside], local_prototypes(features, masks)[inside])
    prototypes[inside].sum().backward()
    assert spoiled.grad is not None
    assert spoiled.grad.isfinite().all()


@pytest.mark.parametrize(
    ("features", "masks", "scale", "error", "name"),
    [
        (torch.zeros(2, 3, 4, 5).long(), torch.ones(2, 4, 5).bool(), 2.0, TypeError, "features"),
        (torch.zeros(2, 3, 4, 5), torch.ones(2, 4, 5), 2.0, TypeError, "masks"),
        (torch.zeros(2, 3, 4, 5), torch.ones(2, 5, 4).bool(), 2.0, ValueError, "masks"),
        (torch.zeros(2, 3, 4, 5), torch.ones(2, 1, 4, 5).bool(), 2.0, ValueError, "masks"),
        (torch.zeros(2, 3, 4, 5), torch.ones(2, 4, 5).bool(), -1.0, ValueError, "scale"),
    ],
)
def test_bad_input_of_local_prototypes_is_refused(features, masks, scale, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        local_prototypes(features, masks, scale=scale)
