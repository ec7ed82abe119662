import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.testing import assert_close

from fewshotseg.models.fast import conv3x3
from fewshotseg.models.fast.conv3x3 import WIDE, Conv3x3, weight_gradient


@pytest.fixture
def any_width(monkeypatch):
    monkeypatch.setattr(conv3x3, "WIDE", 1)


def naive_weight_gradient(maps, grad):
    """Location by location: what was looked at, times what came back."""
    batch, inputs, height, width = maps.shape
    result = torch.zeros(grad.shape[1], inputs, 3, 3, dtype=torch.float64)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for i in range(3):
                    for j in range(3):
                        above, beside = y + i - 1, x + j - 1
                        if 0 <= above < height and 0 <= beside < width:
                            result[:, :, i, j] += torch.outer(grad[b, :, y, x], maps[b, :, above, beside]).double()
    return result


def takes_own_way(output):
    return type(output.grad_fn).__name__ == "_ConvolutionBackward"


def step(conv, maps):
    """Output and gradients of one pass."""
    conv.zero_grad()
    leaf = maps.detach().requires_grad_()
    output = conv(leaf)
    (output.square() * torch.linspace(-1, 2, output.numel()).to(output.dtype).view(output.shape)).sum().backward()
    return output.detach(), leaf.grad, conv.weight.grad.clone()


@given(
    st.tuples(*(st.integers(1, most) for most in (3, 4, 6, 6))), st.integers(1, 3), st.booleans(), st.integers(0, 99)
)
def test_weight_gradient_is_that_of_the_definition(shape, outputs, channels_last, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64)
    grad = torch.randn(shape[0], outputs, *shape[2:], generator=generator, dtype=torch.float64)
    expected = naive_weight_gradient(maps, grad)
    if channels_last:
        maps, grad = (each.to(memory_format=torch.channels_last) for each in (maps, grad))
    assert_close(weight_gradient(maps, grad), expected)


def test_weight_gradient_literal():
    maps = torch.arange(1.0, 5).view(1, 1, 2, 2)
    grad = torch.tensor([[[[1.0, 0], [0, 0]]]])  # only the first location: what lies right of it and below
    expected = torch.tensor([[[[0.0, 0, 0], [0, 1, 2], [0, 3, 4]]]])
    assert_close(weight_gradient(maps, grad), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_layers_give_what_conv2d_gives(layout, dtype):
    torch.manual_seed(0)
    ours = Conv3x3(WIDE).to(dtype)
    plain = nn.Conv2d(WIDE, WIDE, 3, padding=1, bias=False).to(dtype)
    plain.load_state_dict(ours.state_dict())
    maps = torch.randn(2, WIDE, 7, 5, dtype=dtype).to(memory_format=layout)
    assert takes_own_way(ours(maps))
    for found, expected in zip(step(ours, maps), step(plain, maps), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_gradients_and_their_gradients(any_width):
    torch.manual_seed(0)
    conv = Conv3x3(2).double()

    def compute(maps, weight):
        return torch.func.functional_call(conv, {"weight": weight}, (maps,))

    inputs = torch.randn(2, 2, 3, 4, dtype=torch.float64).requires_grad_(), conv.weight
    assert takes_own_way(conv(inputs[0]))
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated:FutureWarning")  # by torch itself
def test_forward_derivatives(any_width):
    torch.manual_seed(0)
    conv, maps, step = Conv3x3(2), torch.randn(1, 2, 4, 5), torch.randn(1, 2, 4, 5)
    with forward_ad.dual_level():
        derivative = forward_ad.unpack_dual(conv(forward_ad.make_dual(maps, step))).tangent
    assert_close(derivative, conv(step))  # it is linear


def test_gradients_of_single_images(any_width):
    torch.manual_seed(0)
    conv, maps = Conv3x3(2).double(), torch.randn(3, 2, 3, 4, dtype=torch.float64)

    def loss(weight, image):
        return torch.func.functional_call(conv, {"weight": weight}, (image[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(conv.weight.detach(), maps)
    for gradient, image in zip(found, maps, strict=True):
        (expected,) = torch.autograd.grad(loss(conv.weight, image), conv.weight)
        assert_close(gradient, expected)


def test_a_frozen_input_needs_no_gradient(any_width):
    conv = Conv3x3(2)
    maps = torch.rand(1, 2, 4, 4)
    output = conv(maps)
    assert takes_own_way(output)
    (gradient,) = torch.autograd.grad(output.sum(), conv.weight)
    assert_close(gradient.double(), naive_weight_gradient(maps, torch.ones(1, 2, 4, 4)), rtol=1e-5, atol=1e-5)


def test_a_batch_of_none(any_width):
    conv = Conv3x3(2)
    conv(torch.zeros(0, 2, 3, 3)).sum().backward()
    assert not conv.weight.grad.any()


def test_everything_else_is_conv2d(any_width):
    conv = Conv3x3(2)
    maps = torch.rand(1, 2, 4, 4)
    assert takes_own_way(conv(maps))
    with torch.no_grad():
        assert conv(maps).grad_fn is None
    with torch.autocast("cpu", torch.bfloat16):
        mixed = conv(maps)
    assert mixed.dtype == torch.bfloat16
    half = copy.deepcopy(conv).bfloat16()(maps.bfloat16())
    frozen = copy.deepcopy(conv).requires_grad_(False)(maps.clone().requires_grad_())
    assert not any(map(takes_own_way, (mixed, half, frozen)))
    with FakeTensorMode(), torch.device("cuda"):
        fake = Conv3x3(2)(torch.rand(1, 2, 4, 4))
    assert fake.device.type == "cuda"
    assert not takes_own_way(fake)


def test_narrow_layers_are_conv2d():
    narrow = Conv3x3(WIDE - 1)
    assert not takes_own_way(narrow(torch.rand(1, WIDE - 1, 3, 3)))


CHANGES = {
    "dilation": {"dilation": (2, 2), "padding": (2, 2)},
    "stride": {"stride": (2, 2)},
    "padding": {"padding": (0, 0)},
    "same padding": {"padding": "same"},
    "padding mode": {"padding_mode": "circular"},
    "nothing": {},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", [6, WIDE])
def test_whatever_is_changed_it_stays_conv2d(change, bias, channels):
    torch.manual_seed(0)
    settings = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "padding_mode": "zeros"} | CHANGES[change]
    plain = nn.Conv2d(channels, channels, 3, bias=bias, **settings)
    ours = Conv3x3(channels)
    for name in ("stride", "padding", "dilation", "padding_mode", "_reversed_padding_repeated_twice", "bias", "weight"):
        setattr(ours, name, getattr(plain, name))
    maps = torch.randn(2, channels, 9, 7)
    for found, expected in zip(step(ours, maps), step(plain, maps), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        assert torch.equal(ours.eval()(maps), plain.eval()(maps))


def test_a_reparametrised_weight_is_made_once_a_call():
    """Spectral norm takes a step of its own at each look."""
    torch.manual_seed(0)
    ours, plain = Conv3x3(WIDE), nn.Conv2d(WIDE, WIDE, 3, padding=1, bias=False)
    plain.load_state_dict(ours.state_dict())
    for each in (ours, plain):
        torch.manual_seed(1)
        nn.utils.parametrizations.spectral_norm(each)
    maps = torch.randn(1, WIDE, 5, 5)
    for _ in range(3):
        assert_close(ours(maps), plain(maps), rtol=1e-4, atol=1e-5)
    assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)


def test_it_compiles_whole(any_width):
    conv = Conv3x3(4)
    maps = torch.rand(2, 4, 6, 6)
    expected = step(conv, maps)
    for found, want in zip(step(torch.compile(conv, fullgraph=True), maps), expected, strict=True):
        assert_close(found, want, rtol=1e-4, atol=1e-4)
