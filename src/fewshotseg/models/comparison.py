"""The comparison head g_phi (Eq. 3 and 8): PFENet's feature enrichment module and classifier."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg.models.fast.conv3x3 import Conv3x3
from fewshotseg.ops import resize_bilinear


class Comparison(NamedTuple):
    """What the head answers.

    Attributes:
        logits: ``(B, 2, h, w)`` on the grid of the query features.
        aux: One ``(B, 2, b, b)`` map of logits a bin, for deep supervision; empty unless asked for.
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


class ComparisonHead(nn.Module):
    """Says where query features match the prototypes beside them, looking at several scales.

    One set of weights for both branches. On every scale the concatenation of query, prototype and prior (Eq. 2 and 7)
    is merged, receives what the finer scale found, and is refined; all scales together are classified.

    Args:
        channels: Channels of features and prototypes, and of every layer.
        bins: Side of the grid of each scale, fine to coarse. Numbers up to 1 are shares of the features' sides (at
            least one cell); others are cells, whatever the features' size.

    Example:
        >>> import torch
        >>> head = ComparisonHead(8, bins=(1.0, 0.5))
        >>> query, prototypes, prior = torch.rand(1, 8, 9, 9), torch.rand(1, 8, 9, 9), torch.rand(1, 1, 9, 9)
        >>> head(query, prototypes, prior).logits.shape
        torch.Size([1, 2, 9, 9])
    """

    def __init__(self, channels: int, bins: Sequence[float]) -> None:
        super().__init__()
        self.bins = tuple(bins)
        scales = len(self.bins)
        self.merge = nn.ModuleList(_conv1x1(2 * channels + 1, channels) for _ in range(scales))
        self.pass_down = nn.ModuleList(_conv1x1(2 * channels, channels) for _ in range(scales - 1))
        self.refine = nn.ModuleList(_refinement(channels) for _ in range(scales))
        self.aux_classifiers = nn.ModuleList(_classifier(channels) for _ in range(scales))
        self.fuse = _conv1x1(scales * channels, channels)
        self.fuse_refine = _refinement(channels)
        self.classifier = _classifier(channels)

    @override
    def forward(self, query: Tensor, prototypes: Tensor, prior: Tensor, *, with_aux: bool = False) -> Comparison:
        """Compare.

        Args:
            query: ``(B, C, h, w)`` query features.
            prototypes: ``(B, C, h, w)``, the prototype that each location is compared with; ``(B, C, 1, 1)`` if all are
                compared with one.
            prior: ``(B, 1, h, w)`` in 0..1.
            with_aux: Classify every scale too.
        """
        size = (query.shape[2], query.shape[3])
        scales: list[Tensor] = []
        for number, side in enumerate(self.bins):
            grid = _grid(side, size)
            compared = (_pool(query, grid), _pool(prototypes, grid), resize_bilinear(prior, grid))
            scale = _mix(self.merge[number], compared, grid)
            if number > 0:
                finer = resize_bilinear(resize_bilinear(scales[-1], size), grid)
                scale = _mix(self.pass_down[number - 1], (scale, finer), grid) + scale
            scales.append(self.refine[number](scale) + scale)

        enriched = _mix(self.fuse, scales, size)
        enriched = self.fuse_refine(enriched) + enriched
        aux = zip(self.aux_classifiers, scales, strict=True) if with_aux else ()
        return Comparison(self.classifier(enriched), tuple(classify(scale) for classify, scale in aux))


def _grid(side: float, size: tuple[int, int]) -> tuple[int, int]:
    if side > 1:
        return int(side), int(side)
    return max(1, int(size[0] * side)), max(1, int(size[1] * side))


def _conv1x1(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU(inplace=True))


def _mix(conv1x1: Any, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """A 1x1 convolution of maps brought to one size and laid side by side, and ReLU.

    The convolution of a concatenation is the sum of its parts' and commutes with resizing: so each map is convolved on
    its own grid, and one cell that stands for all is convolved once.
    """
    weights = conv1x1[0].weight.split([part.shape[1] for part in maps], dim=1)
    convolved = (F.conv2d(part, weight) for part, weight in zip(maps, weights, strict=True))
    return F.relu_(reduce(Tensor.add_, (_broadcastable(part, size) for part in convolved)))


def _pool(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[-2:]) in (grid, (1, 1)) else F.adaptive_avg_pool2d(maps, grid)


def _broadcastable(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[-2:]) == (1, 1) else resize_bilinear(maps, size)


def _refinement(channels: int) -> nn.Sequential:
    return nn.Sequential(
        Conv3x3(channels),
        nn.ReLU(inplace=True),
        Conv3x3(channels),
        nn.ReLU(inplace=True),
    )


def _classifier(channels: int) -> nn.Sequential:
    return nn.Sequential(
        Conv3x3(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Conv2d(channels, 2, 1),
    )
