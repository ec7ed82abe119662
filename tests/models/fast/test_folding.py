"""Folded norms: the same features as the backbone's own, whatever follows what; never stale, never in a checkpoint."""

import copy
import gc
import weakref

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _models import TinyBackbone, tiny
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


@pytest.mark.parametrize("name", ["resnet50", "resnet50s", "vgg16_bn", "mobilenet_v2"])
def test_no_norm_of_the_named_backbones_is_left(name):
    backbone = with_random_norms(make_backbone(name))
    assert norms(backbone) > 10
    assert norms(folded(backbone)) == 0
    assert_same_features(backbone, folded(backbone))


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet18", 0), ("tf_efficientnet_lite0", 0), ("resnetv2_50", 16), ("regnetx_002", 0)],
)
def test_timm_extractors_fold_where_norms_follow_convolutions(name, left):
    backbone = with_random_norms(fs.TimmBackbone(timm.create_model(name, features_only=True)))
    assert norms(folded(backbone)) == left
    assert_same_features(backbone, folded(backbone))


class Intricate(nn.Module):
    """Norms that must not be folded, for a reason each."""

    mid_channels = 8

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.stem_norm = nn.BatchNorm2d(4)  # the only one that can be folded
        self.read_twice, self.read_twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.run_twice, self.run_twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.standardised, self.standardised_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.batch_norm_without_statistics = nn.BatchNorm2d(4, track_running_stats=False)
        self.given, self.given_norm = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.before, self.last = nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 6, 1)

    def mid(self, images):
        maps = self.stem_norm(self.stem(images)).relu()
        branch = self.read_twice(maps)
        maps = self.read_twice_norm(branch) + branch
        maps = self.run_twice_norm(self.run_twice(self.run_twice(maps)))
        weight = self.standardised.weight / self.standardised.weight.norm()
        maps = self.standardised_norm(F.conv2d(maps, weight, padding=1))
        return (self.given(self.batch_norm_without_statistics(maps)),)

    def high(self, deepest):
        return self.last(self.before(self.given_norm(deepest)))


def test_what_is_not_a_norm_of_one_convolution_alone_stays():
    backbone = with_random_norms(Intricate())
    assert norms(backbone) - norms(folded(backbone)) == 1
    assert isinstance(folded(backbone).stem_norm, nn.Sequential)
    assert_same_features(backbone, folded(backbone))


def test_weights_that_stay_as_they_are_are_shared_not_moved():
    backbone = with_random_norms(Intricate())
    before = [(weight, weight.data_ptr(), weight.stride()) for weight in backbone.parameters()]
    copied = folded(backbone)
    after = [(weight, weight.data_ptr(), weight.stride()) for weight in backbone.parameters()]
    assert all(a is b and (*x,) == (*y,) for (a, *x), (b, *y) in zip(before, after, strict=True))
    assert copied.run_twice_norm.weight is backbone.run_twice_norm.weight
    assert copied.standardised.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_norm_without_learned_scale_folds():
    backbone = TinyBackbone()
    backbone.deep[1] = nn.BatchNorm2d(12, affine=False)
    backbone = with_random_norms(backbone)
    assert norms(folded(backbone)) == 0
    assert_same_features(backbone, folded(backbone))


def test_the_backbone_itself_stays_as_it_was():
    model = tiny().eval()
    before = copy.deepcopy(model.state_dict())
    model.encode_query(torch.rand(1, 3, 64, 64))
    assert list(model.state_dict()) == list(before)
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert norms(model.backbone) == 2
    assert_close(copy.deepcopy(model).state_dict(), before, rtol=0, atol=0)


def change_in_place(backbone):
    with torch.no_grad():
        backbone.shallow[0].weight.mul_(2)


def change_statistics(backbone):
    backbone.deep[1].running_mean.add_(1)


def load(backbone):
    torch.manual_seed(5)
    backbone.load_state_dict(TinyBackbone().double().state_dict())


def replace_data(backbone):
    backbone.last.bias.data = backbone.last.bias.data + 1


def replace_module(backbone):
    backbone.last = nn.Conv2d(12, 20, 3, padding=1).double()


@pytest.mark.parametrize("change", [change_in_place, change_statistics, load, replace_data, replace_module])
def test_a_changed_weight_is_noticed(change):
    backbone = with_random_norms(TinyBackbone())
    first = folded(backbone)
    assert folded(backbone) is first
    change(backbone)
    assert folded(backbone) is not first
    assert_same_features(backbone, folded(backbone))


def test_a_changed_dtype_is_noticed():
    backbone = with_random_norms(TinyBackbone())
    folded(backbone)
    assert folded(backbone.bfloat16()).last.weight.dtype == torch.bfloat16


def test_the_copy_goes_with_the_backbone():
    backbone = with_random_norms(TinyBackbone())
    made = weakref.ref(folded(backbone))
    del backbone
    gc.collect()
    assert made() is None


def test_nothing_is_folded_where_statistics_move():
    backbone = with_random_norms(TinyBackbone())
    assert folded(backbone.train()) is backbone
    assert folded(backbone.eval()) is not backbone


def test_a_backbone_without_weights_is_returned():
    backbone = nn.ReLU().eval()
    assert folded(backbone) is backbone


def test_norms_of_a_training_step_in_batch_mode_are_the_backbones_own():
    model = tiny(norm_stats="batch").train()
    mean = model.backbone.deep[1].running_mean.clone()
    model(torch.rand(2, 1, 3, 64, 64), torch.ones(2, 1, 64, 64), torch.rand(2, 3, 64, 64))
    assert not torch.equal(model.backbone.deep[1].running_mean, mean)
