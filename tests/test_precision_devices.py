"""What holds of every operation and loss alike: precision, memory layouts, compilers and devices."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.testing import assert_close

from _cases import CASES, Case, as_tensors
from _inputs import generator, normal, subset
from fewshotseg import (
    cosine_kmeans,
    masked_average_pool,
    prior_mask,
    segmentation_loss,
)

EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def run(case: Case, tensors: tuple[Tensor, ...] | None = None) -> list[Tensor]:
    """The case's result with the same draws every time."""
    options = {"generator": generator(0)} if case.draws else {}
    return as_tensors(case.call(*(tensors or case.tensors), **options))


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def with_torchs_generator(call: Callable[..., object], *tensors: Tensor) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return as_tensors(call(*tensors))


def assert_same(results: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    for result, wanted in zip(results, expected, strict=True):
        assert_close(result, wanted, **tolerance)


@EACH_CASE
def test_inputs_stay_as_they_are(case):
    copies = [tensor.clone() for tensor in case.tensors]
    run(case)
    assert_same(list(case.tensors), copies, rtol=0, atol=0)


# Memory layouts


@EACH_CASE
def test_transposed_inputs(case):
    transposed = tuple(tensor.mT.contiguous().mT for tensor in case.tensors)
    assert_same(run(case, transposed), run(case), rtol=1e-5, atol=1e-6)


@EACH_CASE
def test_channels_last_inputs(case):
    moved = tuple(tensor.movedim(1, -1).contiguous().movedim(-1, 1) for tensor in case.tensors)
    assert_same(run(case, moved), run(case), rtol=1e-5, atol=1e-6)


@EACH_CASE
def test_strided_inputs(case):
    strided = tuple(torch.stack([tensor, tensor], dim=-1)[..., 0] for tensor in case.tensors)
    assert not any(tensor.is_contiguous() for tensor in strided)
    assert_same(run(case, strided), run(case), rtol=1e-5, atol=1e-6)


@EACH_CASE
def test_expanded_inputs(case):
    expanded = tuple(tensor[:1].expand_as(tensor) for tensor in case.tensors)
    contiguous = tuple(tensor.contiguous() for tensor in expanded)
    assert_same(run(case, expanded), run(case, contiguous), rtol=1e-5, atol=1e-6)


# Precision

IN_FULL_PRECISION = [case for case in CASES if case.name != "resize_bilinear"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", IN_FULL_PRECISION, ids=lambda case: case.name)
def test_autocast_changes_nothing(case, dtype):
    expected = run(case)
    with torch.autocast("cpu", dtype=dtype):
        results = run(case)
    assert_same(results, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name",
    ["masked_average_pool", "cosine_logits", "density_logits", "self_contrastive_pairs", "segmentation_loss"],
)
def test_autocast_changes_no_gradient(name, dtype):
    def gradient(context):
        first, *others = named(name).tensors
        leaf = first.clone().requires_grad_()
        with context:
            results = run(named(name), (leaf, *others))
        results[0].sum().backward()
        return leaf.grad

    assert_close(gradient(torch.autocast("cpu", dtype=dtype)), gradient(nullcontext()), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_of_half_precision_features(dtype):
    # What a model under autocast hands over: half-precision features beside float32 masks.
    features, masks = normal(2, 6, 5, 4, dtype=dtype), subset(2, 5, 4).float()
    support = normal(2, 1, 6, 5, 4, seed=1, dtype=dtype)
    points = features.flatten(2).mT
    with torch.autocast("cpu", dtype=dtype):
        pooled = masked_average_pool(features, masks)
        clusters = cosine_kmeans(points, points[:, :3])
        prior = prior_mask(features, support, masks[:, None])
        loss = segmentation_loss(features[:, :2], masks.long())
    assert_close(pooled, masked_average_pool(features.float(), masks).to(dtype), rtol=0, atol=0)
    assert_same(list(clusters), list(cosine_kmeans(points.float(), points[:, :3].float())), rtol=0, atol=0)
    assert_close(prior, prior_mask(features.float(), support.float(), masks[:, None]), rtol=0, atol=0)
    assert_close(loss, segmentation_loss(features[:, :2].float(), masks.long()), rtol=0, atol=0)


@EACH_CASE
def test_double_precision_stays(case):
    double = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in case.tensors)
    for result, single in zip(run(case, double), run(case), strict=True):
        if single.is_floating_point() and any(tensor.is_floating_point() for tensor in case.tensors):
            assert result.dtype == torch.float64
            assert_close(result.float(), single, rtol=1e-4, atol=1e-5)
        else:
            assert_close(result, single)


# Compilers


@EACH_CASE
def test_compiles_without_a_graph_break(case):
    torch.compiler.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="eager")
    expected = with_torchs_generator(case.call, *case.tensors)
    assert_same(with_torchs_generator(compiled, *case.tensors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "masked_average_pool",
        "cosine_kmeans, valid",
        "cosine_logits, several",
        "density_logits",
        "prior_mask",
        "segmentation_loss",
        "SelfContrastiveLoss",
    ],
)
def test_compiles_once_for_all_sizes(name):
    torch.compiler.reset()
    case = named(name)
    compiled = torch.compile(case.call, fullgraph=True, backend="eager", dynamic=True)
    for times in (1, 2):
        tensors = tuple(tensor.repeat(times, *[1] * (tensor.ndim - 1)) for tensor in case.tensors)
        expected = with_torchs_generator(case.call, *tensors)
        assert_same(with_torchs_generator(compiled, *tensors), expected, rtol=1e-5, atol=1e-6)


def test_compiles_with_inductor():
    torch.compiler.reset()
    points, init = normal(2, 20, 6), normal(2, 3, 6, seed=1)
    compiled = torch.compile(cosine_kmeans, fullgraph=True)
    expected = cosine_kmeans(points, init, num_iters=2)
    assert_same(list(compiled(points, init, num_iters=2)), list(expected), rtol=1e-5, atol=1e-6)


def test_a_compiled_loss_trains():
    torch.compiler.reset()

    def gradient(call):
        features, *others = named("SelfContrastiveLoss").tensors
        leaf = features.clone().requires_grad_()
        with_torchs_generator(call, leaf, *others)[0].backward()
        return leaf.grad

    loss = named("SelfContrastiveLoss").call
    assert_close(gradient(torch.compile(loss, fullgraph=True, backend="aot_eager")), gradient(loss))


class KMeansModule(nn.Module):
    def forward(self, points, init, valid):
        return tuple(cosine_kmeans(points, init, valid=valid))


class PriorModule(nn.Module):
    def forward(self, query, support, masks):
        return (prior_mask(query, support, masks),)


@pytest.mark.parametrize(("module", "name"), [(KMeansModule(), "cosine_kmeans, valid"), (PriorModule(), "prior_mask")])
def test_exports(module, name):
    tensors = named(name).tensors
    program = torch.export.export(module, tensors).module()
    assert_same(program(*tensors), module(*tensors), rtol=1e-5, atol=1e-6)
    # Other values, and other validity or foreground too, so that none of them was baked in.
    others = tuple(tensor.flip(1) for tensor in tensors)
    assert_same(program(*others), module(*others), rtol=1e-5, atol=1e-6)


# Devices

WAITS = {
    "item": lambda mask: mask.any().item(),
    "branch": lambda mask: bool(mask[0]),
    "nonzero": lambda mask: mask.nonzero(),
    "boolean index": lambda mask: mask[mask],
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_tensors_without_values_refuse_to_make_the_host_wait(wait):
    # So that the two tests below can fail.
    with FakeTensorMode(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        wait(torch.ones(3, device="cuda", dtype=torch.bool))
    with pytest.raises((RuntimeError, NotImplementedError)):
        wait(torch.ones(3, device="meta", dtype=torch.bool))


@EACH_CASE
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_gpu_never_waits(case, own_generator):
    options = {"generator": generator(0)} if case.draws and own_generator else {}
    expected = run(case)
    with FakeTensorMode():
        fakes = [torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda") for tensor in case.tensors]
        results = as_tensors(case.call(*fakes, **options))
    for result, wanted in zip(results, expected, strict=True):
        assert result.device.type == "cuda"
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)


@EACH_CASE
def test_shapes_alone_are_enough_forward_and_backward(case):
    # Autograd of fake CUDA tensors asks for a real device; meta tensors take the same path and need none.
    tensors = [
        torch.empty_like(tensor, device="meta", requires_grad=tensor.is_floating_point()) for tensor in case.tensors
    ]
    results = as_tensors(case.call(*tensors))
    for result, wanted in zip(results, run(case), strict=True):
        assert result.device.type == "meta"
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
    differentiable = [result.sum() for result in results if result.requires_grad]
    if differentiable:
        sum(differentiable).backward()
        assert tensors[0].grad is not None
        assert tensors[0].grad.shape == tensors[0].shape


# Gradients


def test_what_carries_gradient():
    # Everything that is not differentiable says so, whatever its inputs are.
    carried = {}
    for case in CASES:
        tensors = tuple(t.clone().requires_grad_() if t.is_floating_point() else t for t in case.tensors)
        carried[case.name] = [result.requires_grad for result in run(case, tensors)]
    assert carried == {
        "masked_average_pool": [True],
        "masked_average_pool, several": [True],
        "masked_average_pool, masks resized": [True],
        "masked_average_pool, features resized": [True],
        "sample_centroids": [False],
        "cosine_kmeans": [False, False, False],
        "cosine_kmeans, valid": [False, False, False],
        "cosine_logits": [True],
        "cosine_logits, several": [True],
        "cosine_logits, learnable": [True],
        "density_logits": [True],
        "background_regions": [False],
        "expand_prototypes": [True],
        "assign_prototypes": [True],
        "assign_prototypes, large maps": [True],
        "prior_mask": [False],
        "prior_mask, weights": [False],
        "correlation": [True, True],
        "self_support_masks": [False],
        "local_prototypes": [True],
        "vote_shots": [False],
        "gram_distance": [True],
        "resize_bilinear": [True],
        "sample_nearest": [False],
        "foreground_weights": [False],
        "CosineKMeans": [False],
        "GridPartition": [False],
        "self_contrastive_pairs": [True, False, True, False],
        "SelfContrastiveLoss": [True],
        "SelfContrastiveLoss, several logits": [True],
        "alignment_loss": [True],
        "background_target": [False],
        "segmentation_loss": [True],
        "segmentation_loss, void": [True],
    }


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@EACH_CASE
def test_without_gradients_the_results_are_the_same(case, context):
    with context():
        results = run(case)
    assert_same(results, run(case), rtol=0, atol=0)
