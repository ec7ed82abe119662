"""Computes features of supports only around their masks, on a CPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import Bottleneck
from torchvision.ops.misc import Conv2dNormActivation

from fewshotseg.models.backbones import Backbone, StagedBackbone
from fewshotseg.ops import foreground_weights
from fewshotseg.ops._precision import is_eager_cpu

CONTAINERS = (nn.Sequential, Bottleneck, InvertedResidual, Conv2dNormActivation)
LEAVES = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Identity)
"""Modules in which only convolutions look beyond a position."""


def masked_mid(backbone: Backbone, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
    """Compute mid-level maps of supports; the deepest map is correct only where there is foreground.

    On a CPU the stage ``"mid"`` of a ResNet runs on the box around each mask, enlarged by the receptive field of its
    blocks, which gives the exact values inside the mask. On other devices the whole map is computed, as finding the box
    needs a host-device synchronisation.

    Args:
        backbone: A module that follows `Backbone`.
        images: ``(B, 3, H, W)``.
        masks: ``(B, H, W)`` label masks.

    Returns:
        The maps of ``backbone.mid``; values of the deepest map outside a mask are undefined.
    """
    blocks = _blocks(backbone, "mid", images)
    if blocks is None:
        return backbone.mid(images)
    finer: Tensor = backbone.run("shallow", images)  # type: ignore[attr-defined]  # a StagedBackbone
    return _around(blocks, finer, foreground_weights(masks, (finer.shape[2], finer.shape[3]))), finer


def masked_high(backbone: Backbone, deepest: Tensor, foreground: Tensor) -> Tensor:
    """Compute high-level features of maps times masks, correct only where the masks are positive.

    On a CPU the stage ``"high"`` runs only around each mask, as in `masked_mid`.

    Args:
        backbone: A module that follows `Backbone`.
        deepest: ``(B, C, h, w)``, the first map of ``backbone.mid``.
        foreground: ``(B, h, w)`` masks from 0 to 1 on the same grid.

    Returns:
        ``(B, C', h', w')``; values outside a mask are undefined.
    """
    masked = deepest * foreground[:, None].to(deepest.dtype)
    blocks = _blocks(backbone, "high", masked)
    if blocks is None:
        return backbone.high(masked)
    return _around(blocks, masked, foreground)


def _blocks(backbone: Any, stage: str, maps: Tensor) -> Sequence[nn.Module] | None:
    """Return a stage's blocks if they can run around masks: blocks of torchvision that keep the grid, on a CPU."""
    if type(backbone) is not StagedBackbone or backbone.training or not is_eager_cpu(maps) or not len(maps):
        return None
    blocks: list[nn.Module] = []
    for module in backbone.stage(stage):
        blocks += module if type(module) is nn.Sequential else [module]
    return blocks if all(map(_keeps_grid, blocks)) else None


def _keeps_grid(block: nn.Module) -> bool:
    def fits(module: nn.Module) -> bool:
        if type(module) is nn.Conv2d:
            same = tuple(d * (k // 2) for d, k in zip(module.dilation, module.kernel_size, strict=True))
            odd = all(side % 2 == 1 for side in module.kernel_size)  # an even kernel would enlarge the map
            return odd and module.stride == (1, 1) and module.padding == same and module.padding_mode == "zeros"
        return type(module) in CONTAINERS + LEAVES

    return all(map(fits, block.modules()))


def _around(blocks: Sequence[nn.Module], maps: Tensor, masks: Tensor) -> Tensor:
    """Run blocks on maps, correct only inside the masks."""
    wholes = [_inside_box(blocks, image[None], mask) for image, mask in zip(maps, masks, strict=True)]
    return torch.cat(wholes) if len(wholes) > 1 else wholes[0]


def _inside_box(blocks: Sequence[nn.Module], maps: Tensor, mask: Tensor) -> Tensor:
    spans = [mask.amax(dim=axis).nonzero().flatten().tolist() or [0] for axis in (1, 0)]

    def box(halo: int) -> tuple[Any, ...]:
        sides = zip(spans, mask.shape, strict=True)
        return tuple(slice(max(span[0] - halo, 0), min(span[-1] + 1 + halo, side)) for span, side in sides)

    halo = sum(map(_reach, blocks))
    outer = box(halo)
    part = maps[..., *outer]
    for block in blocks:
        halo -= _reach(block)
        inner = box(halo)
        kept = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        part, outer = _kept_of(block, part, kept), inner
    whole = part.new_zeros(1, *mask.shape, part.shape[1]).permute(0, 3, 1, 2)  # channels-last, as the blocks' output
    whole[..., *outer] = part
    return whole


def _kept_of(block: Any, maps: Tensor, kept: tuple[Any, ...]) -> Tensor:
    """Compute the ``kept`` part of a block's output; a bottleneck crops already after its first convolution."""
    output: Tensor
    if type(block) is Bottleneck:  # a subclass may compute something else
        narrow = block.relu(block.bn1(block.conv1(maps)))
        narrow = block.relu(block.bn2(_conv_of_kept(block.conv2, narrow, kept)))
        shortcut = maps[..., *kept]
        if block.downsample is not None:
            shortcut = block.downsample(shortcut)
        output = block.relu(block.bn3(block.conv3(narrow)) + shortcut)
    else:
        output = block(maps)[..., *kept]
    return output


def _conv_of_kept(conv: nn.Conv2d, maps: Tensor, kept: tuple[Any, ...]) -> Tensor:
    """Compute the ``kept`` part of the output of a convolution with stride 1, from the input that it depends on."""
    seen: list[Any] = []
    padding: list[int] = []
    for axis, span in enumerate(kept):
        side, reach = maps.shape[2 + axis], _reach_of_conv(conv, axis)
        before, after = span.start - reach, span.stop + reach
        seen.append(slice(max(before, 0), min(after, side)))
        padding = [max(-before, 0), max(after - side, 0), *padding]  # F.pad begins with the last side
    padded = F.pad(maps[..., *seen], padding)
    return F.conv2d(padded, conv.weight, conv.bias, dilation=conv.dilation, groups=conv.groups)


def _reach(block: nn.Module) -> int:
    """Compute how many cells a block of stride 1 looks beyond a position: the sum over its convolutions."""
    convs = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    return sum(_reach_of_conv(conv, 0) for conv in convs)


def _reach_of_conv(conv: nn.Conv2d, axis: int) -> int:
    return conv.dilation[axis] * (conv.kernel_size[axis] // 2)
