"""The comparison head g_phi (Eq. 3 and 8): PFENet's feature enrichment module and classifier."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_share
from fewshotseg.models.config import MAX_CHANNELS, MAX_SCALES, checked_bins
from fewshotseg.models.fast.concat_conv1x1 import conv1x1_of_parts, splits
from fewshotseg.models.fast.conv3x3 import Conv3x3
from fewshotseg.ops import resize_bilinear
from fewshotseg.ops.resizing import average_pool


class Comparison(NamedTuple):
    """The output of `ComparisonHead`.

    Attributes:
        logits: ``(B, 2, h, w)`` at the resolution of the query features.
        aux: Logits ``(B, 2, b, b)`` of each scale, for deep supervision; empty unless asked for.
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


class ConcatConv1x1(nn.Sequential):
    """Concatenates maps along the channels and applies a 1x1 convolution and ReLU (the merge of Eq. 2 and 7).

    Both children are called as modules, so that hooks, adapters and replacements work. On a CPU a plain convolution is
    applied to each map separately and the results are summed, which gives the same and is faster there.

    Args:
        inputs: Number of channels of all maps together.
        outputs: Number of channels of the result.

    Example:
        >>> import torch
        >>> merge = ConcatConv1x1(3 + 1, 8)
        >>> merge([torch.rand(2, 3, 5, 5), torch.rand(2, 1, 9, 9)], (5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        check_at_least("inputs", inputs, 1, MAX_SCALES * MAX_CHANNELS)
        check_at_least("outputs", outputs, 1, MAX_CHANNELS)
        super().__init__(nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU(inplace=True))

    @override
    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:  # type: ignore[override]  # several maps
        """Resize the maps, concatenate and convolve them.

        Args:
            maps: ``(B, C_i, h_i, w_i)`` of any sizes; ``(B, C_i, 1, 1)`` is the same vector at every location.
            size: ``(H, W)`` to resize all maps to.

        Returns:
            ``(B, outputs, H, W)``.
        """
        conv, *after = self
        if isinstance(conv, nn.Conv2d) and splits(conv, maps):
            merged = conv1x1_of_parts(conv, maps, size)
        else:
            merged = conv(_concatenated([_resized(part, size) for part in maps]))  # B C H W
        for module in after:
            merged = module(merged)
        return merged


class ComparisonHead(nn.Module):
    """Predicts where query features match a prototype, at several scales; both branches share its weights.

    At every scale the concatenation of query, prototype and prior (Eq. 2 and 7) is merged, the features of the next
    finer scale are added, and the result is refined. All scales together are classified.

    Args:
        channels: Number of channels of features and prototypes, and of every layer.
        bins: Side of the grid of each scale, from fine to coarse. Numbers up to 1 are shares of the features' sides (at
            least one cell); larger ones are numbers of cells.
        dropout: Dropout probability of channels before each classifier.

    Example:
        >>> import torch
        >>> head = ComparisonHead(8, bins=(1.0, 0.5))
        >>> query, prototypes, prior = torch.rand(1, 8, 9, 9), torch.rand(1, 8, 9, 9), torch.rand(1, 1, 9, 9)
        >>> head(query, prototypes, prior).logits.shape
        torch.Size([1, 2, 9, 9])
    """

    def __init__(self, channels: int, bins: Sequence[float], *, dropout: float = 0.1) -> None:
        super().__init__()
        check_at_least("channels", channels, 1, MAX_CHANNELS)
        check_share("dropout", dropout)
        self.bins = checked_bins(bins)
        scales = len(self.bins)
        self.merge = nn.ModuleList(ConcatConv1x1(2 * channels + 1, channels) for _ in range(scales))
        self.pass_down = nn.ModuleList(ConcatConv1x1(2 * channels, channels) for _ in range(scales - 1))
        self.refine = nn.ModuleList(_refinement(channels) for _ in range(scales))
        self.aux_classifiers = nn.ModuleList(_classifier(channels, dropout) for _ in range(scales))
        self.fuse = ConcatConv1x1(scales * channels, channels)
        self.fuse_refine = _refinement(channels)
        self.classifier = _classifier(channels, dropout)

    @override
    def forward(self, query: Tensor, prototypes: Tensor, prior: Tensor, *, with_aux: bool = False) -> Comparison:
        """Compute logits of the match between query features and prototypes.

        Args:
            query: ``(B, C, h, w)`` query features.
            prototypes: ``(B, C, h, w)``, the prototype that each location is compared with; ``(B, C, 1, 1)`` if it is
                the same for all.
            prior: ``(B, 1, h, w)`` in 0..1.
            with_aux: Compute the logits of every scale too.
        """
        size = (query.shape[2], query.shape[3])
        scales: list[Tensor] = []
        for number, side in enumerate(self.bins):
            grid = _grid(side, size)
            compared = (_pool(query, grid), _pool(prototypes, grid), resize_bilinear(prior, grid))
            scale = self.merge[number](compared, grid)  # B C b b
            if number > 0:
                finer = resize_bilinear(resize_bilinear(scales[-1], size), grid)
                scale = self.pass_down[number - 1]((scale, finer), grid) + scale
            scales.append(self.refine[number](scale) + scale)

        enriched = self.fuse(scales, size)  # B C h w
        enriched = self.fuse_refine(enriched) + enriched
        aux = zip(self.aux_classifiers, scales, strict=True) if with_aux else ()
        return Comparison(self.classifier(enriched), tuple(classify(scale) for classify, scale in aux))


def _grid(side: float, size: tuple[int, int]) -> tuple[int, int]:
    if side > 1:
        return int(side), int(side)
    return max(1, int(size[0] * side)), max(1, int(size[1] * side))


def _pool(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[-2:]) in (grid, (1, 1)) else average_pool(maps, grid)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps.expand(-1, -1, *size) if tuple(maps.shape[-2:]) == (1, 1) else resize_bilinear(maps, size)


def _concatenated(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps of one size along the channels, in the memory layout of the first."""
    if not maps[0].is_contiguous(memory_format=torch.channels_last):
        return torch.cat(list(maps), dim=1)
    # torch.cat keeps channels-last only if all maps are: an expanded prototype is not.
    return torch.cat([part.movedim(1, 3) for part in maps], dim=3).movedim(3, 1)


def _refinement(channels: int) -> nn.Sequential:
    return nn.Sequential(
        Conv3x3(channels),
        nn.ReLU(inplace=True),
        Conv3x3(channels),
        nn.ReLU(inplace=True),
    )


def _classifier(channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        Conv3x3(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, 2, 1),
    )
