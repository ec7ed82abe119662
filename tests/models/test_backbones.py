"""Backbones against torchvision and timm: the same numbers where the same is computed, the same names of weights."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models as tv

import fewshotseg as fs
from fewshotseg.models import BACKBONES, StagedBackbone
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.backbones.torchvision import mobilenet_v2, vgg16_bn


def randomise_norms(module):
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.9, 1.1)
    return module.eval()


@pytest.mark.parametrize(
    ("name", "mid", "high"),
    [
        ("resnet50", [(1024, 13), (512, 13)], (2048, 13)),
        ("resnet101", [(1024, 13), (512, 13)], (2048, 13)),
        ("resnet50s", [(1024, 13), (512, 13)], (2048, 13)),
        ("resnet101s", [(1024, 13), (512, 13)], (2048, 13)),
        ("vgg16_bn", [(512, 7), (256, 13)], (512, 7)),
        ("mobilenet_v2", [(96, 13), (32, 13)], (1280, 13)),
        ("tiny", [(96, 13), (64, 13)], (128, 13)),
    ],
)
def test_maps_and_channels(name, mid, high):
    with torch.device("meta"):
        backbone = make_backbone(name).eval()
        maps = backbone.mid(torch.zeros(1, 3, 97, 97))
        assert [features.shape[1:3] for features in maps] == mid
        assert backbone.high(maps[0]).shape[1:3] == high
    assert backbone.mid_channels == sum(channels for channels, _ in mid)


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "vgg16_bn", "mobilenet_v2"])
def test_weights_have_the_names_and_shapes_of_torchvision(name):
    with torch.device("meta"):
        ours, theirs = make_backbone(name).state_dict(), getattr(tv, name)().state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith(("fc.", "classifier."))}
    assert {key: value.shape for key, value in ours.items()} == expected


def test_mobilenet_is_torchvisions_up_to_the_dilation():
    net = randomise_norms(tv.mobilenet_v2(weights=None))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = net.features[:7](images)
        _, shallow = mobilenet_v2(net).mid(images)
    assert torch.equal(shallow, expected)


def test_vgg_is_torchvisions_where_no_pool_rounds():
    net = randomise_norms(tv.vgg16_bn(weights=None))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = [net.features[:24](images), net.features[:34](images), net.features[:43](images)]
        backbone = vgg16_bn(net).eval()
        deep, shallow = backbone.mid(images)
        assert torch.equal(shallow, expected[0])
        assert torch.equal(deep, expected[1])
        assert torch.equal(backbone.high(deep), expected[2])


def test_resnet_is_torchvisions_up_to_the_dilation():
    net = randomise_norms(tv.resnet50(weights=None))
    backbone = make_backbone("resnet50").eval()
    backbone.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("fc.")})
    images = torch.rand(1, 3, 97, 64)
    with torch.no_grad():
        expected = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(images))))))
        assert torch.equal(backbone.mid(images)[1], expected)


@pytest.mark.parametrize(("stage", "dilation"), [("layer3", (2, 2)), ("layer4", (4, 4))])
def test_every_block_of_the_last_stages_is_dilated(stage, dilation):
    for block in getattr(make_backbone("resnet50"), stage):
        assert (block.conv2.stride, block.conv2.dilation, block.conv2.padding) == ((1, 1), dilation, dilation)
        assert block.downsample is None or block.downsample[0].stride == (1, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50s", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_timm_extractors_are_cut_in_two(name):
    torch.manual_seed(0)
    extractor = randomise_norms(timm.create_model(name, features_only=True, output_stride=8))
    backbone = fs.TimmBackbone(extractor)
    images = torch.rand(2, 3, 65, 49)
    with torch.no_grad():
        *_, shallow, deep, high = extractor(images)
        found = backbone.mid(images)
        assert_close(found[1], shallow)
        assert_close(found[0], deep)
        assert_close(backbone.high(found[0]), high)
    assert backbone.mid_channels == shallow.shape[1] + deep.shape[1]
    model = fs.build_scnet(backbone, hidden_channels=8).eval()
    assert model(images[:, None], torch.ones(2, 1, 65, 49), images).logits.shape == (2, 2, 65, 49)


def test_timm_knows_what_its_images_look_like():
    extractor = timm.create_model("tf_efficientnet_lite0", features_only=True)
    assert fs.TimmBackbone(extractor).mean == (0.5, 0.5, 0.5)


def test_other_modules_are_not_timm_extractors():
    with pytest.raises(ValueError, match=r"extractor must be made with timm\.create_model"):
        fs.TimmBackbone(nn.Identity())


def test_deep_stem_weights_of_timm_fit():
    theirs = timm.create_model("resnet50s", pretrained=False, num_classes=3).state_dict()
    model = fs.build_scnet("resnet50s", hidden_channels=4, backbone_weights=theirs)
    assert torch.equal(model.backbone.conv1[6].weight, theirs["conv1.6.weight"])


@pytest.mark.parametrize("name", BACKBONES)
def test_what_replaces_a_module_is_called(name):
    backbone = make_backbone(name).eval()
    images = torch.rand(1, 3, 64, 64)
    first, last = backbone.stages["shallow"][0], backbone.stages["high"][-1]
    with torch.no_grad():
        before = backbone.mid(images)[0]
        backbone.set_submodule(first, nn.Sequential(backbone.get_submodule(first), nn.Softplus()))
        maps = backbone.mid(images)[0]
        assert not torch.allclose(maps, before)
        backbone.set_submodule(last, nn.Identity())
        names = backbone.stages["high"][:-1]
        expected = nn.Sequential(*(backbone.get_submodule(name) for name in names))(maps)
        assert torch.equal(backbone.high(maps), expected)


def test_a_chain_of_ones_own():
    layers = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1))
    names = [f"layers.{number}" for number in range(4)]
    backbone = StagedBackbone(
        {"layers": layers}, shallow=names[:2], mid=names[2:3], high=names[3:], mid_channels=9, mean=[0.5] * 3
    )
    images = torch.rand(1, 3, 40, 32)
    deep, shallow = backbone.mid(images)
    assert torch.equal(shallow, layers[:2](images))
    assert torch.equal(deep, layers[:3](images))
    assert torch.equal(backbone.high(deep), layers(images))
    assert list(backbone.state_dict()) == [f"layers.{key}" for key in layers.state_dict()]
    assert fs.build_scnet(backbone, hidden_channels=4).config.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("other", [3, None, object(), nn.ReLU])
def test_what_is_no_module_is_refused(other):
    with pytest.raises(TypeError, match=r"backbone must be a name or an nn\.Module, got"):
        fs.build_scnet(other)
