"""Residual blocks on CUDA: cuDNN adds bias and shortcut and applies ReLU within the convolution's kernel."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from typing_extensions import override


def on_tensor_cores(weight: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether convolutions with these weights, cast to ``dtype``, run on the tensor cores of an NVIDIA GPU.

    They do in half precision, and in float32 where TF32 is allowed and known to the GPU. There, channels-last maps and
    fused kernels are faster; in full float32 neither is.
    """
    if weight.device.type != "cuda" or torch.version.hip is not None or not torch.backends.cudnn.enabled:
        return False
    dtype = dtype or weight.dtype
    if dtype == torch.float32:
        return torch.backends.cudnn.allow_tf32 and torch.cuda.get_device_capability(weight.device) >= (8, 0)
    return dtype in (torch.float16, torch.bfloat16)


def fused(block: Any, conv_norms: Sequence[tuple[str, str]]) -> nn.Module:
    """Return a residual block of torchvision with folded norms in its faster form; any other module as it is.

    Args:
        block: Any module.
        conv_norms: The names of the block's convolutions and of the norms after them, in order.
    """
    module: nn.Module = block
    if type(block) not in (BasicBlock, Bottleneck) or type(block.relu) is not nn.ReLU:
        return module
    pairs = [(getattr(block, conv), getattr(block, norm)) for conv, norm in conv_norms]
    plain = all(type(conv) is nn.Conv2d and conv.padding_mode == "zeros" for conv, _ in pairs)
    without_norms = all(type(norm) is nn.Sequential and len(norm) == 0 for _, norm in pairs)
    return FusedBlock([conv for conv, _ in pairs], block.downsample) if plain and without_norms else module


class FusedBlock(nn.Module):
    """A residual block without norms: ReLU follows every convolution, the last one after the shortcut is added.

    Args:
        convs: The block's convolutions, with biases.
        downsample: Computes the shortcut; None if it is the input.
    """

    def __init__(self, convs: Sequence[nn.Conv2d], downsample: nn.Module | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.downsample = downsample

    @override
    def forward(self, maps: Tensor) -> Tensor:
        """Compute ``(B, C, H, W)`` to ``(B, C', H', W')``, without gradient."""
        *first, last = self.convs
        shortcut = maps if self.downsample is None else self.downsample(maps)
        for conv in first:
            maps = conv_relu(conv, maps)
        return conv_relu(last, maps, shortcut)


def conv_relu(conv: Any, maps: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """Compute a convolution with bias, add the shortcut if there is one, and apply ReLU.

    Where cuDNN has no such kernel, as for some shapes on some GPUs, it is computed step by step.
    """
    weight, bias = conv.weight, conv.bias
    settings = (conv.stride, conv.padding, conv.dilation, conv.groups)
    maps = maps.to(weight.dtype)  # autocast does not know these functions
    if maps.device.type == "cuda":
        try:
            if shortcut is None:
                return torch.cudnn_convolution_relu(maps, weight, bias, *settings)
            return torch.cudnn_convolution_add_relu(maps, weight, shortcut.to(weight.dtype), 1.0, bias, *settings)
        except RuntimeError:
            pass
    convolved = F.conv2d(maps, weight, bias, *settings)
    return F.relu_(convolved if shortcut is None else convolved.add_(shortcut))
