"""The steps of a frozen backbone, as models take them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg.models.backbones import AnyBackbone
from fewshotseg.models.backbones.checks import can_be_cut, check_map, check_mid, check_whole
from fewshotseg.ops import resize_bilinear


def frozen_steps(backbone: AnyBackbone) -> "FrozenBackbone":
    """The steps of a backbone, run as it is."""
    return FrozenBackbone(backbone) if can_be_cut(backbone) else FrozenWholeBackbone(backbone)


class FrozenBackbone:
    """A backbone that is run as it is, without gradient, and cut where a support's mask goes in.

    Args:
        backbone: What follows `Backbone`.
    """

    def __init__(self, backbone: AnyBackbone) -> None:
        self.backbone: Any = backbone

    def mid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, H, W)`` to the mid-level maps, concatenated on the grid of the first, and what `high` goes on with.

        Raises:
            ValueError: If the shapes of the maps are not what the backbone says.
            TypeError: If they are no maps.
        """
        return self.joined(self.maps(images), images)

    def mid_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The same, right at least where the label masks ``(B, H, W)`` show foreground."""
        return self.joined(self.maps_around(images, masks), images)

    def one(self, images: Tensor, which: str) -> Tensor:
        """The deepest mid-level map, ``"mid"``, or the high-level one, ``"high"``; no more is run than that takes.

        Raises as `mid` and `high`.
        """
        maps = self.maps(images)
        check_mid(self.backbone, maps, images)
        return maps[0] if which == "mid" else self.high(maps[0])

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """All that the first step gives: the mid-level maps, the deepest first."""
        with torch.no_grad():
            maps: tuple[Tensor, ...] = self.backbone.mid(images)
        return maps

    def maps_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """The same, right at least where the label masks show foreground."""
        return self.maps(images)

    def joined(self, maps: Sequence[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """What `mid` makes of these maps."""
        check_mid(self.backbone, maps, images)
        return _concatenated(maps), maps[0]

    def high(self, deepest: Tensor) -> Tensor:
        """The deepest mid-level map to the high-level one."""
        with torch.no_grad():
            high: Tensor = self.backbone.high(deepest)
        check_map("backbone.high", high, deepest)
        return high

    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        """High-level features of maps times masks ``(B, h, w)``, right at least inside the masks."""
        return self.high(deepest * foreground[:, None].to(deepest.dtype))


class FrozenWholeBackbone(FrozenBackbone):
    """A backbone that gives all maps at once: the high-level one is carried from the first step to the second.

    Args:
        backbone: What follows `WholeBackbone`.
    """

    @override
    def one(self, images: Tensor, which: str) -> Tensor:
        maps = self.maps(images)
        mid, high = maps[:-1], maps[-1]
        self._check(mid, high, images)
        return mid[0] if which == "mid" else high

    @override
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The mid-level maps, and the high-level one as the last."""
        with torch.no_grad():
            answer = self.backbone.mid_and_high(images)
        check_whole(answer)
        mid, high = answer
        return (*mid, high)

    @override
    def joined(self, maps: Sequence[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        mid, high = maps[:-1], maps[-1]
        self._check(mid, high, images)
        return _concatenated(mid), high

    def _check(self, mid: Sequence[Tensor], high: Tensor, images: Tensor) -> None:
        check_mid(self.backbone, mid, images)
        check_map("the high-level map of backbone.mid_and_high", high, images)

    @override
    def high(self, deepest: Tensor) -> Tensor:
        return deepest

    @override
    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        return deepest  # `prior_mask` weighs it


def _concatenated(maps: Sequence[Tensor]) -> Tensor:
    first, *others = maps
    size = (first.shape[2], first.shape[3])
    return torch.cat([first, *(resize_bilinear(features, size) for features in others)], dim=1)
