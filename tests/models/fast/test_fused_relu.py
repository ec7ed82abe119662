import copy

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from fewshotseg.models import StagedBackbone
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fast import folding
from fewshotseg.models.fast.folding import folded
from fewshotseg.models.fast.fused_relu import FusedBlock, conv_relu, fused, on_tensor_cores

PAIRS = folding.CONV_NORM["torchvision.models.resnet.Bottleneck"]


def with_norms(backbone):
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone.double().requires_grad_(False).eval()


def fused_blocks(backbone):
    return [module for module in backbone.modules() if isinstance(module, FusedBlock)]


@pytest.fixture
def tensor_cores(monkeypatch):
    monkeypatch.setattr(folding, "on_tensor_cores", lambda *_: True)


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", 16), ("resnet50s", 16), ("vgg16_bn", 0)])
def test_fused_backbones_give_the_same_features(name, blocks, tensor_cores):
    backbone = with_norms(make_backbone(name))
    made = folded(backbone)
    assert len(fused_blocks(made)) == blocks
    assert not fused_blocks(backbone)
    convs = [module for module in made.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convs)
    images = torch.rand(2, 3, 65, 49, dtype=torch.float64)
    maps = backbone.mid(images)
    assert_close(made.mid(images), maps, rtol=1e-9, atol=1e-9)
    assert_close(made.high(maps[0]), backbone.high(maps[0]), rtol=1e-9, atol=1e-9)


def test_basic_blocks_are_fused(tensor_cores):
    downsample = nn.Sequential(conv1x1(4, 8, 2), nn.BatchNorm2d(8))
    parts = {"a": nn.Conv2d(3, 4, 3), "b": BasicBlock(4, 8, 2, downsample), "c": BasicBlock(8, 8)}
    backbone = with_norms(StagedBackbone(parts, shallow=["a"], mid=["b"], high=["c"], mid_channels=12))
    made = folded(backbone)
    assert len(fused_blocks(made)) == 2
    images = torch.rand(2, 3, 33, 35, dtype=torch.float64)
    maps = backbone.mid(images)
    assert_close(made.mid(images), maps, rtol=1e-9, atol=1e-9)
    assert_close(made.high(maps[0]), backbone.high(maps[0]), rtol=1e-9, atol=1e-9)


class Doubling(Bottleneck):
    def forward(self, x):
        return 2 * super().forward(x)


def without_norms(block):
    for name in ("bn1", "bn2", "bn3"):
        setattr(block, name, nn.Sequential())
    return block


def test_blocks_that_compute_something_else_stay():
    plain = without_norms(Bottleneck(8, 2))
    assert isinstance(fused(copy.deepcopy(plain), PAIRS), FusedBlock)
    other_activation, circular, scaled = (copy.deepcopy(plain) for _ in range(3))
    other_activation.relu = nn.ReLU6()
    circular.conv2.padding_mode = "circular"
    scaled.bn2 = nn.Sequential(nn.BatchNorm2d(2))
    for block in (other_activation, circular, scaled, without_norms(Doubling(8, 2)), Bottleneck(8, 2), nn.Identity()):
        assert fused(block, PAIRS) is block


def test_a_convolution_with_relu_and_shortcut():
    conv = nn.Conv2d(1, 1, 1)
    nn.init.constant_(conv.weight, 2)
    nn.init.constant_(conv.bias, -3)
    maps, shortcut = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[2.0, -5.0, 1.0]]]])
    with torch.no_grad():
        assert_close(conv_relu(conv, maps), torch.tensor([[[[0.0, 1.0, 3.0]]]]))
        assert_close(conv_relu(conv, maps, shortcut), torch.tensor([[[[1.0, 0.0, 4.0]]]]))
        assert conv_relu(conv.half(), maps, shortcut).dtype == torch.float16
    assert_close(maps, torch.tensor([[[[1.0, 2.0, 3.0]]]]))
    assert_close(shortcut, torch.tensor([[[[2.0, -5.0, 1.0]]]]))


@pytest.mark.parametrize(
    ("dtype", "cast_to", "allow_tf32", "capability", "expected"),
    [
        (torch.float32, None, True, (9, 0), True),
        (torch.float32, None, True, (7, 5), False),
        (torch.float32, None, False, (9, 0), False),
        (torch.float32, torch.bfloat16, False, (9, 0), True),
        (torch.float16, None, False, (7, 5), True),
        (torch.float64, None, True, (9, 0), False),
    ],
)
def test_tensor_cores(dtype, cast_to, allow_tf32, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allow_tf32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with FakeTensorMode():
        assert on_tensor_cores(torch.empty(1, device="cuda", dtype=dtype), cast_to) == expected
        assert not on_tensor_cores(torch.empty(1, dtype=dtype), cast_to)
