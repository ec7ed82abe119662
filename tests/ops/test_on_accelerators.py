"""What accelerators compute, on a CPU: the same as the CPU's own way, in few kernels and bounded memory."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from _inputs import label_masks, normal, uniform
from fewshotseg import cosine_kmeans, prior_mask
from fewshotseg.models import encodings
from fewshotseg.models.encodings import Support, shot_by_shot
from fewshotseg.ops import kmeans, prior, resizing

HALF = (torch.bfloat16, torch.float16)


@pytest.fixture
def accelerator(monkeypatch):
    """Take the way of an accelerator from now on."""
    return lambda *modules: [monkeypatch.setattr(module, "is_eager_cpu", lambda *tensors: False) for module in modules]


class Kernels(TorchDispatchMode):
    """Counts operations that launch a kernel: all but views."""

    VIEWS = (
        "expand",
        "view",
        "_unsafe_view",
        "transpose",
        "unsqueeze",
        "select",
        "slice",
        "permute",
        "split",
        "detach",
    )

    def __init__(self):
        super().__init__()
        self.count, self.largest = 0, 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        if operation._schema.name.removeprefix("aten::") not in self.VIEWS:
            self.count += 1
            if isinstance(result, torch.Tensor):
                self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize("num_clusters", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
def test_kmeans_gives_the_same_clusters(dtype, num_clusters, accelerator):
    points = normal(3, 200, 32)
    points[0, 5] = torch.nan
    points[1, 7] *= 1e3
    points[1, 8] = 0
    points, valid = points.to(dtype), uniform(3, 200, seed=1) < 0.7
    init = points[:, 20 : 20 + num_clusters]
    expected = cosine_kmeans(points, init, valid=valid)
    accelerator(kmeans)
    found = cosine_kmeans(points, init, valid=valid)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.counts, expected.counts)
    assert_close(found.centroids, expected.centroids, rtol=1e-4, atol=1e-5)


def test_kmeans_keeps_empty_clusters_and_not_those_of_zeros(accelerator):
    accelerator(kmeans)
    points = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [1.0, 0.1]]])
    found = cosine_kmeans(points, torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
    assert found.counts.tolist() == [[3, 0]]
    assert_close(found.centroids[0, 1], torch.tensor([-1.0, 0.0]))
    only_zeros = cosine_kmeans(torch.zeros(1, 3, 2), torch.eye(2)[None])
    assert only_zeros.centroids.tolist() == [[[0.0, 0.0], [0.0, 1.0]]]


def test_kmeans_takes_few_kernels_a_round(accelerator):
    accelerator(kmeans)
    points = normal(2, 50, 16)
    counts = []
    for num_iters in (0, 10):
        with Kernels() as kernels:
            cosine_kmeans(points, points[:, :3], num_iters=num_iters)
        counts.append(kernels.count)
    assert counts[0] <= 60
    assert counts[1] - counts[0] <= 120


@pytest.mark.parametrize("magnitude", ["small", "one", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
def test_the_prior_is_the_same(dtype, magnitude, accelerator, monkeypatch):
    factor = {"small": 1e-30, "one": 1.0, "large": 1e30}[magnitude]
    if dtype == torch.float16:
        factor = {"small": 1e-3, "one": 1.0, "large": 1e3}[magnitude]
    query, support = normal(2, 16, 6, 7) * factor, normal(2, 2, 16, 5, 4, seed=1) * factor
    query[0, :, 2, 2] = torch.nan
    support[1, 0, :, 4, 3] = torch.inf
    masks = label_masks(2, 2, 5, 4)
    masks[1, 0, 4, 3] = 0
    masks[0, 1] = 0  # a shot without foreground
    query, support = query.to(dtype), support.to(dtype)
    expected = prior_mask(query, support, masks)
    accelerator(prior)
    for at_once in (1, 100, 2**24):
        monkeypatch.setattr(prior, "MAX_PRODUCTS", at_once)
        assert_close(prior_mask(query, support, masks), expected, rtol=0, atol=1e-5 if dtype.itemsize > 2 else 1e-4)


def test_the_prior_of_features_of_two_dtypes(accelerator):
    query, support, masks = normal(1, 8, 4, 4), normal(1, 1, 8, 4, 4, seed=1), label_masks(1, 1, 4, 4)
    for dtypes in [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float64, torch.float32)]:
        tensors = query.to(dtypes[0]), support.to(dtypes[1]), masks
        expected = prior_mask(*tensors)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prior, "is_eager_cpu", lambda *tensors: False)
            assert_close(prior_mask(*tensors), expected, rtol=0, atol=1e-5)


def test_the_prior_of_half_precision_multiplies_it_as_it_is_on_cuda(monkeypatch):
    found = []
    real = torch.bmm

    def bmm(*tensors, **options):
        found.append(([tensor.dtype for tensor in tensors], options))
        return real(*tensors, **options)

    monkeypatch.setattr(torch, "bmm", bmm)
    with FakeTensorMode():
        query, support = (
            torch.empty(shape, dtype=torch.bfloat16, device="cuda") for shape in [(2, 8, 4, 4), (2, 1, 8, 4, 4)]
        )
        answer = prior_mask(query, support, torch.empty(2, 1, 9, 9, dtype=torch.long, device="cuda"))
    assert answer.dtype == torch.float32
    assert found == [([torch.bfloat16] * 2, {"out_dtype": torch.float32})]


def test_the_prior_holds_a_bounded_number_of_products(accelerator, monkeypatch):
    accelerator(prior)
    monkeypatch.setattr(prior, "MAX_PRODUCTS", 2_000)
    with Kernels() as kernels:
        prior_mask(normal(1, 2, 20, 20), normal(1, 1, 2, 20, 20), label_masks(1, 1, 20, 20))
    assert kernels.largest <= 2_000


@pytest.mark.parametrize("size", [(60, 60), (30, 30), (15, 60), (8, 7), (1, 1), (61, 59)])
def test_average_pooling_as_products(size, monkeypatch):
    maps = normal(2, 3, 60, 58, dtype=torch.float64).requires_grad_()
    expected = F.adaptive_avg_pool2d(maps, size)
    weights = normal(*expected.shape, seed=1, dtype=torch.float64)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), maps)
    rows, columns = resizing._averages(60, size[0], maps), resizing._averages(58, size[1], maps)
    found = rows @ maps @ columns.mT
    assert_close(found, expected)
    assert_close(torch.autograd.grad((found * weights).sum(), maps)[0], expected_gradient)


def test_average_pooling_is_products_in_deterministic_mode_alone(monkeypatch):
    with FakeTensorMode():
        maps = torch.empty(1, 2, 9, 9, device="cuda")
        for wanted in (False, True):
            monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda wanted=wanted: wanted)
            with Kernels() as kernels:
                assert resizing.average_pool(maps, (4, 4)).shape == (1, 2, 4, 4)
            assert (kernels.count == 1) == (not wanted)


@pytest.mark.parametrize("shots", [1, 3, 5])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_shots_in_one_pass_are_shots_one_by_one(batch, shots, accelerator, monkeypatch):
    images, masks = uniform(batch, shots, 3, 4, 4), label_masks(batch, shots, 4, 4)
    seen = []

    def encode(image, mask):
        seen.append(len(image))
        pooled = (image * (mask == 1)[:, None]).mean(dim=(2, 3))  # B C
        return Support(pooled, image[:, None], mask[:, None].float(), None)

    expected = shot_by_shot(encode, images, masks)
    assert seen == [batch] * shots
    accelerator(encodings)
    monkeypatch.setattr(encodings, "IMAGES_AT_ONCE", 6)
    seen.clear()
    found = shot_by_shot(encode, images, masks)
    assert max(seen) == min(batch * shots, 6 // max(batch, 1) * batch)
    for value, wanted in zip(found, expected, strict=True):
        assert (value is None) == (wanted is None)
        if value is not None:
            assert_close(value, wanted)
    seen.clear()
    shot_by_shot(encode, images, masks, at_once=False)
    assert seen == [batch] * shots
