from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import _reference as reference
from _inputs import generator, normal, subset
from _strategies import seeds
from fewshotseg import cosine_kmeans, sample_centroids


def assert_equals_reference(points, init, valid=None, num_iters=10, **tolerance):
    result = cosine_kmeans(points, init, valid=valid, num_iters=num_iters)
    expected = reference.cosine_kmeans(
        reference.array(points), reference.array(init), None if valid is None else valid.numpy(), num_iters
    )
    assert_close(result.labels, torch.from_numpy(expected.labels))
    assert_close(result.counts, torch.from_numpy(expected.counts))
    centroids = torch.from_numpy(expected.centroids).to(result.centroids.dtype)
    assert_close(result.centroids, centroids, **tolerance)
    return result


@pytest.fixture(params=["eager CPU", "accelerator"])
def way(request, monkeypatch):
    """The rounds of a CPU, which look at values, and those of an accelerator: both must hold to the letter."""
    if request.param == "accelerator":
        monkeypatch.setattr("fewshotseg.ops.kmeans.is_eager_cpu", lambda *tensors: False)


both_ways = pytest.mark.usefixtures("way")


# cosine_kmeans


@both_ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_iters", [0, 1, 2, 10])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("batch", "num_points", "num_clusters", "channels"),
    [(1, 1, 1, 1), (1, 7, 3, 2), (2, 30, 3, 5), (3, 21, 4, 3), (2, 2, 5, 4), (1, 25, 1, 8)],
)
def test_equals_the_rounds_written_out(batch, num_points, num_clusters, channels, masked, num_iters, dtype):
    points = normal(batch, num_points, channels, dtype=dtype)
    init = normal(batch, num_clusters, channels, seed=1, dtype=dtype)
    valid = subset(batch, num_points) if masked else None
    result = assert_equals_reference(points, init, valid, num_iters, rtol=1e-5, atol=1e-6)
    assert result.centroids.dtype == dtype
    assert result.labels.dtype == result.counts.dtype == torch.int64


@both_ways
def test_by_hand():
    points = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-5.0, 0.0], [0.5, 0.1]]])
    result = cosine_kmeans(points, torch.tensor([[[9.0, 0.0], [0.0, 0.1]]]), num_iters=1)
    # (1, 1) ties and goes to the first; (-5, 0) is nearer to (0, 1). Then 0 moves to the mean of three directions.
    assert result.labels.tolist() == [[0, 1, 0, 1, 0]]
    assert result.counts.tolist() == [[3, 2]]
    direction = torch.tensor([1.0, 0.0]) + torch.tensor([1.0, 1.0]) / 2**0.5 + torch.tensor([5.0, 1.0]) / 26**0.5
    assert_close(result.centroids[0, 0], direction / direction.norm())
    assert_close(result.centroids[0, 1], torch.tensor([-1.0, 1.0]) / 2**0.5)


@both_ways
def test_labels_are_taken_once_more_after_the_last_move():
    # Two points near (0, 1) pull the second centroid there, which then loses the third to the first centroid.
    points = torch.tensor([[[0.0, 1.0], [-0.1, 1.0], [1.0, 1.1], [1.0, 0.0]]])
    init = torch.tensor([[[1.0, 0.2], [0.5, 1.0]]])
    assert cosine_kmeans(points, init, num_iters=0).labels.tolist() == [[1, 1, 1, 0]]
    result = cosine_kmeans(points, init, num_iters=1)
    assert result.labels.tolist() == cosine_kmeans(points, result.centroids, num_iters=0).labels.tolist()
    assert_equals_reference(points, init, num_iters=1)
    assert_equals_reference(points, init, num_iters=2)


@both_ways
def test_without_rounds_the_start_is_only_scaled():
    points, init = normal(2, 9, 4), 7 * normal(2, 3, 4, seed=1)
    result = cosine_kmeans(points, init, num_iters=0)
    assert_close(result.centroids, init / init.norm(dim=-1, keepdim=True))


def test_ten_rounds_unless_told():
    points, init = normal(2, 60, 3), normal(2, 5, 3, seed=1)
    for default, ten in zip(cosine_kmeans(points, init), cosine_kmeans(points, init, num_iters=10), strict=True):
        assert_close(default, ten, rtol=0, atol=0)


@both_ways
def test_a_tie_goes_to_the_lowest():
    points = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]]])
    same = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]])
    assert (cosine_kmeans(points, same).labels == 0).all()
    axes = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert cosine_kmeans(points, axes, num_iters=0).labels.tolist() == [[1, 0, 0, 0, 0]]


@pytest.mark.parametrize("num_points", [2, 7, 441, 900])
@pytest.mark.parametrize("num_clusters", range(2, 18))
def test_equal_centroids_tie_exactly(num_points, num_clusters):
    # As when fewer points are valid than clusters asked for: products of different rounding would part equal points.
    points = normal(1, num_points, 64).relu()
    init = normal(1, 2, 64, seed=1)[:, [k % 2 for k in range(num_clusters)]]
    assert cosine_kmeans(points, init).labels.max() <= 1


@both_ways
def test_an_empty_cluster_keeps_its_centroid():
    points = torch.tensor([[[1.0, 0.1], [1.0, -0.1]]])
    init = torch.tensor([[[1.0, 0.0], [-3.0, 0.0], [0.0, 0.0]]])
    result = cosine_kmeans(points, init)
    assert result.counts.tolist() == [[2, 0, 0]]
    assert_close(result.centroids, torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]]))


@both_ways
def test_invalid_points_get_labels_but_move_nothing():
    points, init = normal(2, 20, 4), normal(2, 3, 4, seed=1)
    valid = subset(2, 20)
    noise = points.masked_fill(~valid[..., None], 0) + 1e3 * normal(2, 20, 4, seed=2) * ~valid[..., None]
    result, noisy = cosine_kmeans(points, init, valid=valid), cosine_kmeans(noise, init, valid=valid)
    assert_close(result.centroids, noisy.centroids, rtol=0, atol=0)
    assert_close(result.counts, noisy.counts)
    assert_close(result.labels[valid], noisy.labels[valid])
    assert_close(result.counts.sum(dim=1), valid.sum(dim=1))
    nearest = cosine_kmeans(noise, result.centroids, num_iters=0).labels
    assert_close(noisy.labels, nearest)


@both_ways
def test_without_a_valid_point_nothing_moves():
    points, init = normal(2, 20, 4), normal(2, 3, 4, seed=1)
    valid = torch.zeros(2, 20, dtype=torch.bool)
    valid[1] = True
    result = cosine_kmeans(points, init, valid=valid)
    assert_close(result.centroids[0], init[0] / init[0].norm(dim=-1, keepdim=True))
    assert result.counts.sum(dim=1).tolist() == [0, 20]
    assert_equals_reference(points, init, valid)


def test_all_valid_is_the_default():
    points, init = normal(2, 20, 4), normal(2, 3, 4, seed=1)
    valid = torch.ones(2, 20, dtype=torch.bool)
    for given_, default in zip(cosine_kmeans(points, init, valid=valid), cosine_kmeans(points, init), strict=True):
        assert_close(given_, default, rtol=0, atol=0)


@both_ways
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "points",
    [
        pytest.param(torch.ones(2, 6, 3), id="all equal"),
        pytest.param(torch.zeros(2, 6, 3), id="all zero"),
        pytest.param(torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]] * 3] * 2), id="two distinct"),
        pytest.param(torch.tensor([[[1.0, 0, 0], [-1.0, 0, 0]] * 3] * 2), id="opposite"),
        pytest.param(torch.tensor([[[0.0, 0, 0], [0, 2.0, 0], [0, 0, 0]] * 2] * 2), id="zeros among points"),
        pytest.param(torch.ones(2, 1, 3), id="one point"),
    ],
)
@pytest.mark.parametrize("num_clusters", [1, 3, 9])
def test_degenerate_points(points, num_clusters, dtype):
    points = points.to(dtype)
    for init in (
        points[:, :1].expand(-1, num_clusters, -1),
        points[:, [k % points.shape[1] for k in range(num_clusters)]],
        torch.zeros(2, num_clusters, 3, dtype=dtype),
        torch.eye(3, dtype=dtype).repeat(3, 1)[:num_clusters].expand(2, -1, -1),
    ):
        result = assert_equals_reference(points, init, rtol=1e-5, atol=1e-6)
        assert result.centroids.isfinite().all()
        assert (result.counts.sum(dim=1) == points.shape[1]).all()


@both_ways
@pytest.mark.parametrize(
    ("dtype", "magnitude"),
    [
        (torch.float32, 1e-30),
        (torch.float32, 1e-36),
        (torch.float32, 1e30),
        (torch.float32, 1e37),
        (torch.float64, 1e-300),
        (torch.float64, 1e300),
        (torch.float16, 1e-4),
        (torch.float16, 1e4),
        (torch.bfloat16, 1e-30),
        (torch.bfloat16, 1e30),
    ],
)
def test_extreme_magnitudes(dtype, magnitude):
    for points in (
        (normal(2, 20, 4, dtype=torch.float64) * magnitude).to(dtype),
        torch.cat([normal(2, 10, 4, dtype=torch.float64) * magnitude, normal(2, 10, 4, seed=2)], dim=1).to(dtype),
    ):
        assert points.isfinite().all()
        assert_equals_reference(points, points[:, [0, 5, 15]], rtol=1e-4, atol=1e-5)


@both_ways
@pytest.mark.parametrize("magnitude", [1e-45, 1e-42, 1e-39, 3e38])
def test_the_edges_of_float32_stay_finite(magnitude):
    points = normal(2, 20, 4).sign() * magnitude
    result = cosine_kmeans(points, points[:, [0, 5, 15]])
    assert result.centroids.isfinite().all()
    assert (result.counts.sum(dim=1) == 20).all()


@both_ways
def test_components_of_very_different_magnitude():
    points = torch.tensor([[[1e30, 1.0], [1e-30, 1e-30], [0.0, 1e-38], [3.0, 1e30], [0.0, 0.0]]])
    result = assert_equals_reference(points, points[:, [0, 2]], rtol=1e-5, atol=1e-6)
    assert result.labels.tolist() == [[0, 0, 1, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_points_are_clustered_in_float32(dtype):
    points, init = normal(2, 40, 6, dtype=dtype), normal(2, 3, 6, seed=1, dtype=dtype)
    result, full = cosine_kmeans(points, init), cosine_kmeans(points.float(), init.float())
    for half, single in zip(result, full, strict=True):
        assert half.dtype == single.dtype
        assert_close(half, single, rtol=0, atol=0)


@pytest.mark.parametrize(("points", "init"), [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_points_and_start_may_differ_in_dtype(points, init):
    points, init = normal(2, 20, 4, dtype=points), normal(2, 3, 4, seed=1, dtype=init)
    assert_equals_reference(points, init, rtol=1e-5, atol=1e-6)


def test_no_gradient():
    points, init = normal(2, 9, 4).requires_grad_(), normal(2, 3, 4, seed=1).requires_grad_()
    assert not any(output.requires_grad for output in cosine_kmeans(points, init))
    assert not sample_centroids(points, 2).requires_grad


def test_kmeans_draws_nothing():
    before = torch.get_rng_state()
    cosine_kmeans(normal(2, 9, 4), normal(2, 3, 4, seed=1))
    assert_close(torch.get_rng_state(), before)


@both_ways
def test_no_image_at_all():
    result = cosine_kmeans(torch.zeros(0, 5, 3), torch.zeros(0, 2, 3))
    assert (result.centroids.shape, result.labels.shape, result.counts.shape) == ((0, 2, 3), (0, 5), (0, 2))


@both_ways
def test_a_centroid_that_only_zero_vectors_are_left_to_is_zero():
    # All others leave the first cluster, one by one: no rounding of their sum may stay behind.
    points = torch.tensor([[[0.0, 0.0], [-4, 4], [-2, 3], [-4, 1], [-3, -4], [0, -3], [-4, 2]]])
    init = torch.tensor([[[-3.0, -2.0], [1.0, 4.0], [-3.0, -2.0]]])
    result = assert_equals_reference(points, init, rtol=1e-5, atol=1e-6)
    assert result.centroids[0, 0].tolist() == [0, 0]
    assert result.counts.tolist() == [[1, 4, 2]]


@given(
    seed=seeds,
    num_clusters=st.integers(1, 17),
    num_points=st.integers(1, 80),
    channels=st.integers(2, 5),
    num_iters=st.integers(0, 12),
    masked=st.booleans(),
    zeros=st.booleans(),
    channels_first=st.booleans(),
)
def test_both_ways_are_equal(seed, num_clusters, num_points, channels, num_iters, masked, zeros, channels_first):
    points = normal(2, num_points, channels, seed=seed, dtype=torch.float64)
    init = normal(2, num_clusters, channels, seed=seed + 1, dtype=torch.float64)
    valid = subset(2, num_points, seed=seed) if masked else None
    if zeros:
        points = points * subset(2, num_points, 1, seed=seed + 1)
    if channels_first:
        points = points.mT.contiguous().mT
    result = cosine_kmeans(points, init, valid=valid, num_iters=num_iters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewshotseg.ops.kmeans.is_eager_cpu", lambda *tensors: False)
        written = cosine_kmeans(points, init, valid=valid, num_iters=num_iters)
    assert_close(result.labels, written.labels)
    assert_close(result.counts, written.counts)
    assert_close(result.centroids, written.centroids, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_clusters", [3, 5, 16])
def test_labels_of_a_map_equal_double_precision(num_clusters):
    # Blends of 16 directions, so that points move in every round.
    blend = (2 * normal(2, 900, 16)).softmax(dim=2) @ normal(2, 16, 64, seed=1)
    points = (blend + 0.5 * normal(2, 900, 64, seed=2)).relu()
    init = points[:, :num_clusters]
    before = cosine_kmeans(points, init, num_iters=9).labels
    result, double = cosine_kmeans(points, init), cosine_kmeans(points.double(), init.double())
    assert (result.labels != before).any()
    assert_close(result.labels, double.labels)
    assert_close(result.centroids, double.centroids.float(), rtol=1e-5, atol=1e-6)


@given(seed=seeds, num_clusters=st.integers(1, 4), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_objective_never_falls(seed, num_clusters, dtype):
    points = normal(1, 12, 3, seed=seed, dtype=dtype)
    init = points[:, :num_clusters]
    values = []
    for num_iters in range(6):
        centroids = cosine_kmeans(points, init, num_iters=num_iters).centroids
        values.append(reference.objective(reference.array(points), reference.array(centroids)))
    assert all(later >= earlier - 1e-5 for earlier, later in pairwise(values))


@given(seed=seeds)
def test_the_length_of_points_does_not_matter(seed):
    # Powers of two scale without rounding.
    points, init = normal(2, 15, 3, seed=seed), normal(2, 3, 3, seed=seed + 1)
    scales = 2.0 ** torch.randint(-60, 60, (2, 15, 1), generator=generator(seed))
    result, scaled = cosine_kmeans(points, init), cosine_kmeans(points * scales, init * 2.0**40)
    assert_close(scaled.labels, result.labels)
    assert_close(scaled.centroids, result.centroids)


@given(seed=seeds, masked=st.booleans())
def test_images_are_clustered_on_their_own(seed, masked):
    points, init = normal(3, 14, 3, seed=seed, dtype=torch.float64), normal(3, 3, 3, seed=seed, dtype=torch.float64)
    valid = subset(3, 14, seed=seed) if masked else None
    together = cosine_kmeans(points, init, valid=valid)
    for b in range(3):
        one = slice(b, b + 1)
        alone = cosine_kmeans(points[one], init[one], valid=None if valid is None else valid[one])
        assert_close(together.labels[one], alone.labels)
        assert_close(together.counts[one], alone.counts)
        assert_close(together.centroids[one], alone.centroids)


@given(seed=seeds, order=st.permutations(range(14)))
def test_labels_follow_their_points(seed, order):
    points, init = normal(2, 14, 3, seed=seed, dtype=torch.float64), normal(2, 3, 3, seed=seed, dtype=torch.float64)
    result, permuted = cosine_kmeans(points, init), cosine_kmeans(points[:, order], init)
    assert_close(permuted.labels, result.labels[:, order])
    assert_close(permuted.centroids, result.centroids)


@given(seed=seeds, order=st.permutations(range(3)))
def test_clusters_follow_their_start(seed, order):
    points, init = normal(2, 14, 3, seed=seed, dtype=torch.float64), normal(2, 3, 3, seed=seed, dtype=torch.float64)
    result, permuted = cosine_kmeans(points, init), cosine_kmeans(points, init[:, order])
    assert_close(permuted.centroids, result.centroids[:, order])
    assert_close(permuted.counts, result.counts[:, order])


POINTS, INIT, VALID = torch.zeros(2, 6, 3), torch.zeros(2, 4, 3), torch.ones(2, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("points", "init", "options", "error", "name"),
    [
        (POINTS[0], INIT, {}, ValueError, "points"),
        (POINTS.tolist(), INIT, {}, TypeError, "points"),
        (POINTS.int(), INIT, {}, TypeError, "points"),
        (POINTS, INIT[0], {}, ValueError, "init"),
        (POINTS, INIT.tolist(), {}, TypeError, "init"),
        (POINTS, INIT.int(), {}, TypeError, "init"),
        (POINTS, INIT[:1], {}, ValueError, "init"),
        (POINTS, INIT[..., :2], {}, ValueError, "init"),
        (POINTS, INIT[:, :0], {}, ValueError, "init"),
        (POINTS, INIT, {"valid": VALID[0]}, ValueError, "valid"),
        (POINTS, INIT, {"valid": VALID[:1]}, ValueError, "valid"),
        (POINTS, INIT, {"valid": VALID[:, :5]}, ValueError, "valid"),
        (POINTS, INIT, {"valid": VALID.int()}, TypeError, "valid"),
        (POINTS, INIT, {"valid": VALID.float()}, TypeError, "valid"),
        (POINTS, INIT, {"valid": VALID.tolist()}, TypeError, "valid"),
        (POINTS, INIT, {"num_iters": -1}, ValueError, "num_iters"),
        (POINTS, INIT, {"num_iters": 2.0}, TypeError, "num_iters"),
        (POINTS, INIT, {"num_iters": True}, TypeError, "num_iters"),
    ],
)
def test_bad_input_is_refused(points, init, options, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        cosine_kmeans(points, init, **options)


# sample_centroids


def numbered(batch: int, num_points: int) -> torch.Tensor:
    """Points that carry their own position, so that it is seen which were drawn."""
    return torch.arange(num_points, dtype=torch.float32).reshape(1, -1, 1).repeat(batch, 1, 2)


@given(seed=seeds, batch=st.integers(1, 3), num_points=st.integers(1, 12), data=st.data())
def test_draws_different_valid_points(seed, batch, num_points, data):
    valid = subset(batch, num_points, seed=seed)
    valid[:, data.draw(st.integers(0, num_points - 1))] = True
    num_clusters = data.draw(st.integers(1, int(valid.sum(dim=1).min())))
    points = numbered(batch, num_points)
    drawn = sample_centroids(points, num_clusters, valid=valid, generator=generator(seed))
    assert drawn.shape == (batch, num_clusters, 2)
    assert (drawn[..., 0] == drawn[..., 1]).all()
    for b in range(batch):
        numbers = drawn[b, :, 0].long().tolist()
        assert len(set(numbers)) == num_clusters
        assert valid[b, numbers].all()


@given(seed=seeds, num_valid=st.integers(1, 4), num_clusters=st.integers(1, 11))
def test_too_few_valid_points_repeat_in_turn(seed, num_valid, num_clusters):
    valid = torch.zeros(2, 7, dtype=torch.bool)
    valid[0, :num_valid] = valid[1, -num_valid:] = True
    drawn = sample_centroids(numbered(2, 7), num_clusters, valid=valid, generator=generator(seed))[..., 0].long()
    for b in range(2):
        assert valid[b, drawn[b]].all()
        times = torch.bincount(drawn[b], minlength=7)[valid[b]]
        assert times.max() - times.min() <= 1


def test_more_clusters_than_points():
    drawn = sample_centroids(numbered(2, 3), 8)[..., 0].long()
    assert drawn.shape == (2, 8)
    for b in range(2):
        assert sorted(torch.bincount(drawn[b]).tolist()) == [2, 3, 3]


def test_without_a_valid_point_all_are():
    valid = torch.zeros(2, 5, dtype=torch.bool)
    valid[1, 3] = True
    drawn = sample_centroids(numbered(2, 5), 4, valid=valid, generator=generator(0))[..., 0]
    assert len(set(drawn[0].tolist())) == 4
    assert drawn[1].tolist() == [3.0] * 4


def test_every_valid_point_is_as_likely():
    trials = 6000
    valid = torch.tensor([True, False, True, True, True]).expand(trials, -1)
    drawn = sample_centroids(numbered(trials, 5), 2, valid=valid, generator=generator(0))[..., 0].long()
    pairs = torch.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25).reshape(5, 5)
    expected = trials / 12  # ordered pairs of four points
    possible = valid[0][:, None] & valid[0] & ~torch.eye(5, dtype=torch.bool)
    assert pairs[~possible].sum() == 0
    chi_square = ((pairs[possible] - expected) ** 2 / expected).sum()
    assert chi_square < 31.3  # 11 degrees of freedom, p = 0.001


def test_a_generator_makes_draws_repeatable():
    points = normal(3, 30, 4)
    first = sample_centroids(points, 3, generator=generator(5))
    assert_close(sample_centroids(points, 3, generator=generator(5)), first, rtol=0, atol=0)
    assert not torch.equal(sample_centroids(points, 3, generator=generator(6)), first)
    own = generator(5)
    sample_centroids(points, 3, generator=own)
    assert not torch.equal(sample_centroids(points, 3, generator=own), first)


def test_a_generator_leaves_torch_alone():
    before = torch.get_rng_state()
    sample_centroids(normal(2, 9, 4), 3, generator=generator(0))
    assert_close(torch.get_rng_state(), before)


def test_torch_draws_without_a_generator():
    points = normal(3, 30, 4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = sample_centroids(points, 3)
        second = sample_centroids(points, 3)
        torch.manual_seed(1)
        assert_close(sample_centroids(points, 3), first, rtol=0, atol=0)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_drawn_points_are_points(dtype):
    points = normal(2, 10, 4, dtype=dtype)
    drawn = sample_centroids(points, 3, generator=generator(0))
    assert drawn.dtype == dtype
    found = (drawn[:, :, None] == points[:, None]).all(dim=-1).any(dim=-1)
    assert found.all()


@pytest.mark.parametrize(
    ("points", "num_clusters", "valid", "error", "name"),
    [
        (POINTS[0], 2, None, ValueError, "points"),
        (POINTS.tolist(), 2, None, TypeError, "points"),
        (POINTS[:, :0], 2, None, ValueError, "points"),
        (POINTS, 0, None, ValueError, "num_clusters"),
        (POINTS, 1.5, None, TypeError, "num_clusters"),
        (POINTS, 2, VALID[0], ValueError, "valid"),
        (POINTS, 2, VALID[:, 1:], ValueError, "valid"),
        (POINTS, 2, VALID.int(), TypeError, "valid"),
    ],
)
def test_bad_draws_are_refused(points, num_clusters, valid, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        sample_centroids(points, num_clusters, valid=valid)
