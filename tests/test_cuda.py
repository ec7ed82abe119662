"""The same results on a GPU as on a CPU, and no waiting for it."""

import pytest
import torch
from torch.testing import assert_close

from _cases import CASES, Case, as_tensors
from _inputs import generator
from fewshotseg.ops._devices import copy_to

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def run(case: Case, device: str) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    """Results and the gradients of the inputs, with the same draws on every device."""
    tensors = [tensor.to(device, copy=True).requires_grad_(tensor.is_floating_point()) for tensor in case.tensors]
    options = {"generator": generator(0)} if case.draws else {}
    results = as_tensors(case.call(*tensors, **options))
    for result in results:
        if result.requires_grad:
            result.square().sum().backward(retain_graph=True)
    return results, [tensor.grad for tensor in tensors]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cuda_gives_what_the_cpu_gives(case):
    for on_gpu, on_cpu in zip(run(case, "cuda"), run(case, "cpu"), strict=True):
        for value, expected in zip(on_gpu, on_cpu, strict=True):
            if expected is None:
                assert value is None
                continue
            assert value.device.type == "cuda"
            assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.draws], ids=lambda case: case.name)
def test_a_cuda_generator_makes_draws_repeatable(case):
    tensors = [tensor.cuda() for tensor in case.tensors]
    first, again = (as_tensors(case.call(*tensors, generator=torch.Generator("cuda").manual_seed(1))) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert_close(one, two)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("draws_on", ["cuda", "cpu"])
def test_cuda_never_waits(case, draws_on):
    tensors = [tensor.cuda() for tensor in case.tensors]
    options = {"generator": torch.Generator(draws_on).manual_seed(0)} if case.draws else {}
    case.call(*tensors, **options)  # what is done once, such as loading a kernel, may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        case.call(*tensors, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_loss_trains_in_deterministic_mode():
    case = next(case for case in CASES if case.name == "segmentation_loss")
    torch.use_deterministic_algorithms(True)
    try:
        first, again = (run(case, "cuda") for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first[0][0], again[0][0])
    assert torch.equal(first[1][0], again[1][0])


def test_numbers_that_are_copied_to_the_cpu_have_arrived_when_they_are_read():
    made = torch.arange(2**24, device="cuda")
    for _ in range(3):
        made = made + 1
        assert_close(copy_to(made, torch.device("cpu")).sum(), made.sum().cpu())
