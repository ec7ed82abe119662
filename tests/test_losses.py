import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import _reference as reference
from _inputs import choice, generator, label_masks, normal
from _strategies import seeds
from fewshotseg import (
    CosineKMeans,
    GridPartition,
    SelfContrastiveLoss,
    background_target,
    cosine_kmeans,
    sample_centroids,
    segmentation_loss,
    self_contrastive_pairs,
)
from fewshotseg.ops._cross_entropy import cross_entropies


class FixedPartition(nn.Module):
    """Regions that a test chooses, so that nothing but the foreground's prototype is left to chance."""

    def __init__(self, labels, num_regions):
        super().__init__()
        self.labels = labels
        self.num_regions = num_regions

    def forward(self, cluster_features, *, valid=None, generator=None):
        return self.labels


def linear_compare(features, prototype_map):
    """Depends on both maps, and differently at every channel."""
    weights = torch.arange(1, features.shape[1] + 1, dtype=features.dtype, device=features.device)
    score = ((features * prototype_map).sin() * weights[:, None, None]).sum(dim=1)
    return torch.stack([-score, score], dim=1)


# self_contrastive_pairs


def drawn_prototypes(pairs, masks):
    """For each image which prototype stands at all of its foreground locations; fails if none does."""
    masks = reference.sample_nearest(masks.numpy(), pairs.prototype_map.shape[-2:])
    drawn = []
    for b in range(len(masks)):
        foreground = pairs.prototype_map[b].detach()[:, torch.from_numpy(masks[b] == 1)]
        same = [(foreground == prototype[:, None]).all().item() for prototype in pairs.prototypes[b].detach()]
        candidates = [k for k, equal in enumerate(same) if equal and pairs.valid[b, k]]
        assert candidates or not pairs.valid[b].any(), "no single valid prototype stands at the foreground"
        drawn.append(candidates[0] if candidates else 0)
    return drawn


def assert_equals_reference(features, labels, masks, num_regions, seed=0):
    partition = FixedPartition(labels, num_regions)
    # What the cluster features hold can't matter to a fixed partition; only their labels' grid does.
    cluster_features = torch.zeros(len(labels), 2, *labels.shape[1:])
    pairs = self_contrastive_pairs(features, cluster_features, masks, partition=partition, generator=generator(seed))
    drawn = drawn_prototypes(pairs, masks)
    expected = reference.self_contrastive_pairs(
        reference.array(features), labels.numpy(), masks.numpy(), num_regions, drawn
    )
    assert_close(pairs.prototypes, torch.from_numpy(expected.prototypes).to(features.dtype))
    assert_close(pairs.valid, torch.from_numpy(expected.valid))
    assert_close(pairs.target, torch.from_numpy(expected.target))
    prescribed = torch.from_numpy(expected.prototype_map).to(features.dtype)
    assert pairs.prototype_map.isfinite().all()
    assert_close(pairs.prototype_map.masked_fill(prescribed.isnan(), math.nan), prescribed, equal_nan=True)
    # Where the value isn't prescribed, it still is a valid prototype of the image.
    for b, i, j in prescribed.isnan()[:, 0].nonzero().tolist():
        if pairs.valid[b].any():
            matches = (pairs.prototype_map[b, :, i, j] == pairs.prototypes[b]).all(dim=1)
            assert (matches & pairs.valid[b]).any()
    return pairs


@pytest.mark.parametrize("num_regions", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("batch", "size", "cluster_size", "mask_size"),
    [
        (1, (1, 1), (1, 1), (1, 1)),
        (2, (5, 4), (5, 4), (5, 4)),
        (2, (6, 4), (3, 7), (13, 30)),
        (3, (5, 5), (5, 5), (33, 33)),
        (1, (4, 6), (9, 2), (3, 5)),
        (2, (5, 9), (9, 17), (17, 33)),
    ],
)
def test_pairs_are_eq_5_to_7(batch, size, cluster_size, mask_size, num_regions):
    features = normal(batch, 3, *size, dtype=torch.float64)
    labels = choice(range(num_regions), batch, *cluster_size)
    masks = label_masks(batch, *mask_size, seed=1)
    for seed in range(3):
        assert_equals_reference(features, labels, masks, num_regions, seed)


def test_pairs_by_hand():
    features = torch.tensor([[[[1.0, 3.0, 5.0, 100.0, 7.0, 50.0]]]])
    labels = torch.tensor([[[0, 0, 1, 1, 2, 1]]])
    masks = torch.tensor([[[0, 0, 0, 255, 1, 1]]])
    pairs = assert_equals_reference(features, labels, masks, 3)
    assert pairs.prototypes.flatten().tolist() == [2.0, 5.0, 0.0]
    assert pairs.valid.tolist() == [[True, True, False]]
    assert pairs.target.tolist() == [[[1, 1, 1, 255, 0, 0]]]
    background, foreground = pairs.prototype_map[0, 0, 0, :4], pairs.prototype_map[0, 0, 0, 4:]
    assert background.tolist() == [2.0, 2.0, 5.0, 5.0]
    assert foreground.tolist() in ([2.0, 2.0], [5.0, 5.0])


def test_void_in_an_empty_region_gets_a_valid_prototype():
    features = torch.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    labels = torch.tensor([[[0, 0, 1, 2, 3, 3]]])
    masks = torch.tensor([[[0, 0, 255, 1, 0, 255]]])
    for seed in range(10):
        pairs = assert_equals_reference(features, labels, masks, 4, seed)
        assert pairs.valid.tolist() == [[True, False, False, True]]
        values = pairs.prototype_map[0, 0, 0].tolist()
        assert values[2] in (1.5, 5.0)
        assert values[5] == 5.0


@pytest.mark.parametrize("value", [1, 255])
def test_an_image_without_background_is_void_throughout(value):
    features, labels = normal(2, 3, 4, 4), choice([0, 1, 2], 2, 4, 4)
    masks = label_masks(2, 9, 9)
    masks[0] = value
    masks[0, :2] = 255
    pairs = assert_equals_reference(features, labels, masks[:, [0, 1, 3, 5, 7, 8]][..., [0, 1, 3, 5, 7, 8]], 3)
    assert (pairs.target[0] == 255).all()
    assert not pairs.valid[0].any()
    assert (pairs.prototypes[0] == 0).all()
    assert pairs.valid[1].any()


def test_background_that_no_feature_sees_is_void():
    masks = torch.ones(1, 5, 5, dtype=torch.long)
    masks[0, 1, 1] = 0  # between the samples at 0, 2 and 4
    pairs = assert_equals_reference(normal(1, 3, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long), masks, 2)
    assert (pairs.target == 255).all()


def test_an_image_without_foreground():
    features, labels = normal(1, 3, 4, 4), choice([0, 1, 2], 1, 4, 4)
    pairs = assert_equals_reference(features, labels, torch.zeros(1, 9, 9, dtype=torch.long)[:, :4, :4], 3)
    assert (pairs.target == 1).all()
    assert_close(pairs.valid, torch.stack([(labels == k).flatten(1).any(dim=1) for k in range(3)], dim=1))


def test_another_void():
    features, labels = normal(1, 3, 1, 4), torch.tensor([[[0, 0, 1, 1]]])
    usual, other = torch.tensor([[[0, 1, 255, 0]]]), torch.tensor([[[0, 1, 7, 0]]])
    partition = FixedPartition(labels, 2)
    expected = self_contrastive_pairs(features, features, usual, partition=partition, generator=generator(0))
    pairs = self_contrastive_pairs(
        features, features, other, partition=partition, generator=generator(0), ignore_index=7
    )
    assert pairs.target.tolist() == [[[1, 0, 7, 1]]]
    for one, two in zip(pairs[:3], expected[:3], strict=True):
        assert_close(one, two)
    without_background = torch.tensor([[[1, 1, 7, 1]]])
    pairs = self_contrastive_pairs(features, features, without_background, partition=partition, ignore_index=7)
    assert (pairs.target == 7).all()


def test_regions_are_found_over_the_whole_map():
    # Sec. 3.2.2 clusters every location, foreground and void too, and only then takes them out.
    features, cluster_features = normal(2, 3, 5, 5), normal(2, 6, 5, 5, seed=1)
    masks = label_masks(2, 33, 33)
    pairs = self_contrastive_pairs(features, cluster_features, masks, partition=CosineKMeans(3), generator=generator(4))
    points = cluster_features.flatten(2).mT
    init = sample_centroids(points, 3, generator=generator(4))
    labels = cosine_kmeans(points, init).labels.reshape(2, 5, 5)
    expected = assert_equals_reference(features, labels, masks, 3)
    assert_close(pairs.prototypes, expected.prototypes)
    assert_close(pairs.valid, expected.valid)


@pytest.mark.parametrize("partition", [CosineKMeans(3), GridPartition(2)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pairs_keep_the_dtype_of_the_features(partition, dtype):
    features, masks = normal(2, 4, 6, 6, dtype=dtype), label_masks(2, 33, 33)
    pairs = self_contrastive_pairs(features, features, masks, partition=partition)
    assert pairs.prototypes.dtype == pairs.prototype_map.dtype == dtype
    assert pairs.target.dtype == torch.int64
    assert pairs.valid.dtype == torch.bool


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_masks_of_small_whole_numbers(dtype):
    features, masks = normal(2, 4, 6, 6), label_masks(2, 33, 33)
    expected, pairs = (
        self_contrastive_pairs(features, features, m, partition=GridPartition(2), generator=generator(0))
        for m in (masks, masks.to(dtype))
    )
    assert pairs.target.dtype == torch.int64
    for one, two in zip(pairs, expected, strict=True):
        assert_close(one, two)


def test_the_foreground_prototype_is_drawn_uniformly_for_each_image():
    # Regions 0, 1 and 3 have background, of 1, 4 and 2 locations; the area must not count.
    images = 3000
    labels = torch.tensor([[0, 1, 1, 1, 1, 2, 3, 3, 0, 1, 2]]).expand(images, 1, -1)
    masks = torch.tensor([[0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1]]).expand(images, 1, -1)
    features = normal(1, 2, 1, 11).expand(images, -1, -1, -1)
    partition = FixedPartition(labels, 4)
    pairs = self_contrastive_pairs(features, features, masks, partition=partition, generator=generator(0))
    foreground = pairs.prototype_map[:, :, 0, [5, 8, 9, 10]]
    assert (foreground == foreground[..., :1]).all(), "one prototype for all foreground locations of an image"
    matches = (foreground[..., 0][:, None] == pairs.prototypes).all(dim=-1)
    assert (matches.sum(dim=1) == 1).all()
    times = matches.sum(dim=0)
    assert times[2] == 0
    expected = images / 3
    chi_square = ((times[[0, 1, 3]] - expected) ** 2 / expected).sum()
    assert chi_square < 13.8  # 2 degrees of freedom, p = 0.001


@given(seed=seeds, num_regions=st.integers(1, 5))
def test_any_pairs(seed, num_regions):
    features = normal(2, 3, 4, 6, seed=seed)
    labels = choice(range(num_regions), 2, 5, 3, seed=seed)
    assert_equals_reference(features, labels, label_masks(2, 9, 7, seed=seed), num_regions, seed)


@given(seed=seeds)
def test_images_are_paired_on_their_own(seed):
    features, labels, masks = normal(3, 3, 4, 6, seed=seed), choice([0, 1, 2], 3, 4, 6, seed=seed), label_masks(3, 9, 7)
    together = self_contrastive_pairs(features, features, masks, partition=FixedPartition(labels, 3))
    for b in range(3):
        one = slice(b, b + 1)
        alone = self_contrastive_pairs(
            features[one], features[one], masks[one], partition=FixedPartition(labels[one], 3)
        )
        assert_close(together.prototypes[one], alone.prototypes)
        assert_close(together.valid[one], alone.valid)
        assert_close(together.target[one], alone.target)


def test_gradients_of_pairs():
    labels, masks = choice([0, 1, 2], 2, 4, 3), label_masks(2, 4, 3)
    features = normal(2, 2, 4, 3, dtype=torch.float64).requires_grad_()
    cluster_features = normal(2, 5, 4, 3, dtype=torch.float64).requires_grad_()

    def prototype_map(f):
        pairs = self_contrastive_pairs(
            f, cluster_features, masks, partition=FixedPartition(labels, 3), generator=generator(0)
        )
        return pairs.prototypes, pairs.prototype_map

    assert torch.autograd.gradcheck(prototype_map, (features,))
    pairs = self_contrastive_pairs(features, cluster_features, masks, partition=CosineKMeans(2))
    assert not pairs.valid.requires_grad
    assert not pairs.target.requires_grad
    pairs.prototype_map.sum().backward()
    assert cluster_features.grad is None
    assert features.grad is not None
    assert (features.grad.movedim(1, -1)[masks != 0] == 0).all()
    assert (features.grad.movedim(1, -1)[masks == 0] != 0).all()


def test_gradients_are_finite_without_background():
    features = normal(2, 2, 4, 3).requires_grad_()
    masks = torch.ones(2, 4, 3, dtype=torch.long)
    pairs = self_contrastive_pairs(features, features, masks, partition=CosineKMeans(2))
    (pairs.prototype_map.sum() + pairs.prototypes.sum()).backward()
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_pairs_draw_from_the_generator_alone():
    features, masks = normal(3, 4, 7, 7), label_masks(3, 33, 33)
    before = torch.get_rng_state()
    first, again = (
        self_contrastive_pairs(features, features, masks, partition=CosineKMeans(3), generator=generator(1))
        for _ in range(2)
    )
    assert_close(torch.get_rng_state(), before)
    for one, two in zip(first, again, strict=True):
        assert_close(one, two, rtol=0, atol=0)


def test_pairs_draw_from_torch_without_a_generator():
    features, masks = normal(3, 4, 7, 7), label_masks(3, 33, 33)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = self_contrastive_pairs(features, features, masks, partition=CosineKMeans(3))
        torch.manual_seed(3)
        again = self_contrastive_pairs(features, features, masks, partition=CosineKMeans(3))
    assert_close(first.prototype_map, again.prototype_map, rtol=0, atol=0)


def test_the_same_drawing_without_a_partition_that_draws():
    features, masks = normal(40, 2, 4, 4), label_masks(40, 4, 4)
    partition = GridPartition(2)
    maps = [
        self_contrastive_pairs(features, features, masks, partition=partition, generator=generator(seed)).prototype_map
        for seed in (1, 1, 2)
    ]
    assert_close(maps[0], maps[1], rtol=0, atol=0)
    assert not torch.equal(maps[0], maps[2])


FEATURES, CLUSTER, MASKS = torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 3, 3), torch.zeros(2, 9, 9, dtype=torch.long)

BAD_PAIRS = [
    (FEATURES[0], CLUSTER, MASKS, ValueError, "features"),
    (FEATURES.tolist(), CLUSTER, MASKS, TypeError, "features"),
    (FEATURES.long(), CLUSTER, MASKS, TypeError, "features"),
    (FEATURES, CLUSTER[0], MASKS, ValueError, "cluster_features"),
    (FEATURES, CLUSTER.tolist(), MASKS, TypeError, "cluster_features"),
    (FEATURES, CLUSTER.long(), MASKS, TypeError, "cluster_features"),
    (FEATURES, CLUSTER[:1], MASKS, ValueError, "cluster_features"),
    (FEATURES, CLUSTER, MASKS[0], ValueError, "query_masks"),
    (FEATURES, CLUSTER, MASKS[:, None], ValueError, "query_masks"),
    (FEATURES, CLUSTER, MASKS.tolist(), TypeError, "query_masks"),
    (FEATURES, CLUSTER, MASKS.float(), TypeError, "query_masks"),
    (FEATURES, CLUSTER, MASKS[:1], ValueError, "query_masks"),
]


@pytest.mark.parametrize(("features", "cluster_features", "masks", "error", "name"), BAD_PAIRS)
def test_bad_pairs_are_refused(features, cluster_features, masks, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        self_contrastive_pairs(features, cluster_features, masks, partition=CosineKMeans(2))


# background_target


def test_target_is_the_complement():
    masks = torch.tensor([[[0, 1, 255]]])
    for dtype in (torch.uint8, torch.int32, torch.int64):
        target = background_target(masks.to(dtype))
        assert target.dtype == torch.int64
        assert target.tolist() == [[[1, 0, 255]]]
    assert background_target(torch.tensor([[[0, 1, 3]]]), ignore_index=3).tolist() == [[[1, 0, 3]]]


# segmentation_loss


@pytest.mark.parametrize(
    ("batch", "size", "target_size"),
    [(1, (1, 1), (1, 1)), (2, (5, 4), (5, 4)), (3, (3, 4), (9, 6)), (1, (9, 8), (3, 5)), (2, (1, 1), (4, 3))],
)
def test_loss_is_the_mean_over_labelled_pixels(batch, size, target_size):
    logits, target = 3 * normal(batch, 2, *size, dtype=torch.float64), label_masks(batch, *target_size)
    loss = segmentation_loss(logits, target)
    assert loss.shape == ()
    assert_close(loss.item(), reference.segmentation_loss(logits.numpy(), target.numpy()))


def test_loss_by_hand():
    logits = torch.tensor([[[[0.0, 0.0, 1.0]], [[0.0, math.log(3), 1.0]]]])
    loss = segmentation_loss(logits, torch.tensor([[[1, 0, 255]]]))
    assert_close(loss.item(), (math.log(2) + math.log(4)) / 2)


def test_another_void_in_the_loss():
    logits, target = normal(2, 2, 5, 5), label_masks(2, 5, 5)
    other = target.masked_fill(target == 255, -100)
    assert_close(segmentation_loss(logits, other, ignore_index=-100), segmentation_loss(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_scored_in_float32(dtype):
    logits, target = 10 * normal(2, 2, 5, 5, dtype=dtype), label_masks(2, 65, 65)
    loss = segmentation_loss(logits, target)
    assert loss.dtype == torch.float32
    assert_close(loss, segmentation_loss(logits.float(), target), rtol=0, atol=0)


@pytest.mark.parametrize("magnitude", [0.0, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("size", [(4, 4), (9, 9)])
def test_without_a_labelled_pixel_the_loss_is_zero(magnitude, size):
    logits = (normal(2, 2, 4, 4).sign() * magnitude).requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, *size), 255))
    assert loss == 0
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_extreme_logits(magnitude):
    logits, target = (normal(2, 2, 4, 4) * magnitude).requires_grad_(), label_masks(2, 9, 9)
    loss = segmentation_loss(logits, target)
    expected = reference.segmentation_loss(reference.array(logits), target.numpy())
    assert_close(loss.item(), expected, rtol=1e-4, atol=0)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gradients_of_the_loss():
    logits, target = normal(2, 2, 3, 4, dtype=torch.float64).requires_grad_(), label_masks(2, 7, 5)
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, target), (logits,))


def test_void_pixels_send_no_gradient():
    logits, target = normal(2, 2, 5, 5).requires_grad_(), label_masks(2, 5, 5)
    segmentation_loss(logits, target).backward()
    assert logits.grad is not None
    assert (logits.grad.movedim(1, -1)[target == 255] == 0).all()
    assert (logits.grad.movedim(1, -1)[target != 255] != 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_targets_of_small_whole_numbers(dtype):
    logits, target = normal(2, 2, 5, 5), label_masks(2, 9, 9)
    assert_close(segmentation_loss(logits, target.to(dtype)), segmentation_loss(logits, target))


@given(seed=seeds)
def test_every_labelled_pixel_of_the_batch_weighs_the_same(seed):
    logits, target = normal(3, 2, 4, 5, seed=seed), label_masks(3, 7, 6, seed=seed)
    target[1] = 255
    counts = (target != 255).sum(dim=(1, 2))
    alone = torch.stack([segmentation_loss(logits[b : b + 1], target[b : b + 1]) for b in range(3)])
    assert alone[1] == 0
    assert_close(segmentation_loss(logits, target), (alone * counts).sum() / counts.sum())


@pytest.mark.parametrize("hidden", [0.0, math.nan], ids=["finite", "NaN under void"])
def test_losses_of_several_logits_and_targets_at_once_are_those_of_each(hidden):
    logits = [normal(4, 2, *size, seed=number) for number, size in enumerate([(9, 7), (5, 4), (3, 3)])]
    targets = torch.stack([label_masks(2, 9, 7), label_masks(2, 9, 7, seed=1)])
    targets[1, 1] = 255
    logits[1][3] = hidden
    together = cross_entropies(logits, targets, 255)
    each = [
        [segmentation_loss(part, target) for part, target in zip(scale.chunk(2), targets, strict=True)]
        for scale in logits
    ]
    assert_close(together, torch.tensor(each))
    assert torch.equal(cross_entropies(logits, torch.full_like(targets, 255), 255), torch.zeros(3, 2))


LOGITS = torch.zeros(2, 2, 4, 5)


@pytest.mark.parametrize(
    ("logits", "target", "error", "name"),
    [
        (LOGITS[0], MASKS, ValueError, "logits"),
        (LOGITS.tolist(), MASKS, TypeError, "logits"),
        (LOGITS.long(), MASKS, TypeError, "logits"),
        (LOGITS[:, :1], MASKS, ValueError, "logits"),
        (LOGITS.repeat(1, 2, 1, 1), MASKS, ValueError, "logits"),
        (LOGITS, MASKS[0], ValueError, "target"),
        (LOGITS, MASKS[:, None], ValueError, "target"),
        (LOGITS, MASKS[:1], ValueError, "target"),
        (LOGITS, MASKS.tolist(), TypeError, "target"),
        (LOGITS, MASKS.float(), TypeError, "target"),
    ],
)
def test_bad_logits_and_targets_are_refused(logits, target, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        segmentation_loss(logits, target)


# SelfContrastiveLoss


@pytest.mark.parametrize("partition", [None, GridPartition(2), CosineKMeans(2, num_iters=3)])
def test_the_module_is_its_functions(partition):
    features, cluster_features = normal(2, 4, 5, 6), normal(2, 8, 3, 4, seed=1)
    masks = label_masks(2, 34, 41)
    module = SelfContrastiveLoss(num_prototypes=4, num_iters=2, partition=partition)
    loss = module(features, cluster_features, masks, linear_compare, generator=generator(7))
    pairs = self_contrastive_pairs(
        features,
        cluster_features,
        masks,
        partition=partition or CosineKMeans(4, num_iters=2),
        generator=generator(7),
    )
    expected = segmentation_loss(linear_compare(features, pairs.prototype_map), pairs.target)
    assert_close(loss, expected, rtol=0, atol=0)
    logits = linear_compare(features, pairs.prototype_map)
    assert_close(loss.item(), reference.segmentation_loss(reference.array(logits), pairs.target.numpy()))


def test_three_prototypes_unless_told():
    features, masks = normal(2, 4, 9, 9), label_masks(2, 33, 33)
    losses = [
        module(features, features, masks, linear_compare, generator=generator(0))
        for module in (SelfContrastiveLoss(), SelfContrastiveLoss(3, num_iters=10, ignore_index=255))
    ]
    assert_close(*losses, rtol=0, atol=0)


def test_the_module_holds_nothing_to_train_or_save():
    module = SelfContrastiveLoss()
    assert not list(module.parameters())
    assert not module.state_dict()
    assert "3" in repr(module)


def test_compare_sees_the_features_and_a_map_like_them():
    features, masks = normal(2, 4, 5, 6), label_masks(2, 33, 33)
    seen = []

    def compare(*maps):
        seen.extend(maps)
        return linear_compare(*maps)

    SelfContrastiveLoss()(features, normal(2, 8, 3, 3), masks, compare)
    assert len(seen) == 2
    assert_close(seen[0], features, rtol=0, atol=0)
    assert seen[1].shape == features.shape
    assert seen[1].dtype == features.dtype


@pytest.mark.parametrize("size", [(1, 1), (5, 6), (3, 4), (33, 33), (50, 20)])
def test_compare_may_answer_at_any_size(size):
    features, masks = normal(2, 4, 5, 6), label_masks(2, 33, 33)
    loss = SelfContrastiveLoss()(features, features, masks, lambda *_: torch.zeros(2, 2, *size))
    assert_close(loss.item(), math.log(2))


def several_answers(features, prototype_map):
    """Logits on the features' grid, and of two coarser scales, as PFENet's head gives them."""
    main = linear_compare(features, prototype_map)
    return main, main[:, :, ::2, ::2].sin(), main.mean(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("aux_weight", [0, 0.4, 1.0])
def test_deep_supervision_is_the_first_loss_and_the_weighted_mean_of_the_others(aux_weight, kind):
    features, masks = normal(2, 4, 5, 6), label_masks(2, 33, 33)
    module = SelfContrastiveLoss(3, aux_weight=aux_weight)
    loss = module(features, features, masks, lambda *maps: kind(several_answers(*maps)), generator=generator(3))
    pairs = module.pairs(features, features, masks, generator=generator(3))
    target = pairs.target.numpy()
    main, *aux = (
        reference.segmentation_loss(reference.array(logits), target)
        for logits in several_answers(features, pairs.prototype_map)
    )
    assert loss.shape == ()
    assert_close(loss.item(), main + aux_weight * sum(aux) / 2, rtol=1e-5, atol=0)


def test_one_answer_in_a_tuple_is_the_answer():
    features, masks, module = normal(2, 4, 5, 6), label_masks(2, 33, 33), SelfContrastiveLoss(aux_weight=9)
    alone, packed = (
        module(features, features, masks, compare, generator=generator(0))
        for compare in (linear_compare, lambda *maps: (linear_compare(*maps),))
    )
    assert_close(alone, packed, rtol=0, atol=0)


def test_gradients_of_deep_supervision():
    labels, masks = choice([0, 1], 2, 3, 4), label_masks(2, 9, 7)
    module = SelfContrastiveLoss(partition=FixedPartition(labels, 2), aux_weight=0.4)
    features = normal(2, 2, 3, 4, dtype=torch.float64).requires_grad_()

    def loss(f):
        return module(f, f.detach(), masks, several_answers, generator=generator(0))

    assert torch.autograd.gradcheck(loss, (features,))


@pytest.mark.parametrize("value", [1, 255])
def test_deep_supervision_without_background_gives_zero(value):
    features = normal(2, 3, 5, 5).requires_grad_()
    loss = SelfContrastiveLoss()(features, features, torch.full((2, 9, 9), value), several_answers)
    assert loss == 0
    loss.backward()
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_a_perfect_comparison_has_no_loss():
    features = torch.zeros(1, 2, 6, 6)
    masks = torch.zeros(1, 6, 6, dtype=torch.long)
    masks[:, 2:4, 2:4] = 1
    masks[:, 0] = 255
    features[:, 0], features[:, 1] = masks == 1, masks != 1

    def compare(features, prototype_map):
        similarity = (features * prototype_map).sum(dim=1)
        return 100 * torch.stack([0.5 - similarity, similarity - 0.5], dim=1)

    module = SelfContrastiveLoss(2)
    assert module(features, features, masks, compare, generator=generator(0)) < 1e-6
    assert module(features, features, masks, lambda f, p: -compare(f, p), generator=generator(0)) > 50


def test_gradient_reaches_features_through_prototypes_and_comparison():
    labels, masks = choice([0, 1], 2, 4, 5), label_masks(2, 4, 5)
    module = SelfContrastiveLoss(partition=FixedPartition(labels, 2))

    def gradient(compare):
        features = normal(2, 3, 4, 5).requires_grad_()
        module(features, features, masks, compare, generator=generator(0)).backward()
        assert features.grad is not None
        assert features.grad.isfinite().all()
        return features.grad.movedim(1, -1)

    by_comparison = gradient(lambda f, p: linear_compare(f, p.detach()))
    assert (by_comparison[masks != 255] != 0).all()
    assert (by_comparison[masks == 255] == 0).all()
    by_prototypes = gradient(lambda f, p: linear_compare(f.detach(), p))
    assert (by_prototypes[masks == 0] != 0).all()
    assert (by_prototypes[masks != 0] == 0).all()
    assert_close(gradient(linear_compare), by_comparison + by_prototypes)


def test_gradients_of_the_whole_loss():
    labels, masks = choice([0, 1, 2], 2, 3, 4), label_masks(2, 9, 7)
    module = SelfContrastiveLoss(partition=FixedPartition(labels, 3))
    features = normal(2, 2, 3, 4, dtype=torch.float64).requires_grad_()

    def loss(f):
        return module(f, f.detach(), masks, linear_compare, generator=generator(0))

    assert torch.autograd.gradcheck(loss, (features,))


def test_cluster_features_get_no_gradient():
    class Watching(GridPartition):
        def forward(self, cluster_features, *, valid=None, generator=None):
            assert not cluster_features.requires_grad
            return super().forward(cluster_features)

    leaf = normal(2, 4, 5, 5).requires_grad_()
    SelfContrastiveLoss(partition=Watching(2))(leaf, leaf, label_masks(2, 9, 9), linear_compare)

    features, cluster_features = normal(2, 3, 5, 5).requires_grad_(), normal(2, 4, 5, 5).requires_grad_()
    SelfContrastiveLoss()(features, cluster_features, label_masks(2, 9, 9), linear_compare).backward()
    assert features.grad is not None
    assert cluster_features.grad is None


@pytest.mark.parametrize("value", [1, 255])
def test_an_image_without_background_adds_nothing(value):
    features, labels = normal(2, 3, 6, 5), choice([0, 1], 2, 6, 5)
    masks = label_masks(2, 9, 7)
    masks[1] = value
    both = features.clone().requires_grad_()
    loss = SelfContrastiveLoss(partition=FixedPartition(labels, 2))(
        both, both, masks, linear_compare, generator=generator(0)
    )
    losses = [
        SelfContrastiveLoss(partition=FixedPartition(labels[:1], 2))(
            features[:1], features[:1], masks[:1], linear_compare, generator=generator(seed)
        )
        for seed in range(20)
    ]
    assert min(abs(loss - alone) for alone in losses) < 1e-5  # for one of the two prototypes that can be drawn
    loss.backward()
    assert both.grad is not None
    assert (both.grad[1] == 0).all()
    assert (both.grad[0] != 0).any()


@pytest.mark.parametrize("value", [1, 255])
def test_no_background_at_all_gives_zero(value):
    features = normal(2, 3, 5, 5).requires_grad_()
    loss = SelfContrastiveLoss()(features, features, torch.full((2, 9, 9), value), linear_compare)
    assert loss == 0
    loss.backward()
    assert features.grad is not None
    assert (features.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(dtype):
    features, masks = normal(2, 3, 5, 5, dtype=dtype).requires_grad_(), label_masks(2, 33, 33)
    loss = SelfContrastiveLoss()(features, features, masks, linear_compare, generator=generator(0))
    assert loss.dtype == torch.float32
    full = SelfContrastiveLoss()(features.float(), features.float(), masks, linear_compare, generator=generator(0))
    assert_close(loss, full, rtol=3e-2, atol=3e-2)
    loss.backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("void", [255, 7])
def test_void_of_another_label(void):
    features, masks = normal(2, 3, 5, 5), label_masks(2, 9, 9)
    losses = [
        SelfContrastiveLoss(ignore_index=index)(
            features, features, masks.masked_fill(masks == 255, index), linear_compare, generator=generator(0)
        )
        for index in (255, void)
    ]
    assert_close(*losses, rtol=0, atol=0)


def test_the_loss_draws_from_the_generator_alone():
    features, masks, module = normal(2, 3, 7, 7), label_masks(2, 9, 9), SelfContrastiveLoss()
    before = torch.get_rng_state()
    losses = [module(features, features, masks, linear_compare, generator=generator(s)).item() for s in (1, 1, 2)]
    assert_close(torch.get_rng_state(), before)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("features", "cluster_features", "masks", "error", "name"), BAD_PAIRS)
def test_bad_input_of_the_loss_is_refused(features, cluster_features, masks, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        SelfContrastiveLoss()(features, cluster_features, masks, linear_compare)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, TypeError),
        ((), ValueError),
        ((LOGITS, None), TypeError),
        ((LOGITS, (LOGITS, LOGITS)), TypeError),
        ((LOGITS, LOGITS[:1]), ValueError),
        ([LOGITS[:, :1], LOGITS], ValueError),
        ({"logits": LOGITS}, TypeError),
        (LOGITS.long(), TypeError),
        (LOGITS[:, 0], ValueError),
        (LOGITS[:, :1], ValueError),
        (torch.zeros(2, 3, 4, 5), ValueError),
        (LOGITS[:1], ValueError),
    ],
)
def test_bad_answers_of_compare_are_refused(answer, error):
    with pytest.raises(error, match=r"\b(compare|logits)\b.* must"):
        SelfContrastiveLoss()(FEATURES, CLUSTER, MASKS, lambda features, prototype_map: answer)


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"num_prototypes": 0}, ValueError, "num_prototypes"),
        ({"num_prototypes": 2.5}, TypeError, "num_prototypes"),
        ({"num_iters": -1}, ValueError, "num_iters"),
        ({"aux_weight": -1}, ValueError, "aux_weight"),
        ({"aux_weight": math.nan}, ValueError, "aux_weight"),
        ({"aux_weight": "1"}, TypeError, "aux_weight"),
    ],
)
def test_bad_settings_are_refused(settings, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        SelfContrastiveLoss(**settings)
