"""Backbones that cannot be cut give what those that are cut give, the support's mask aside; wrong ones are refused."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _models import TinyBackbone
from fewshotseg.models.frozen import frozen_steps
from fewshotseg.ops import foreground_weights, masked_average_pool, prior_mask, resize_bilinear

SETTINGS = {"hidden_channels": 8, "bins": (1.0, 0.5)}


class Hooked(nn.Module):
    """The tiny network as somebody's module of which only hooks reach the maps."""

    mid_channels = 18

    def __init__(self, tiny):
        super().__init__()
        self.net, self.maps, self.calls = tiny, {}, 0
        for name in ("shallow", "deep", "last"):
            getattr(tiny, name).register_forward_hook(lambda *call, name=name: self.maps.update({name: call[2]}))

    def mid_and_high(self, images):
        self.calls += 1
        self.net.last(self.net.deep(self.net.shallow(images)))
        return (self.maps["deep"], self.maps["shallow"]), self.maps["last"]


class Planted(nn.Module):
    """Maps on three grids: 1/4 and 1/8 of the image as mid-level maps, 1/16 as the high-level map."""

    mid_channels = 3 + 3

    def mid_and_high(self, images):
        mid = tuple(nn.functional.avg_pool2d(images, side, ceil_mode=True) for side in (4, 8))
        return mid, nn.functional.avg_pool2d(images, 16, ceil_mode=True)


def episodes():
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(2, 3, 64, 80, generator=generator) for _ in "ab")
    masks = torch.zeros(2, 64, 80, dtype=torch.int64)
    masks[:, 10:40, 20:70], masks[:, :, :5] = 1, 255
    return support[:, None], masks[:, None], query


def cut_and_whole(**settings):
    torch.manual_seed(0)
    cut = fs.build_scnet(TinyBackbone(), **SETTINGS, **settings).eval()
    whole = fs.build_scnet(Hooked(cut.backbone), **SETTINGS, **settings).eval()
    whole.load_state_dict({key.replace("backbone.", "backbone.net."): value for key, value in cut.state_dict().items()})
    return cut, whole


def test_whole_backbones_differ_by_the_mask_in_front_of_the_last_stage_alone():
    cut, whole = cut_and_whole()
    images, masks, queries = episodes()
    query, expected = whole.encode_query(queries), cut.encode_query(queries)
    assert_close(query.features, expected.features, rtol=0, atol=0)
    assert_close(query.high, expected.high, rtol=0, atol=0)
    support, expected = whole.encode_support(images, masks), cut.encode_support(images, masks)
    assert_close(support.prototype, expected.prototype, rtol=0, atol=0)
    assert_close(support.weights, expected.weights, rtol=0, atol=0)
    unmasked = cut.backbone.high(cut.backbone.mid(images[:, 0])[0])
    assert_close(support.high[:, 0], unmasked, rtol=0, atol=0)
    assert not torch.allclose(support.high, expected.high)
    _, prior = whole._class_specific(support, query)
    assert_close(prior, prior_mask(query.high, unmasked[:, None], masks))


def test_pooling_is_on_the_grid_of_the_first_map_and_the_prior_on_that_of_the_last():
    model = fs.build_scnet(Planted(), **SETTINGS).eval()
    images, masks, queries = episodes()
    support = model.encode_support(images, masks)
    fine, coarse = (nn.functional.avg_pool2d(images[:, 0], side) for side in (4, 8))
    features = model.reduce_support(torch.cat([fine, resize_bilinear(coarse, (16, 20))], dim=1))
    weights = foreground_weights(masks[:, 0], (16, 20))
    assert_close(support.prototype, masked_average_pool(features, weights, eps=5e-4))
    assert support.high.shape == (2, 1, 3, 4, 5)
    assert_close(support.weights[:, 0], foreground_weights(masks[:, 0], (4, 5)))
    assert model.encode_query(queries).features.shape == (2, 8, 16, 20)
    both = model.encode_both(images[:, 0], masks[:, 0])
    assert_close(both[0].prototype, support.prototype)
    assert_close(both[1].high, model.encode_query(images[:, 0]).high)


@pytest.mark.parametrize("settings", [{}, {"background_source": "support", "num_prototypes": 1}])
def test_training_steps_leave_the_backbone_alone(settings):
    _, model = cut_and_whole(**settings)
    images, masks, queries = episodes()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.train()(images, masks, queries, masks[:, 0]).loss.backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in model.head.parameters())
    assert all(part.grad is None for part in model.backbone.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())


def test_memory_never_answers_for_a_module_with_hooks():
    _, model = cut_and_whole()
    images, masks, queries = episodes()
    expected = model(images, masks, queries).logits
    model.memory = fs.FeatureMemory(2**24)
    with pytest.warns(UserWarning, match="memory caches nothing for this backbone, whose modules have hooks"):
        model.encode_query(queries)
    for _ in range(2):  # it is said once
        model.backbone.calls = 0
        assert_close(model(images, masks, queries).logits, expected)
        assert model.backbone.calls == 2


def test_the_faster_form_is_the_module_itself():
    _, model = cut_and_whole()
    images, masks, queries = episodes()
    expected = model(images, masks, queries).logits
    model.fuse().backbone.calls = 0
    assert torch.equal(model(images, masks, queries).logits, expected)
    assert model.backbone.calls == 2
    model.backbone.net.last.bias.data.add_(1)
    assert torch.equal(model.encode_query(queries).high, model.backbone.mid_and_high(queries)[1])


def test_a_module_with_both_is_cut():
    class Both(TinyBackbone):
        def mid_and_high(self, images):
            raise AssertionError

    model = fs.build_scnet(Both(), **SETTINGS).eval()
    assert model(*episodes()).logits.shape == (2, 2, 64, 80)


# What is refused


def module(**members):
    made = nn.Identity()
    for name, value in members.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        (nn.Identity(), TypeError, r"mid and high, or mid_and_high, but Identity lacks mid and high$"),
        (module(mid=len), TypeError, r"but Identity lacks high$"),
        (module(mid=len, high=len), TypeError, r"must have mid_channels, .* but Identity lacks it$"),
        (module(mid_and_high=len), TypeError, r"must have mid_channels, .* but Identity lacks it$"),
        (module(mid_and_high=len, mid_channels=0), ValueError, r"backbone.mid_channels must be at least 1, got 0"),
        (module(mid_and_high=len, mid_channels=2.0), TypeError, r"backbone.mid_channels must be an integer, got float"),
        (3, TypeError, "backbone must be a name or an nn.Module, got int"),
    ],
)
def test_modules_that_are_no_backbones_are_refused(backbone, error, message):
    with pytest.raises(error, match=message):
        fs.build_scnet(backbone, **SETTINGS)


MAP = torch.zeros(2, 6, 8, 10)


@pytest.mark.parametrize(
    ("mid", "error", "message"),
    [
        ((), TypeError, r"got tuple of nothing"),
        ((MAP, None), TypeError, r"map 1 of backbone.mid must be a tensor, got NoneType"),
        ((MAP.flatten(2),), ValueError, r"shape \(B, C, h, w\) with B=2, got \(2, 6, 80\); tokens have to be laid out"),
        ((MAP[:1],), ValueError, r"with B=2, got \(1, 6, 8, 10\)$"),
        ((MAP.long(),), TypeError, r"must be floating point, got torch.int64"),
        ((MAP, MAP), ValueError, r"must have backbone.mid_channels=6 channels, got 6 \+ 6$"),
        ((MAP.movedim(1, 3),), ValueError, r"got 8; they seem to be last: permute\(0, 3, 1, 2\) brings them second"),
    ],
)
def test_wrong_mid_level_maps_are_refused_at_the_first_image(mid, error, message):
    cut = module(mid=lambda _: mid, high=lambda deepest: deepest, mid_channels=6)
    whole = module(mid_and_high=lambda _: (mid, MAP), mid_channels=6)
    images, masks, queries = episodes()
    for backbone, name in ((cut, "backbone.mid"), (whole, "the mid-level maps of backbone.mid_and_high")):
        model = fs.build_scnet(backbone, **SETTINGS)
        for call in (lambda m: m.encode_query(queries), lambda m: m.encode_support(images, masks)):
            with pytest.raises(error, match=message.replace("backbone.mid must", f"{name} must")) as refusal:
                call(model)
            assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (MAP, "must give a tuple of mid-level maps and a high-level map, got Tensor"),
        ((MAP, MAP), "got tuple of Tensor, Tensor"),
        (((MAP,), MAP, MAP), "got tuple of tuple, Tensor, Tensor"),
        (((MAP,), (MAP,)), "the high-level map of backbone.mid_and_high must be a tensor, got tuple"),
    ],
)
def test_wrong_answers_of_mid_and_high_are_refused(answer, message):
    model = fs.build_scnet(module(mid_and_high=lambda _: answer, mid_channels=6), **SETTINGS)
    with pytest.raises(TypeError, match=message):
        model.encode_query(episodes()[2])


def test_one_map_that_is_not_in_a_tuple_is_refused():
    model = fs.build_scnet(module(mid=lambda _: MAP, high=lambda deepest: deepest, mid_channels=6), **SETTINGS)
    with pytest.raises(TypeError, match=r"^backbone.mid must be a tuple of one or more maps, got Tensor$"):
        model.encode_query(episodes()[2])


def test_wrong_high_level_maps_are_refused():
    steps = frozen_steps(module(mid=lambda _: (MAP,), high=lambda _: MAP[0], mid_channels=6))
    with pytest.raises(ValueError, match=r"backbone.high must have shape \(B, C, h, w\) with B=2, got \(6, 8, 10\)"):
        steps.high(MAP)
