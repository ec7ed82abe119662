"""Supports computed around their masks: the values of the whole map wherever the mask is, for less work."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck

from fewshotseg.models import StagedBackbone
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fast import cropping
from fewshotseg.models.fast.cropping import masked_high, masked_mid
from fewshotseg.models.fast.folding import folded
from fewshotseg.ops import foreground_weights


def stage_of_blocks():
    """A backbone whose steps are dilated convolutions, with biases by which zeros don't stay zeros."""
    torch.manual_seed(1)
    blocks = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 3, padding=3, dilation=3), nn.ReLU()),
        nn.Conv2d(4, 5, 3, padding=2, dilation=2),
    )
    parts = {"pool": nn.AvgPool2d(3, stride=2, padding=1), "blocks": blocks}
    backbone = StagedBackbone(parts, shallow=["pool"], mid=["blocks"], high=["blocks"], mid_channels=5 + 3)
    return backbone.double().requires_grad_(False).eval()


def bottleneck(dilation, downsample=None):
    torch.manual_seed(2)
    block = Bottleneck(16, 4, dilation=dilation, downsample=downsample)
    for norm in (block.bn1, block.bn2, block.bn3):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return block.double().requires_grad_(False).eval()


BOTTLENECK = bottleneck(dilation=2)
BOTTLENECK_WITH_SHORTCUT = bottleneck(dilation=4, downsample=nn.Conv2d(16, 16, 1))


def whole(stage, maps, masks):
    return stage.high(maps * masks[:, None])


def random_maps(batch, height, width, seed):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_masks(batch, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(batch, height, width, generator=generator, dtype=torch.float64)
    keep = torch.rand(batch, generator=generator)[:, None, None] ** 3
    return torch.where(torch.rand(batch, height, width, generator=generator) < keep, masks, 0)


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 24), width=st.integers(1, 24), batch=st.integers(1, 3), seed=st.integers(0, 999))
def test_values_inside_a_mask_are_those_of_the_whole_map(height, width, batch, seed):
    stage, masks = stage_of_blocks(), random_masks(batch, height, width, seed)
    maps = random_maps(batch, height, width, seed)
    found, expected = masked_high(stage, maps, masks), whole(stage, maps, masks)
    assert found.shape == expected.shape
    inside = (masks > 0)[:, None].expand_as(expected)
    assert_close(found[inside], expected[inside], rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 47), width=st.integers(1, 47), batch=st.integers(1, 3), seed=st.integers(0, 999))
def test_mid_level_values_inside_a_mask_are_those_of_the_whole_map(height, width, batch, seed):
    stage, images = stage_of_blocks(), random_maps(batch, height, width, seed)
    masks = (random_masks(batch, height, width, seed) > 0).long()
    (deepest, shallow), (expected, expected_shallow) = masked_mid(stage, images, masks), stage.mid(images)
    assert deepest.shape == expected.shape
    inside = (foreground_weights(masks, expected.shape[2:]) > 0)[:, None].expand_as(expected)
    assert_close(deepest[inside], expected[inside], rtol=1e-12, atol=1e-12)
    assert_close(shallow, expected_shallow, rtol=0, atol=0)


def one_cell(side=40):
    masks = torch.zeros(1, side, side, dtype=torch.float64)
    masks[0, side // 2, side // 2] = 1
    return masks


@pytest.mark.parametrize(("missing", "is_right"), [(0, True), (1, False)])
@pytest.mark.parametrize("block", [0, 1])
def test_one_cell_less_of_context_would_not_do(missing, is_right, block, monkeypatch):
    stage, maps, masks = stage_of_blocks(), torch.rand(1, 3, 40, 40, dtype=torch.float64), one_cell()
    reach = cropping._reach
    monkeypatch.setattr(cropping, "_reach", lambda b: reach(b) - missing * (b is stage.blocks[block]))
    expected = whole(stage, maps, masks)[0, :, 20, 20]
    assert torch.allclose(masked_high(stage, maps, masks)[0, :, 20, 20], expected) == is_right


def test_an_empty_mask_gives_a_map_of_the_right_shape():
    images, masks = torch.rand(2, 3, 17, 13).double(), torch.zeros(2, 17, 13, dtype=torch.long)
    assert masked_mid(stage_of_blocks(), images, masks)[0].shape == (2, 5, 9, 7)
    assert masked_high(stage_of_blocks(), torch.rand(2, 3, 9, 7).double(), torch.zeros(2, 9, 7)).shape == (2, 5, 9, 7)


@pytest.mark.parametrize("step", [masked_high, masked_mid])
def test_less_is_computed(step):
    stage, maps = stage_of_blocks(), torch.rand(1, 3, 80, 80, dtype=torch.float64)
    counts = []
    for masks in (one_cell(80), torch.ones(1, 80, 80, dtype=torch.float64)):
        with FlopCounterMode(display=False) as counter:
            step(stage, maps, masks)
        counts.append(counter.get_total_flops())
    assert counts[0] < counts[1] / 10  # (1 + 2 * 5)^2 of at least 40^2 cells


def another_class(stage):
    stage.__class__ = type("Derived", (StagedBackbone,), {})


def strided(stage):
    stage.blocks[1].stride = (2, 2)


def reflecting(stage):
    stage.blocks[1].padding_mode = "reflect"


def with_an_even_kernel(stage):
    stage.blocks[1] = nn.Conv2d(4, 5, 2, padding=1).double().requires_grad_(False)


def unpadded(stage):
    stage.blocks[1].padding = (0, 0)


def with_a_module_that_looks_about(stage):
    stage.blocks[0][2] = nn.AvgPool2d(3, stride=1, padding=1)


def in_training(stage):
    stage.train()


def on_an_accelerator(stage):
    pass  # by the patch below


@pytest.mark.parametrize(
    "change",
    [
        another_class,
        strided,
        reflecting,
        unpadded,
        with_an_even_kernel,
        with_a_module_that_looks_about,
        in_training,
        on_an_accelerator,
    ],
)
def test_the_whole_map_is_computed_where_a_box_is_no_help(change, monkeypatch):
    stage, maps, masks = stage_of_blocks(), torch.rand(1, 3, 40, 40, dtype=torch.float64), one_cell()
    change(stage)
    if change is on_an_accelerator:
        monkeypatch.setattr(cropping, "is_eager_cpu", lambda *tensors: False)
    assert_close(masked_high(stage, maps, masks), whole(stage, maps, masks), rtol=0, atol=0)
    assert_close(masked_mid(stage, maps, masks), stage.mid(maps), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "reach"), [("resnet50", 12), ("vgg16_bn", 3), ("mobilenet_v2", 16)])
def test_it_is_known_how_far_a_backbone_looks(name, reach):
    """Folded, as the model runs it."""
    backbone = folded(make_backbone(name).eval().double().requires_grad_(False))
    assert sum(map(cropping._reach, backbone.stage("high"))) == reach
    deepest = torch.rand(1, backbone.mid(torch.zeros(1, 3, 32, 32).double())[0].shape[1], 37, 41, dtype=torch.float64)
    masks = torch.zeros(1, 37, 41, dtype=torch.float64)
    masks[0, 17:19, 20:22] = 0.5
    expected = whole(backbone, deepest, masks)[..., 17:19, 20:22]
    assert_close(masked_high(backbone, deepest, masks)[..., 17:19, 20:22], expected, rtol=1e-9, atol=1e-12)


@st.composite
def kept_spans(draw):
    sides = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    starts = [draw(st.integers(0, side - 1)) for side in sides]
    stops = [draw(st.integers(start + 1, side)) for start, side in zip(starts, sides, strict=True)]
    return sides, tuple(map(slice, starts, stops))


@settings(deadline=None, max_examples=60)
@given(spans=kept_spans(), number=st.integers(0, 1), seed=st.integers(0, 99))
def test_a_part_of_a_bottleneck_is_that_part_of_the_whole(spans, number, seed):
    torch.manual_seed(seed)
    block = (BOTTLENECK, BOTTLENECK_WITH_SHORTCUT)[number]
    sides, kept = spans
    maps = torch.randn(2, 16, *sides, dtype=torch.float64)
    expected = block(maps)[..., *kept]
    assert_close(cropping._kept_of(block, maps.clone(), kept), expected, rtol=1e-12, atol=1e-12)


def test_what_derives_from_a_bottleneck_is_asked_itself():
    class Doubled(Bottleneck):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(0)
    block, kept = Doubled(16, 4).double().requires_grad_(False).eval(), (slice(1, 3), slice(0, 2))
    maps = torch.randn(1, 16, 5, 5, dtype=torch.float64)
    assert_close(cropping._kept_of(block, maps.clone(), kept), block(maps)[..., *kept])


def test_a_bottleneck_computes_only_the_part_that_is_kept():
    maps, kept = torch.zeros(1, 16, 30, 30, dtype=torch.float64), (slice(14, 16), slice(14, 16))
    with FlopCounterMode(display=False) as counter:
        cropping._kept_of(BOTTLENECK_WITH_SHORTCUT, maps, kept)
    first, others = 30 * 30 * 16 * 4, 2 * 2 * (9 * 4 * 4 + 4 * 16 + 16 * 16)
    assert counter.get_total_flops() == 2 * (first + others)


def test_a_resnet_runs_its_third_stage_around_the_mask():
    backbone = folded(make_backbone("resnet50").eval().double().requires_grad_(False))
    images, masks = random_maps(1, 257, 273, seed=0), torch.zeros(1, 257, 273, dtype=torch.long)
    masks[0, 100:120, 40:60] = 1
    inside = foreground_weights(masks, (33, 35))[0] > 0
    with FlopCounterMode(display=False) as counter:
        (deepest, _), less = masked_mid(backbone, images, masks), counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        (expected, _), all_of_it = backbone.mid(images), counter.get_total_flops()
    assert_close(deepest[..., inside], expected[..., inside], rtol=1e-9, atol=1e-12)
    assert less < 0.9 * all_of_it
