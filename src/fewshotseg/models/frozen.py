"""The steps of a frozen backbone, as SCNet takes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewshotseg.models.backbones import Backbone
from fewshotseg.ops import resize_bilinear


class FrozenBackbone:
    """A backbone that is run as it is, without gradient.

    Args:
        backbone: What follows `Backbone`.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def mid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, H, W)`` to the mid-level maps, concatenated on the grid of the deepest, and the deepest alone."""
        return _concatenated(self.maps(images))

    def mid_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The same, right at least where the label masks ``(B, H, W)`` show foreground."""
        return _concatenated(self.maps_around(images, masks))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The mid-level maps, the deepest first."""
        with torch.no_grad():
            return self.backbone.mid(images)

    def maps_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """The same, right at least where the label masks show foreground."""
        return self.maps(images)

    def high(self, deepest: Tensor) -> Tensor:
        """The deepest mid-level map to the high-level one."""
        with torch.no_grad():
            return self.backbone.high(deepest)

    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        """High-level features of maps times masks ``(B, h, w)``, right at least inside the masks."""
        with torch.no_grad():
            return self.backbone.high(deepest * foreground[:, None].to(deepest.dtype))


def _concatenated(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    deepest, *others = maps
    size = (deepest.shape[2], deepest.shape[3])
    return torch.cat([deepest, *(resize_bilinear(features, size) for features in others)], dim=1), deepest
