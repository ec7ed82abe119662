"""The comparison head's 3x3 convolution, with a gradient that is faster on a CPU for channels-last maps."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from typing_extensions import override

from fewshotseg.ops._precision import is_eager_cpu

WIDE = 128
"""Number of channels from which on the matrix products below are faster than the gradient of ``F.conv2d`` on a CPU."""


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution without bias that keeps the size and the number of channels.

    It computes what ``nn.Conv2d`` does; in training on a CPU it keeps wide maps channels-last and sums in another
    order.

    Args:
        channels: Number of input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, bias=False)

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(B, C, H, W)`` to the same shape."""
        weight = self.weight  # read once: a parametrised weight is recomputed at every access
        trained = torch.is_grad_enabled() and weight.requires_grad and forward_ad._current_level < 0
        if trained and self._is_plain() and trains_channels_last(input):
            convolved: Tensor = _Convolution.apply(_channels_last(input), _channels_last(weight))
        else:
            convolved = self._conv_forward(input, weight, self.bias)
        return convolved

    def _is_plain(self) -> bool:
        """Whether the settings are still those that `_Convolution` computes."""
        settings = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return settings == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros") and self.bias is None


def layout_for_training(maps: Tensor) -> Tensor:
    """Return maps in the memory layout that trains fastest: on a CPU narrow channels-last maps are slow."""
    narrow = maps.device.type == "cpu" and maps.requires_grad and not trains_channels_last(maps)
    return maps.contiguous() if narrow else maps


def trains_channels_last(maps: Tensor) -> bool:
    """Whether `Conv3x3` trains on these maps with the matrix products below, which need channels-last maps."""
    return (
        maps.shape[1] >= WIDE
        and is_eager_cpu(maps)
        and maps.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution of channels-last maps, padded by one cell."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(maps, weight, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        maps, weight = ctx.saved_tensors
        of_maps = F.conv_transpose2d(grad, weight, padding=1) if ctx.needs_input_grad[0] else None
        return of_maps, weight_gradient(maps, grad)


def weight_gradient(maps: Tensor, grad: Tensor) -> Tensor:
    """Compute the gradient of a 3x3 convolution's weights as nine matrix products, one for each tap of the kernel.

    In a map that is padded by one cell and flattened row by row, the input of a tap is the same number of positions
    ahead of every location. The gradient is padded with zeros to match, so that nothing wraps around an edge.

    Args:
        maps: ``(B, C, H, W)``, the convolution's input.
        grad: ``(B, C', H, W)``, the gradient of its output.

    Returns:
        ``(C', C, 3, 3)``.
    """
    width = maps.shape[3] + 2
    inputs, outputs = _rows(F.pad(maps, (1, 1, 1, 1))), _rows(F.pad(grad, (0, 2, 0, 2)))
    steps = (row * width + column for row in range(3) for column in range(3))
    taps = [(outputs[:, : outputs.shape[1] - step].mT @ inputs[:, step:]).sum(dim=0) for step in steps]
    return torch.stack(taps, dim=2).view(grad.shape[1], maps.shape[1], 3, 3)


def _channels_last(maps: Tensor) -> Tensor:
    """Convert maps to channels-last, by operations that ``torch.func.vmap`` supports."""
    return maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """Flatten ``(B, C, H, W)`` to ``(B, H * W, C)``; a view of channels-last maps."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)
