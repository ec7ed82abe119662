import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models as tv

from _inputs import uniform
from fewshotseg import TimmBackbone, build_backbone, feature_maps
from fewshotseg.models import StagedBackbone

IMAGES = uniform(2, 3, 49, 65)


@pytest.fixture(scope="module")
def dilated():
    return build_backbone("resnet50").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plain():
    return tv.resnet18(weights=None).eval().requires_grad_(False)


def test_blocks_of_all_stages_by_name(dilated):
    maps = feature_maps(dilated, IMAGES, ("layer2", "layer3", "layer4"))
    depths = (("layer2", 4, 512), ("layer3", 6, 1024), ("layer4", 3, 2048))
    assert {name: tuple(features.shape) for name, features in maps.items()} == {
        f"{stage}.{number}": (2, channels, 7, 9) for stage, depth, channels in depths for number in range(depth)
    }
    deepest, finer = dilated.mid(IMAGES)
    assert_close(maps["layer2.3"], finer, rtol=0, atol=0)
    assert_close(maps["layer3.5"], deepest, rtol=0, atol=0)
    assert_close(maps["layer4.2"], dilated.high(deepest), rtol=0, atol=0)


def test_a_plain_resnet_is_not_dilated(plain):
    maps = feature_maps(plain, IMAGES)
    assert list(maps) == [
        "conv1",
        "relu",
        "maxpool",
        *(f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in range(2)),
    ]
    assert [tuple(maps[f"layer{stage}.1"].shape[2:]) for stage in (2, 3, 4)] == [(7, 9), (4, 5), (2, 3)]
    assert_close(plain.fc(maps["layer4.1"].mean(dim=(2, 3))), plain(IMAGES))


@pytest.mark.parametrize("make", [tv.resnet18, tv.resnet50])
def test_maps_in_front_of_the_last_relu(make):
    net = make(weights=None).eval()
    seen = {}
    for name, block in net.named_modules():
        if hasattr(block, "downsample"):
            calls = seen.setdefault(name, [])
            block.relu.register_forward_pre_hook(lambda module, inputs, calls=calls: calls.append(inputs[0].clone()))
    with torch.no_grad():
        net(IMAGES)
        before = {name: calls[-1] for name, calls in seen.items()}
        maps = feature_maps(net, IMAGES, ["layer"], relu=False)
        after = feature_maps(net, IMAGES, ["layer"])
    assert list(maps) == list(before) == list(after)
    for name, features in maps.items():
        assert_close(features, before[name])
        assert (features < 0).any()
        assert_close(features.relu(), after[name])


def test_what_comes_after_the_last_stage_is_not_computed(plain):
    called = []
    handle = plain.layer2[0].register_forward_hook(lambda *_: called.append("layer2"))
    assert list(feature_maps(plain, IMAGES, ("layer1.0", "conv"))) == ["conv1", "layer1.0"]
    assert not called
    feature_maps(plain, IMAGES, ("layer2.0",))
    handle.remove()
    assert called == ["layer2"]


@pytest.mark.parametrize("relu", [True, False])
def test_maps_are_not_overwritten_by_what_follows(relu, plain):
    maps = feature_maps(plain, IMAGES, relu=relu)
    for name, features in maps.items():
        assert_close(features, feature_maps(plain, IMAGES, [name], relu=relu)[name], rtol=0, atol=0)


def test_maps_that_a_module_inside_the_next_block_overwrites_are_left_out():
    inner = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(16, 16, 1))
    parts = {"a": nn.Sequential(nn.Conv2d(3, 16, 3, 8, 1), inner), "b": nn.Conv2d(16, 32, 1), "c": nn.Conv2d(32, 8, 1)}
    backbone = StagedBackbone(parts, shallow=["a"], mid=["b"], high=["c"], mid_channels=48)
    assert list(feature_maps(backbone, IMAGES)) == ["a.1", "b", "c"]


@pytest.mark.parametrize("name", ["vgg16_bn", "mobilenet_v2", "tiny", "efficientnet_lite0"])
def test_other_chains(name):
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        maps = feature_maps(backbone, IMAGES)
        deepest, finer = backbone.mid(IMAGES)
        high = backbone.high(deepest)
    for expected in (deepest, finer, high):
        assert any(features.shape == expected.shape and torch.equal(features, expected) for features in maps.values())


def test_an_extractor_of_timm():
    import timm

    backbone = TimmBackbone(timm.create_model("resnet18", features_only=True)).eval()
    maps = feature_maps(backbone, IMAGES, ["extractor.layer3", "extractor.layer4"])
    assert list(maps) == [f"extractor.layer{stage}.{number}" for stage in (3, 4) for number in (0, 1)]
    assert_close(maps["extractor.layer3.1"], backbone.mid(IMAGES)[0])
    with pytest.raises(ValueError, match="relu must be True"):
        feature_maps(backbone, IMAGES, relu=False)


def test_gradients_reach_the_images(plain):
    images = IMAGES.clone().requires_grad_()
    sum(features.square().mean() for features in feature_maps(plain, images, relu=False).values()).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad != 0).any()


@pytest.mark.parametrize(
    ("backbone", "images", "stages", "error", "message"),
    [
        (nn.Conv2d(3, 4, 3), IMAGES, None, TypeError, "backbone must run its stages .* got Conv2d"),
        (None, IMAGES, None, TypeError, "backbone must run its stages .* got NoneType"),
        ("tiny", IMAGES[0], None, ValueError, "images must have shape"),
        ("tiny", IMAGES.long(), None, TypeError, "images must be a floating-point tensor"),
        ("tiny", IMAGES, "deep", TypeError, "stages must be a list of names"),
        ("tiny", IMAGES, ["layer2"], ValueError, "stages must name some of stem.0, stem.1, .* got .'layer2'"),
        ("tiny", IMAGES, [], ValueError, "stages must name some of"),
    ],
)
def test_bad_input_is_refused(backbone, images, stages, error, message):
    if backbone == "tiny":
        backbone = build_backbone("tiny")
    with pytest.raises(error, match=message):
        feature_maps(backbone, images, stages)


# build_backbone


def test_a_backbone_with_weights_of_its_own():
    state = {name: torch.full_like(value, 2) for name, value in build_backbone("tiny").state_dict().items()}
    backbone = build_backbone("tiny", backbone_weights=state)
    assert isinstance(backbone, StagedBackbone)
    assert backbone.training
    assert all((value == 2).all() for value in backbone.state_dict().values())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(("name", "error"), [("resnet", ValueError), (None, TypeError), (nn.Identity(), TypeError)])
def test_no_name_of_a_backbone(name, error):
    with pytest.raises(error, match=r"(name|backbone) must be"):
        build_backbone(name)
