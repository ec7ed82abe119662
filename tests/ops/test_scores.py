import math

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

import _reference as reference
from _inputs import normal, subset, uniform
from _strategies import seeds
from fewshotseg import cosine_logits, density_logits
from fewshotseg.ops import scores

SHAPES = [(1, 1, 1, 1), (1, 4, 5, 3), (2, 3, 1, 7), (3, 2, 4, 4)]


def densities(features, points, foreground, background, kappa):
    """The reference."""
    sides = torch.stack([background, foreground], dim=1).double().numpy()
    return torch.from_numpy(reference.density_logits(reference.array(features), reference.array(points), sides, kappa))


# Cosines


@pytest.mark.parametrize(("classes", "several"), [(1, None), (2, 1), (3, 4)])
@pytest.mark.parametrize(("batch", "channels", "height", "width"), SHAPES)
def test_cosines_are_as_written_out(batch, channels, height, width, classes, several):
    features = normal(batch, channels, height, width, dtype=torch.float64)
    shape = (batch, classes, channels) if several is None else (batch, classes, several, channels)
    prototypes = normal(*shape, seed=1, dtype=torch.float64)
    expected = reference.cosine_logits(
        features.numpy(), prototypes.reshape(batch, classes, -1, channels).numpy(), 7.0, -0.5
    )
    found = cosine_logits(features, prototypes, scale=7.0, bias=-0.5)
    assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_cosines_by_hand():
    features = torch.tensor([[[[2.0, 0.0, 3.0]], [[0.0, -5.0, 4.0]]]])
    one = torch.tensor([[[1.0, 0.0], [0.0, 9.0]]])
    assert_close(cosine_logits(features, one), torch.tensor([[[[10.0, 0.0, 6.0]], [[0.0, -10.0, 8.0]]]]))
    best = torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]])
    assert_close(cosine_logits(features, best, scale=1, bias=1), torch.tensor([[[[2.0, 2.0, 1.6]]]]))


def test_scale_and_bias_of_each_class():
    features, prototypes = normal(2, 4, 3, 5), normal(2, 3, 4, seed=1)
    cosines = cosine_logits(features, prototypes, scale=1.0)
    scale, bias = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, -1.0, 5.0])
    expected = cosines * scale[:, None, None] + bias[:, None, None]
    assert_close(cosine_logits(features, prototypes, scale=scale, bias=bias), expected)
    assert_close(cosine_logits(features, prototypes, scale=torch.tensor(4.0)), 4 * cosines)


def test_scale_and_bias_are_learned():
    scale, bias = torch.tensor([10.0], requires_grad=True), torch.zeros(3, requires_grad=True)
    cosines = cosine_logits(normal(2, 4, 3, 5), normal(2, 3, 4, seed=1), scale=1.0)
    cosine_logits(normal(2, 4, 3, 5), normal(2, 3, 4, seed=1), scale=scale, bias=bias).sum().backward()
    assert_close(scale.grad, cosines.sum().reshape(1))
    assert_close(bias.grad, torch.full((3,), 30.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision_are_computed_in_float32(dtype):
    features, points = normal(2, 64, 5, 5, dtype=dtype), normal(2, 9, 64, seed=1, dtype=dtype)
    sides = subset(2, 9), subset(2, 9, seed=1)
    for score in (cosine_logits, lambda f, p: density_logits(f, p, *sides)):
        found = score(features, points)
        assert found.dtype == torch.float32
        assert_close(found, score(features.float(), points.float()), rtol=0, atol=0)
        assert score(features, points.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_vectors_have_the_cosine_zero(dtype):
    ones, zeros = torch.ones(1, 4, 2, 2, dtype=dtype), torch.zeros(1, 4, 2, 2, dtype=dtype)
    for features, prototypes in ((zeros, ones), (ones, zeros), (zeros, zeros)):
        leaf = features.clone().requires_grad_()
        found = cosine_logits(leaf, prototypes.flatten(2).mT, bias=0.25)
        assert (found == 0.25).all()
        found.sum().backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("magnitudes", [(1e-30, 1e-30), (1e30, 1e30), (1e30, 1e-30)])
def test_scores_do_not_depend_on_lengths(magnitudes):
    features, points = normal(2, 4, 5, 5), normal(2, 9, 4, seed=1)
    sides = subset(2, 9), subset(2, 9, seed=1)
    for score in (cosine_logits, lambda f, p: density_logits(f, p, *sides)):
        expected = score(features, points)
        assert_close(score(features * magnitudes[0], points * magnitudes[1]), expected, rtol=1e-5, atol=1e-5)


# Densities


@pytest.mark.parametrize("kappa", [0.0, 1.0, 40.0])
@pytest.mark.parametrize("num_points", [1, 6])
@pytest.mark.parametrize(("batch", "channels", "height", "width"), SHAPES)
def test_densities_are_as_written_out(batch, channels, height, width, num_points, kappa):
    features = normal(batch, channels, height, width, dtype=torch.float64)
    points = normal(batch, num_points, channels, seed=1, dtype=torch.float64)
    for foreground, background in (
        (subset(batch, num_points), subset(batch, num_points, seed=3)),
        (uniform(batch, num_points), uniform(batch, num_points, seed=3)),
    ):
        expected = densities(features, points, foreground, background, kappa)
        found = density_logits(features, points, foreground, background, kappa=kappa)
        assert_close(found, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("kappa", [0.0, 20.0, 40.0])
def test_densities_in_float32(kappa):
    features, points = normal(2, 8, 5, 4), normal(2, 30, 8, seed=1)
    foreground, background = subset(2, 30), subset(2, 30, seed=3)
    expected = densities(features, points, foreground, background, kappa)
    found = density_logits(features, points, foreground, background, kappa=kappa)
    assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_densities_by_hand():
    features = torch.tensor([[[[2.0, 0.0]], [[0.0, 3.0]]]])
    points = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [5.0, 0.0]]])
    foreground, background = torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    e = math.e
    right, left = math.log((e + 0.5) / 1.5), math.log((1 + 0.5 * e) / 1.5)
    expected = torch.tensor([[[[1.0, 0.0]], [[right, left]]]])
    assert_close(density_logits(features, points, foreground, background, kappa=1.0), expected)


@pytest.mark.parametrize("kappa", [40.0, 160.0, 1e4])
def test_a_sharp_kernel_stays_finite_and_right_up_to_its_floor(kappa):
    features, points = normal(2, 8, 5, 4, dtype=torch.float64), normal(2, 30, 8, seed=1, dtype=torch.float64)
    sides = subset(2, 30), subset(2, 30, seed=3)
    exact = density_logits(features, points, *sides, kappa=kappa)
    found = density_logits(features.float(), points.float(), *sides, kappa=kappa)
    assert found.isfinite().all()
    near = exact.diff(dim=1).abs() < 80
    assert near.any()
    assert_close(found.diff(dim=1)[near].double(), exact.diff(dim=1)[near], rtol=1e-3, atol=1e-2)
    clear = exact.diff(dim=1).abs() > 1  # of points on both sides some locations are as near to one as to the other
    assert torch.equal(found.diff(dim=1)[clear] > 0, exact.diff(dim=1)[clear] > 0)


def test_a_point_counts_as_often_as_its_weight_says():
    features, points = normal(2, 4, 3, 5), normal(2, 6, 4, seed=1)
    foreground, background = uniform(2, 6), uniform(2, 6, seed=1)
    expected = density_logits(features, points, foreground, background)
    half = density_logits(features, points, foreground / 2, background / 4)
    assert_close(half, expected)
    copies = [torch.cat([each] * 5, dim=1) for each in (points, foreground, background)]
    assert_close(density_logits(features, *copies), expected)
    assert_close(density_logits(features, *(each.flip(1) for each in (points, foreground, background))), expected)


def test_void_and_rounded_weights_do_not_count():
    features, points = normal(2, 4, 3, 5), normal(2, 6, 4, seed=1)
    foreground, background = uniform(2, 6), uniform(2, 6, seed=1)
    foreground[:, 4:], background[:, 4:] = 0, 0
    expected = density_logits(features, points[:, :4], foreground[:, :4], background[:, :4])
    assert_close(density_logits(features, points, foreground, background), expected)
    foreground[:, 4:] = 5e-7
    assert_close(density_logits(features, points, foreground, background), expected)
    foreground[:, 4:] = 5e-6
    assert not torch.equal(density_logits(features, points, foreground, background), expected)


def test_a_near_void_point_does_not_hide_far_points_from_a_sharp_kernel():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[..., None, None]
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]).expand(2, -1, -1)
    foreground = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # what is void for one image is not for the other
    background = torch.tensor([[0.0, 0.0, 1.0]] * 2)
    logits = density_logits(features, points, foreground, background, kappa=1000.0)
    assert_close(logits[0].flatten(), torch.tensor([-1000.0, -1000.0]))


@pytest.mark.parametrize("kappa", [1.0, 40.0, torch.tensor(40.0)])
def test_without_one_side(kappa):
    features, points, all_, none = normal(2, 4, 3, 5), normal(2, 6, 4, seed=1), torch.ones(2, 6), torch.zeros(2, 6)
    both = density_logits(features, points, all_, all_, kappa=kappa)
    found = density_logits(features, points, none, all_, kappa=kappa)
    assert_close(found[:, 0], both[:, 0])
    assert (found[:, 1] == -2 * kappa).all()
    assert (found[:, 1] <= found[:, 0] - kappa + 1e-4).all()
    found = density_logits(features, points, all_, none, kappa=kappa)
    assert_close(found[:, 1], both[:, 1])
    assert (found[:, 0] == -kappa).all()
    found = density_logits(features, points, none, none, kappa=kappa)
    assert (found[:, 1] < found[:, 0]).all()


def test_without_one_side_gradients_are_finite():
    leaves = normal(1, 4, 3, 5), normal(1, 6, 4, seed=1), torch.zeros(1, 6), torch.zeros(1, 6)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    density_logits(*leaves).sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_gradients():
    features, points = normal(1, 3, 2, 2, dtype=torch.float64), normal(1, 4, 3, seed=1, dtype=torch.float64)
    foreground, background = (uniform(1, 4, seed=seed, dtype=torch.float64) / 2 + 0.25 for seed in (2, 3))
    kappa = torch.tensor(3.0, dtype=torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (features, points, foreground, background, kappa)]
    assert torch.autograd.gradcheck(lambda *t: density_logits(*t[:4], kappa=t[4]), leaves)
    assert torch.autograd.gradcheck(lambda f, p: cosine_logits(f, p[:, None], scale=2.0), (features, points))


def test_chunks_change_nothing(monkeypatch):
    features, points = normal(2, 8, 5, 4), normal(2, 30, 8, seed=1)
    sides = subset(2, 30), subset(2, 30, seed=3)
    expected = density_logits(features, points, *sides)
    for chunk in (1, 70, 300):
        monkeypatch.setattr(scores, "CHUNK", chunk)
        assert_close(density_logits(features, points, *sides), expected)


def test_cosines_that_are_held_at_once_are_bounded(monkeypatch):
    sizes = []

    def counted(queries, directions, *others):
        sizes.append(queries.shape[1] * directions.shape[2])
        return log_sums(queries, directions, *others)

    log_sums = scores._log_sums
    monkeypatch.setattr(scores, "_log_sums", counted)
    monkeypatch.setattr(scores, "CHUNK", 1000)
    density_logits(normal(1, 4, 32, 32), normal(1, 400, 4), torch.ones(1, 400), torch.ones(1, 400))
    assert max(sizes) <= 1000
    assert sum(sizes) == 32 * 32 * 400
    sizes.clear()
    half = (torch.arange(400) % 2)[None]
    density_logits(normal(1, 4, 32, 32), normal(1, 400, 4), half, torch.zeros(1, 400))
    assert sum(sizes) == 32 * 32 * 200  # a void point is compared with nothing


def test_each_image_has_void_points_of_its_own():
    features, points = normal(2, 4, 3, 5), normal(2, 6, 4, seed=1)
    foreground, background = uniform(2, 6), uniform(2, 6, seed=1)
    for image, void in enumerate(([0, 2, 5], [1, 5])):
        foreground[image, void] = background[image, void] = 0
    each = zip(features, points, foreground, background, strict=True)
    expected = torch.cat([density_logits(*(part[None] for part in parts)) for parts in each])
    assert_close(density_logits(features, points, foreground, background), expected)


@given(seed=seeds)
def test_the_nearer_side_wins_with_one_point_each(seed):
    features, points = normal(1, 4, 4, 3, seed=seed), normal(1, 2, 4, seed=seed + 1)
    foreground = torch.tensor([[1.0, 0.0]])
    logits = density_logits(features, points, foreground, 1 - foreground)
    cosines = cosine_logits(features, points, scale=40.0)
    assert_close(logits, cosines.flip(1), rtol=1e-5, atol=1e-4)
