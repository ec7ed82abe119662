"""Folded norms: the same features as the backbone's own, from a copy that shares what it can and changes nothing."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _models import TinyBackbone
from fewshotseg.models import StagedBackbone
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fast.folding import folded


def with_random_norms(backbone):
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
            if module.track_running_stats:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return backbone.double().requires_grad_(False).eval()


def norms(backbone):
    return sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


def assert_same_features(backbone, other):
    images = torch.rand(2, 3, 65, 49, dtype=torch.float64)
    maps = backbone.mid(images)
    assert_close(other.mid(images), maps, rtol=1e-9, atol=1e-9)
    assert_close(other.high(maps[0]), backbone.high(maps[0]), rtol=1e-9, atol=1e-9)


def chain(*, cut=(2, 4), **modules):
    """A backbone of named modules, cut after so many of them; random, in evaluation mode."""
    names = [*modules]
    first, second = cut
    return with_random_norms(
        StagedBackbone(modules, shallow=names[:first], mid=names[first:second], high=names[second:], mid_channels=2 * 4)
    )


def conv(inputs=4, outputs=4, **settings):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)


def simple(**changes):
    modules = {
        "a": conv(3),
        "a_norm": nn.BatchNorm2d(4),
        "b": conv(bias=False),
        "b_norm": nn.BatchNorm2d(4),
        "c": conv(),
    }
    return chain(**(modules | changes))


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet50", 0), ("resnet50s", 1), ("vgg16_bn", 0), ("mobilenet_v2", 0), ("efficientnet_lite0", 0), ("tiny", 0)],
)
def test_no_norm_of_the_named_backbones_is_left_that_follows_a_convolution(name, left):
    backbone = with_random_norms(make_backbone(name))
    assert norms(backbone) > 4
    assert norms(folded(backbone)) == left
    assert_same_features(backbone, folded(backbone))


@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "tf_efficientnet_lite0", "efficientnet_es"])
def test_known_blocks_of_timm_fold(name):
    backbone = with_random_norms(fs.TimmBackbone(timm.create_model(name, features_only=True)))
    assert norms(folded(backbone)) <= 1
    assert_same_features(backbone, folded(backbone))


@pytest.mark.parametrize("name", ["resnetv2_50", "regnetx_002", "skresnet18", "resnetblur18"])
def test_other_blocks_of_timm_stay_as_they_are(name):
    backbone = with_random_norms(fs.TimmBackbone(timm.create_model(name, features_only=True)))
    assert_same_features(backbone, folded(backbone))


class Standardised(nn.Conv2d):
    """Not what its weights say: they are brought to unit length first."""

    def forward(self, maps):
        return self._conv_forward(maps, self.weight / self.weight.norm(), self.bias)


class ReadsBetween(nn.Module):
    """A block that looks at what its sequence gives half-way."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(conv(), nn.BatchNorm2d(4))

    def forward(self, maps):
        between = self.layers[0](maps)
        return self.layers[1](between) + between


UNFIT = {
    "a convolution of another kind": lambda: simple(b=Standardised(4, 4, 3, padding=1)),
    "a block that nobody knows": lambda: simple(b=ReadsBetween()),
    "a norm of another kind": lambda: simple(b_norm=nn.GroupNorm(2, 4)),
    "a norm in front": lambda: simple(b=nn.BatchNorm2d(4), b_norm=nn.Conv2d(4, 4, 1)),
    "a step between": lambda: simple(b=nn.Sequential(conv(), nn.Softplus(), nn.BatchNorm2d(4)), b_norm=nn.ReLU()),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_a_norm_that_is_not_one_convolutions_alone_stays(reason):
    backbone = UNFIT[reason]()
    others = sum(isinstance(module, nn.BatchNorm2d) for module in backbone.a_norm.modules())
    assert norms(folded(backbone)) == norms(backbone) - others
    assert_same_features(backbone, folded(backbone))


def test_a_backbone_whose_norms_use_the_batch_is_not_folded():
    assert folded(simple(b_norm=nn.BatchNorm2d(4, track_running_stats=False))) is None


@pytest.mark.parametrize("cut", [(1, 3), (1, 4), (2, 3)])
def test_a_norm_beyond_a_cut_stays(cut):
    """The map at the cut is what comes before the norm."""
    modules = dict(simple().named_children())
    backbone = chain(cut=cut, **modules)
    assert_same_features(backbone, folded(backbone))
    layers = nn.Sequential(*modules.values())
    names = [f"layers.{number}" for number in range(5)]
    first, second = cut
    stages = {"shallow": names[:first], "mid": names[first:second], "high": names[second:]}
    backbone = with_random_norms(StagedBackbone({"layers": layers}, **stages, mid_channels=8))
    assert_same_features(backbone, folded(backbone))


def module_twice():
    shared = conv()
    return simple(b=shared, c=shared)


def module_twice_in_a_sequence():
    shared = conv()
    return simple(b=nn.Sequential(shared, nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4)))


def name_twice():
    backbone = simple()
    backbone.stages["high"] = ("b", "a_norm", "c")
    return backbone


def names_within_each_other():
    backbone = simple(b=nn.Sequential(conv(), nn.BatchNorm2d(4)))
    backbone.stages["high"] = ("b.0", "c")
    return backbone


def hooked():
    backbone = simple()
    backbone.b.register_forward_hook(lambda module, inputs, output: output * 2)
    return backbone


def with_a_forward_of_its_own():
    backbone = simple()
    backbone.b.forward = lambda maps: maps
    return backbone


def in_training_mode():
    return simple().train()


def with_one_norm_in_training_mode():
    backbone = simple()
    backbone.b_norm.train()
    return backbone


def made_in_inference_mode():
    with torch.inference_mode():
        return simple()


def of_ones_own():
    return TinyBackbone().eval()


def without_weights():
    return nn.ReLU().eval()


class Derived(StagedBackbone):
    """May do anything."""


def derived():
    backbone = simple()
    backbone.__class__ = Derived
    return backbone


@pytest.mark.parametrize(
    "make",
    [
        module_twice,
        module_twice_in_a_sequence,
        name_twice,
        names_within_each_other,
        hooked,
        with_a_forward_of_its_own,
        in_training_mode,
        with_one_norm_in_training_mode,
        made_in_inference_mode,
        of_ones_own,
        without_weights,
        derived,
    ],
)
def test_where_it_could_differ_there_is_none(make):
    assert folded(make()) is None


def test_a_hook_for_all_modules_stops_it():
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert folded(simple()) is None
    finally:
        handle.remove()
    assert folded(simple()) is not None


def test_wrapped_and_reparametrised_convolutions_stay():
    backbone = simple()
    nn.utils.parametrizations.weight_norm(backbone.b).eval()
    assert norms(folded(backbone)) == 1
    assert_same_features(backbone, folded(backbone))


def test_weights_that_stay_as_they_are_are_shared_not_moved():
    backbone = simple(b=Standardised(4, 4, 3, padding=1))
    before = [(weight, weight.data_ptr(), weight.stride()) for weight in backbone.parameters()]
    copied = folded(backbone)
    after = [(weight, weight.data_ptr(), weight.stride()) for weight in backbone.parameters()]
    assert all(a is b and (*x,) == (*y,) for (a, *x), (b, *y) in zip(before, after, strict=True))
    assert copied.b is backbone.b
    assert copied.b_norm.weight is backbone.b_norm.weight
    assert copied.c.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_norm_without_learned_scale_folds():
    backbone = simple(b_norm=nn.BatchNorm2d(4, affine=False))
    assert norms(folded(backbone)) == 0
    assert_same_features(backbone, folded(backbone))


@pytest.mark.parametrize("make", [simple, lambda: with_random_norms(make_backbone("tiny"))])
def test_the_backbone_itself_stays_as_it_was(make):
    backbone = make()
    modules, before = dict(backbone.named_modules()), copy.deepcopy(backbone.state_dict())
    tensors = {key: id(value) for key, value in backbone.state_dict(keep_vars=True).items()}
    made = folded(backbone)
    assert made is not backbone
    assert dict(backbone.named_modules()) == modules
    assert {key: id(value) for key, value in backbone.state_dict(keep_vars=True).items()} == tensors
    assert_close(backbone.state_dict(), before, rtol=0, atol=0)
    assert backbone.stages == made.stages
