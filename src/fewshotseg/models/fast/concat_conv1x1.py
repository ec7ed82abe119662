"""A 1x1 convolution of concatenated maps, computed without the concatenation on a CPU."""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshotseg.models.fast.untouched import is_untouched
from fewshotseg.ops import resize_bilinear
from fewshotseg.ops._precision import is_eager_cpu


def splits(conv: nn.Module, maps: Sequence[Tensor]) -> bool:
    """Whether `conv1x1_of_parts` may replace calling ``conv`` on a concatenation, and is faster.

    It saves arithmetic, which is what a CPU spends its time on; a GPU spends it on launching the additional kernels.
    """
    return (
        type(conv) is nn.Conv2d
        and maps[0].device.type == "cpu"
        and conv.kernel_size == conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
        and conv.bias is None
        and is_untouched(conv)
    )


def conv1x1_of_parts(conv: nn.Conv2d, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Compute ``conv`` of maps resized to one size and concatenated.

    A 1x1 convolution of a concatenation is the sum of the convolutions of its parts, and commutes with resizing: each
    map is convolved at its own size and the results are resized and summed.

    Args:
        conv: A convolution for which `splits` is true.
        maps: ``(B, C_i, h_i, w_i)``, or ``(B, C_i, 1, 1)`` for the same vector at every location.
        size: ``(H, W)`` of the result.

    Returns:
        ``(B, C, H, W)``.
    """
    weights = torch.split(conv.weight, [part.shape[1] for part in maps], dim=1)
    convolved = [F.conv2d(part, weight) for part, weight in zip(maps, weights, strict=True)]
    wholes = [resize_bilinear(part, size) for part in convolved if not _is_cell(part)]
    cells = [part for part in convolved if _is_cell(part)]
    parts = wholes + cells if wholes else [cells[0].expand(-1, -1, *size).clone(), *cells[1:]]
    return reduce(Tensor.add_ if is_eager_cpu(*convolved) else torch.add, parts)  # in place not under vmap


def _is_cell(maps: Tensor) -> bool:
    return tuple(maps.shape[-2:]) == (1, 1)
