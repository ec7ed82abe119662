import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import _reference as reference
from _inputs import generator, normal, subset
from _strategies import seeds
from fewshotseg import CosineKMeans, GridPartition, cosine_kmeans, sample_centroids

# CosineKMeans


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("num_regions", "num_iters"), [(3, 10), (1, 0), (5, 2), (40, 10)])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 5, 4, 7), (3, 3, 5, 2)])
def test_kmeans_partition_is_its_functions(shape, num_regions, num_iters, masked):
    features = normal(*shape)
    valid = subset(shape[0], *shape[2:]) if masked else None
    partition = CosineKMeans(num_regions, num_iters=num_iters)
    labels = partition(features, valid=valid, generator=generator(3))

    points = features.flatten(2).mT
    flat = None if valid is None else valid.flatten(1)
    init = sample_centroids(points, num_regions, valid=flat, generator=generator(3))
    expected = cosine_kmeans(points, init, valid=flat, num_iters=num_iters).labels
    assert labels.dtype == torch.int64
    assert_close(labels, expected.reshape(shape[0], *shape[2:]))
    assert partition.num_regions == num_regions


def test_three_regions_and_ten_rounds_unless_told():
    features = normal(2, 4, 9, 9)
    default = CosineKMeans()
    assert default.num_regions == 3
    explicit = CosineKMeans(num_regions=3, num_iters=10)
    assert_close(default(features, generator=generator(0)), explicit(features, generator=generator(0)))
    assert "3" in repr(default)


def test_finds_regions_that_are_there():
    features = torch.zeros(1, 3, 6, 6)
    features[0, 0, :3] = 1
    features[0, 1, 3:, :2] = 2
    features[0, 2, 3:, 2:] = 0.5
    features += 0.01 * normal(1, 3, 6, 6)
    truth = features.argmax(dim=1)
    found = {tuple(CosineKMeans(3)(features, generator=generator(seed)).flatten().tolist()) for seed in range(20)}
    same = [len({*zip(labels, truth.flatten().tolist(), strict=True)}) == 3 == len(set(labels)) for labels in found]
    assert any(same)


def test_partitions_have_no_state_and_no_gradient():
    features = normal(2, 4, 5, 5).requires_grad_()
    for partition in (CosineKMeans(3), GridPartition(2)):
        assert not partition(features).requires_grad
        assert not partition.state_dict()
        assert not list(partition.parameters())


def test_a_generator_makes_regions_repeatable_and_leaves_torch_alone():
    features, partition = normal(3, 4, 7, 7), CosineKMeans(4)
    before = torch.get_rng_state()
    first = partition(features, generator=generator(1))
    assert_close(partition(features, generator=generator(1)), first)
    assert not torch.equal(partition(features, generator=generator(2)), first)
    GridPartition(3)(features)
    assert_close(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_cut_in_float32(dtype):
    features = normal(2, 4, 7, 7, dtype=dtype)
    labels = CosineKMeans(3)(features, generator=generator(0))
    assert_close(labels, CosineKMeans(3)(features.float(), generator=generator(0)))


@given(seed=seeds, num_regions=st.integers(1, 6))
def test_labels_are_regions(seed, num_regions):
    labels = CosineKMeans(num_regions)(normal(2, 3, 4, 5, seed=seed), generator=generator(seed))
    assert labels.min() >= 0
    assert labels.max() < num_regions


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_map_of_one_value(value):
    labels = CosineKMeans(3)(torch.full((2, 4, 5, 5), value))
    assert (labels == 0).all()


FEATURES = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("features", "valid", "error", "name"),
    [
        (FEATURES[0], None, ValueError, "cluster_features"),
        (FEATURES.flatten(2), None, ValueError, "cluster_features"),
        (FEATURES.tolist(), None, TypeError, "cluster_features"),
        (FEATURES.long(), None, TypeError, "cluster_features"),
        (FEATURES, torch.ones(2, 4, dtype=torch.bool), ValueError, "valid"),
        (FEATURES, torch.ones(2, 5, 4, dtype=torch.bool), ValueError, "valid"),
        (FEATURES, torch.ones(1, 4, 5, dtype=torch.bool), ValueError, "valid"),
        (FEATURES, torch.ones(2, 4, 5), TypeError, "valid"),
    ],
)
def test_bad_features_are_refused(features, valid, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        CosineKMeans()(features, valid=valid)


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"num_regions": 0}, ValueError, "num_regions"),
        ({"num_regions": 2.0}, TypeError, "num_regions"),
        ({"num_iters": -1}, ValueError, "num_iters"),
        ({"num_iters": "ten"}, TypeError, "num_iters"),
    ],
)
def test_bad_settings_are_refused(settings, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        CosineKMeans(**settings)


# GridPartition


@pytest.mark.parametrize("bins", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (6, 9), (7, 5), (60, 60)])
def test_grid_is_cells_of_equal_size(height, width, bins):
    partition = GridPartition(bins)
    labels = partition(torch.zeros(2, 3, height, width))
    assert labels.dtype == torch.int64
    assert partition.num_regions == bins**2
    expected = torch.from_numpy(reference.grid_labels(height, width, bins))
    assert_close(labels, expected.expand(2, -1, -1))


def test_grid_takes_any_validity_and_generator():
    features = normal(2, 3, 6, 6)
    labels = GridPartition(2)(features, valid=subset(2, 6, 6), generator=generator(0))
    assert_close(labels, GridPartition(2)(features))


@pytest.mark.parametrize(("bins", "error"), [(0, ValueError), (-2, ValueError), (2.0, TypeError), (True, TypeError)])
def test_bad_bins_are_refused(bins, error):
    with pytest.raises(error, match=r"\bbins\b.* must"):
        GridPartition(bins)


@pytest.mark.parametrize(("features", "error"), [(FEATURES[0], ValueError), (FEATURES.tolist(), TypeError)])
def test_bad_grid_features_are_refused(features, error):
    with pytest.raises(error, match=r"\bcluster_features\b.* must"):
        GridPartition(2)(features)
