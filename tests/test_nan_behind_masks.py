"""What isn't finite outside a mask reaches neither results nor gradients: 0 * NaN is NaN, so it has to be taken out."""

import math

import pytest
import torch
from torch.testing import assert_close

from _inputs import generator, label_masks, normal, subset, uniform
from _ways import way  # noqa: F401 (a fixture)
from fewshotseg import (
    CosineKMeans,
    FewShotIoU,
    SelfContrastiveLoss,
    cosine_kmeans,
    cosine_logits,
    density_logits,
    masked_average_pool,
    prior_mask,
    sample_centroids,
    segmentation_loss,
    self_contrastive_pairs,
)

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])]


def spoiled(tensor, where, bad):
    """``tensor`` with ``bad`` where the mask is true, in some channels only, as a leaf."""
    some = torch.zeros_like(tensor, dtype=torch.bool)
    some[:, ::2] = True
    return torch.where(where[:, None] & some, bad, tensor).requires_grad_()


def compare(features, prototype_map):
    score = torch.cosine_similarity(features, prototype_map, dim=1)
    return 10 * torch.stack([-score, score], dim=1)


# Pooling


@pytest.mark.parametrize("kind", ["bool", "weights", "several"])
def test_pooling(bad, kind):
    features = normal(2, 6, 5, 4)
    masks = {
        "bool": subset(2, 5, 4),
        "weights": uniform(2, 5, 4) * subset(2, 5, 4),
        "several": subset(2, 3, 5, 4) & subset(2, 5, 4, seed=1)[:, None],
    }[kind]
    outside = (masks if masks.ndim == 3 else masks.any(dim=1)) == 0
    assert outside.any()
    leaf = spoiled(features, outside, bad)
    pooled = masked_average_pool(leaf, masks)
    assert_close(pooled, masked_average_pool(features, masks))
    pooled.sum().backward()
    clean = features.clone().requires_grad_()
    masked_average_pool(clean, masks).sum().backward()
    assert_close(leaf.grad, clean.grad)


def test_pooling_tells_masks_apart(bad):
    features = torch.tensor([[[[1.0, 2.0, bad, 4.0]], [[1.0, 2.0, 3.0, 4.0]]]])
    masks = torch.tensor([[[[1, 1, 0, 0]], [[0, 0, 1, 1]], [[0, 0, 0, 1]]]]).bool()
    expected = torch.tensor([[[1.5, 1.5], [math.nan, 3.5], [4.0, 4.0]]])
    assert_close(masked_average_pool(features, masks), expected, equal_nan=True)


def test_pooling_hides_nothing_of_little_weight(bad):
    features = torch.tensor([[[[1.0, bad]]]])
    assert masked_average_pool(features, torch.tensor([[[1.0, 0.1]]])).isnan()


def test_gradients_of_weights(bad):
    weights = torch.tensor([[[0.5, 0.5, 0.0]]]).requires_grad_()
    masked_average_pool(torch.tensor([[[[1.0, 2.0, bad]]]]), weights).sum().backward()
    assert weights.grad.isfinite().all()
    assert_close(weights.grad[0, 0, :2], torch.tensor([-0.5, 0.5]))


# The prior


def test_support_background_in_the_prior(bad):
    query, support, masks = normal(2, 6, 5, 4), normal(2, 2, 6, 5, 4, seed=1), subset(2, 2, 5, 4)
    leaf = spoiled(support.flatten(0, 1), ~masks.flatten(0, 1), bad).detach().view_as(support)
    assert_close(prior_mask(query, leaf, masks), prior_mask(query, support, masks))


def test_a_query_location_that_is_not_finite_has_no_prior_and_spoils_no_other(bad):
    query = torch.tensor([[[[1.0, 0.0, 1.0, bad]], [[0.0, 1.0, 1.0, 0.0]]]])
    support = torch.tensor([[[[[1.0, 0.0]], [[0.0, 1.0]]]]])
    prior = prior_mask(query, support, torch.tensor([[[[1, 0]]]]))
    assert_close(prior, torch.tensor([[[[1.0, 0.0, 0.5**0.5, 0.0]]]]))
    assert (prior_mask(torch.full_like(query, bad), support, torch.tensor([[[[1, 0]]]])) == 0).all()


def test_a_support_that_is_not_finite_is_not_hidden(bad):
    support = torch.tensor([[[[[1.0, bad]], [[0.0, 1.0]]]]])
    assert prior_mask(torch.ones(1, 2, 1, 3), support, torch.tensor([[[[1, 1]]]])).isnan().all()


# Scores


def test_points_that_are_not_finite_have_no_density(bad):
    features, points, foreground, background = normal(2, 6, 5, 4), normal(2, 9, 6), subset(2, 9), uniform(2, 9)
    usable = subset(2, 9, seed=2)
    leaf = spoiled(points.mT, ~usable, bad)
    found = density_logits(features, leaf.mT, foreground, background)
    assert_close(found, density_logits(features, points, foreground & usable, background * usable))
    found.sum().backward()
    assert leaf.grad.isfinite().all()
    assert (leaf.grad.mT[~usable] == 0).all()


def test_locations_that_are_not_finite_score_as_zeros(bad):
    features, points, where = normal(2, 6, 5, 4), normal(2, 9, 6), subset(2, 5, 4)
    zeros = torch.where(where[:, None], 0, features)
    for score in (
        lambda maps: density_logits(maps, points, subset(2, 9), uniform(2, 9)),
        lambda maps: cosine_logits(maps, points),
    ):
        leaf = spoiled(features, where, bad)
        found = score(leaf)
        assert_close(found, score(zeros))
        found.sum().backward()
        assert leaf.grad.isfinite().all()


# k-means


@pytest.mark.parametrize("num_clusters", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_points_that_are_not_finite_move_nothing(bad, num_clusters, masked):
    points, valid = normal(2, 41, 6), subset(2, 41)
    unusable = ~subset(2, 41, seed=2)
    hole = torch.where(unusable[..., None] & (torch.arange(6) % 2 == 0), bad, points)
    allowed = valid & ~unusable if masked else ~unusable
    init = sample_centroids(points, num_clusters, valid=allowed, generator=generator(1))
    expected = cosine_kmeans(points, init, valid=allowed)
    result = cosine_kmeans(hole, init, valid=valid if masked else None)
    assert_close(result.centroids, expected.centroids)
    assert_close(result.counts, expected.counts)
    assert_close(result.labels[~unusable], expected.labels[~unusable])
    assert (result.labels[unusable] == 0).all()


@pytest.mark.parametrize("num_clusters", [1, 3, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_points_that_are_not_finite_are_never_drawn(bad, num_clusters, masked):
    points = normal(3, 12, 4)
    hole = points.clone()
    hole[:, 1::2, 2] = bad
    valid = torch.arange(12).expand(3, -1) < 8
    usable = hole.isfinite().all(dim=2) & (valid if masked else True)
    for seed in range(20):
        drawn = sample_centroids(hole, num_clusters, valid=valid if masked else None, generator=generator(seed))
        expected = sample_centroids(points, num_clusters, valid=usable, generator=generator(seed))
        assert_close(drawn, expected, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_without_a_usable_point_a_start_is_still_finite(bad, masked):
    points = torch.full((2, 5, 3), bad)
    points[0, :, 0] = 1.0
    valid = torch.zeros(2, 5, dtype=torch.bool) if masked else None
    init = sample_centroids(points, 2, valid=valid)
    assert_close(init[0], torch.tensor([[1.0, 0.0, 0.0]] * 2))
    assert_close(init[1], torch.zeros(2, 3))
    result = cosine_kmeans(points, init, valid=valid)
    assert result.centroids.isfinite().all()
    assert (result.labels == 0).all()
    assert (result.counts == 0).all()


def test_a_partition_of_a_padded_map(bad):
    features = normal(2, 6, 5, 4)
    padding = torch.zeros(2, 5, 4, dtype=torch.bool)
    padding[:, :, 3:] = True
    padded = spoiled(features, padding, bad)
    labels = CosineKMeans(3)(padded, generator=generator(0))
    assert_close(labels, CosineKMeans(3)(features, valid=~padding, generator=generator(0)).masked_fill(padding, 0))


# Losses


@pytest.mark.parametrize("size", [(9, 7), (5, 4), (1, 1)])
def test_logits_of_void(bad, size):
    logits, target = normal(2, 2, 9, 7), label_masks(2, 9, 7)
    if size != (9, 7):  # a coarse logit, and void wherever it has weight
        logits, target[0] = normal(2, 2, *size), 255
    void = target == 255 if size == (9, 7) else torch.tensor([True, False])[:, None, None].expand(2, *size)
    leaf, clean = spoiled(logits, void, bad), logits.clone().requires_grad_()
    loss, expected = segmentation_loss(leaf, target), segmentation_loss(clean, target)
    assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert_close(leaf.grad, clean.grad)


def test_a_coarse_logit_reaches_only_pixels_that_it_has_weight_in(bad):
    logits = normal(1, 2, 1, 3).requires_grad_()
    hole = logits.detach().clone()
    hole[..., 2] = bad
    hole.requires_grad_()
    target = torch.tensor([[[0, 1, 1, 0, 1, 255, 255, 255, 255]]])  # a step of 4: pixel 4 lies on logit 1
    loss, expected = segmentation_loss(hole, target), segmentation_loss(logits, target)
    assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert_close(hole.grad, logits.grad)
    target[0, 0, 5] = 0
    assert not segmentation_loss(hole, target).isfinite()


def test_logits_that_count_are_not_hidden(bad):
    logits, target = normal(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64)
    target[0, 0, 0] = 1
    logits[0, :, 1, 1] = bad
    assert segmentation_loss(logits, target).isnan()
    target[0, 1, 1] = 255
    assert segmentation_loss(logits, target).isfinite()


def test_a_logit_of_little_weight_is_not_hidden(bad):
    logits, target = normal(1, 2, 1, 2), torch.full((1, 1, 33), 255)
    logits[..., 1] = bad
    target[0, 0, 1] = 1  # the second logit has 1/32 of the weight there
    assert segmentation_loss(logits, target).isnan()


def padded_query(bad):
    """Features and cluster features that are not finite under void, and the same without any such."""
    masks = label_masks(2, 33, 33)
    masks[:, :, 20:] = 255
    void = masks[:, ::8, ::8] == 255
    features, high = normal(2, 6, 5, 5), normal(2, 8, 5, 5, seed=1)
    return masks, features, high, spoiled(features, void, bad), spoiled(high, void, bad)


def test_pairs_of_a_padded_query(bad):
    masks, features, _, padded, padded_high = padded_query(bad)
    pairs = self_contrastive_pairs(padded, padded_high, masks, partition=CosineKMeans(2), generator=generator(0))
    assert pairs.prototypes.isfinite().all()
    assert pairs.prototype_map.isfinite().all()
    same = self_contrastive_pairs(features, padded_high, masks, partition=CosineKMeans(2), generator=generator(0))
    for pair, expected in zip(pairs, same, strict=True):
        assert_close(pair, expected)
    pairs.prototype_map.sum().backward()
    assert padded.grad.isfinite().all()


def test_the_loss_of_a_padded_query(bad):
    masks, _, _, padded, padded_high = padded_query(bad)

    def trained(leaf):
        loss = SelfContrastiveLoss(2)(leaf, padded_high, masks, compare, generator=generator(0))
        loss.backward()
        return loss, leaf.grad

    taken_as_zero = torch.where(padded.isfinite(), padded, 0).detach().requires_grad_()
    loss, gradient = trained(padded)
    expected, expected_gradient = trained(taken_as_zero)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert_close(loss, expected)
    assert_close(gradient[padded.isfinite()], expected_gradient[padded.isfinite()])
    assert (gradient[~padded.isfinite()] == 0).all()
    assert padded_high.grad is None


def test_features_that_count_are_not_hidden_by_the_loss(bad):
    masks, features, high, _, _ = padded_query(bad)
    features[0, 0, 0, 0] = bad
    masks[0, 0, 0] = 1
    assert not SelfContrastiveLoss(2)(features, high, masks, compare).isfinite()


# The metric


def test_the_metric(bad):
    target = torch.tensor([[[1, 0, 255]]])
    logits = torch.tensor([[[[0.0, 1.0, bad]], [[1.0, 0.0, bad]]]])
    metric = FewShotIoU([1])
    metric.update(logits, target, 1)
    assert metric.compute().miou == 1.0
