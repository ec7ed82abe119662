"""A 1x1 convolution of maps laid side by side: that of their concatenation, whatever is done to it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fewshotseg.models import ComparisonHead, ConcatConv1x1, comparison
from fewshotseg.ops import resize_bilinear

SIDES = st.integers(1, 6)


def concatenated(merge, maps, size):
    """The definition."""
    whole = torch.cat([resize_bilinear(part, size) for part in maps], dim=1)
    return F.conv2d(whole, merge[0].weight, merge[0].bias).relu()


def maps_of(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def merge_of(maps, outputs=5):
    torch.manual_seed(0)
    return ConcatConv1x1(sum(part.shape[1] for part in maps), outputs).double()


@given(st.lists(st.tuples(st.integers(1, 3), SIDES, SIDES), min_size=1, max_size=4), st.tuples(SIDES, SIDES))
def test_maps_of_any_size_and_order(shapes, size):
    maps = maps_of(*shapes)
    merge = merge_of(maps)
    assert_close(merge(maps, size), concatenated(merge, maps, size), rtol=1e-10, atol=1e-10)


SHAPES = {
    "a cell first": [(3, 1, 1), (2, 4, 4)],
    "a cell last": [(2, 4, 4), (3, 1, 1)],
    "cells alone": [(3, 1, 1), (2, 1, 1)],
    "one cell": [(3, 1, 1)],
    "a row": [(3, 1, 4), (2, 4, 1)],
}


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 3), (1, 5)])
@pytest.mark.parametrize("shapes", SHAPES)
def test_cells_and_gradients(shapes, size):
    maps = [part.requires_grad_() for part in maps_of(*SHAPES[shapes])]
    merge = merge_of(maps)
    found, expected = merge(maps, size), concatenated(merge, maps, size)
    assert found.shape == (2, 5, *size)
    assert_close(found, expected)
    direction = torch.randn(found.shape, dtype=torch.float64)
    inputs = [*maps, merge[0].weight]
    for grad, wanted in zip(
        torch.autograd.grad((found * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
        strict=True,
    ):
        assert_close(grad, wanted)


def test_inputs_are_left_alone():
    maps = maps_of((3, 4, 4), (2, 4, 4))
    before = [part.clone() for part in maps]
    merge_of(maps)(maps, (4, 4))
    assert all(map(torch.equal, maps, before))


class Doubled(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, maps):
        return 2 * self.conv(maps)


def with_a_hook(merge):
    merge[0].register_forward_hook(lambda module, inputs, output: 2 * output)


def with_a_pre_hook(merge):
    merge[0].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def with_a_wrapper(merge):
    merge[0] = Doubled(merge[0])


def with_a_forward_of_its_own(merge):
    conv = merge[0]
    conv.forward = lambda maps: 2 * F.conv2d(maps, conv.weight)


def with_twice_the_weight(merge):
    with torch.no_grad():
        merge[0].weight.mul_(2)


@pytest.mark.parametrize(
    "change", [with_a_hook, with_a_pre_hook, with_a_wrapper, with_a_forward_of_its_own, with_twice_the_weight]
)
def test_the_convolution_is_called_as_it_is_now(change):
    maps = maps_of((3, 4, 4), (2, 1, 1))
    merge = merge_of(maps)
    before = merge(maps, (4, 4))
    change(merge)
    assert_close(merge(maps, (4, 4)), 2 * before)


def test_hooks_see_the_concatenation():
    maps, seen = maps_of((3, 4, 4), (2, 1, 1)), []
    merge = merge_of(maps)
    merge[0].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].shape, output.shape)))
    merge(maps, (6, 5))
    assert seen == [((2, 5, 6, 5), (2, 5, 6, 5))]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(5, 5, 1, bias=True),
        nn.Conv2d(5, 5, 3, padding=1, bias=False),
        nn.Conv2d(5, 5, 1, groups=5, bias=False),
        nn.Conv2d(5, 5, 1, stride=2, bias=False),
        nn.Conv2d(5, 5, 1, padding=1, bias=False),
    ],
    ids=str,
)
def test_any_other_convolution_gets_the_concatenation(conv):
    maps = maps_of((3, 4, 4), (2, 1, 1))
    merge = merge_of(maps)
    merge[0] = conv.double()
    whole = torch.cat([maps[0], maps[1].expand(-1, -1, 4, 4)], dim=1)
    assert_close(merge(maps, (4, 4)), conv(whole).relu())


def test_what_follows_may_be_replaced():
    maps = maps_of((3, 4, 4))
    merge = merge_of(maps)
    merge[1] = nn.Identity()
    merge.append(nn.Hardtanh())
    assert_close(merge(maps, (4, 4)), F.conv2d(maps[0], merge[0].weight).clamp(-1, 1))


@pytest.mark.parametrize("bins", [(0.01,), (0.01, 1.0), (1.0, 0.01), (8, 1.0, 3)])
def test_a_head_of_any_scales_answers_on_the_grid_of_the_query(bins):
    torch.manual_seed(0)
    head = ComparisonHead(4, bins).eval()
    query, prior = torch.rand(2, 4, 6, 5), torch.rand(2, 1, 6, 5)
    answer = head(query, torch.rand(2, 4, 1, 1), prior, with_aux=True)
    assert answer.logits.shape == (2, 2, 6, 5)
    assert len(answer.aux) == len(bins)
    plain = ComparisonHead(4, bins).eval()
    plain.load_state_dict(head.state_dict())
    for module in plain.modules():
        if isinstance(module, nn.Conv2d):  # which makes every concatenation a real one
            module.register_forward_hook(lambda *_: None)
    prototypes = torch.rand(2, 4, 1, 1)
    assert_close(plain(query, prototypes, prior).logits, head(query, prototypes, prior).logits)


def test_a_concatenation_keeps_the_layout_of_the_first_map(monkeypatch):
    monkeypatch.setattr(comparison, "splits", lambda *_: False)
    merge = ConcatConv1x1(4 + 4 + 1, 3)
    query, prior = torch.rand(2, 4, 5, 6), torch.rand(2, 1, 5, 6)
    prototype = torch.rand(2, 4, 1, 1)
    expected = merge([query, prototype, prior], (5, 6))
    seen = []
    merge[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = merge([query.contiguous(memory_format=torch.channels_last), prototype, prior], (5, 6))
    assert_close(found, expected)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_an_accelerator_convolves_once():
    convolutions = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
            if operation is torch.ops.aten.convolution.default:
                convolutions.append(tuple(arguments[0].shape))
            return operation(*arguments, **(keywords or {}))

    maps = maps_of((3, 4, 4), (3, 1, 1), (1, 2, 2))
    for device, wanted in (("cuda", [(2, 7, 4, 4)]), ("cpu", [tuple(part.shape) for part in maps])):
        with FakeTensorMode(), torch.device(device), Seen():
            ConcatConv1x1(7, 5)([torch.empty(part.shape) for part in maps], (4, 4))
        assert convolutions == wanted
        convolutions.clear()


@pytest.mark.parametrize("shapes", SHAPES)
def test_the_concatenation_computes_the_same(shapes, monkeypatch):
    maps = maps_of(*SHAPES[shapes])
    merge = merge_of(maps)
    expected = merge(maps, (4, 3))
    monkeypatch.setattr(comparison, "splits", lambda conv, maps: False)
    assert_close(merge(maps, (4, 3)), expected)
