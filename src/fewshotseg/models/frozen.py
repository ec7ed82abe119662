"""Runs a frozen backbone in steps: mid-level maps first, then high-level features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg.models.backbones import AnyBackbone
from fewshotseg.models.backbones.checks import can_be_cut, check_map, check_mid, check_whole
from fewshotseg.ops import resize_bilinear


def frozen_steps(backbone: AnyBackbone) -> "FrozenBackbone":
    """Make the steps of a backbone, without any speed-up."""
    return FrozenBackbone(backbone) if can_be_cut(backbone) else FrozenWholeBackbone(backbone)


class FrozenBackbone:
    """Runs a `Backbone` without gradient, in two steps: a support's mask is applied between them.

    Args:
        backbone: A module that follows `Backbone`.
    """

    def __init__(self, backbone: AnyBackbone) -> None:
        self.backbone: Any = backbone

    def mid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mid-level features of ``(B, 3, H, W)`` images.

        Returns:
            The mid-level maps, resized to the first and concatenated, and the map that `high` takes.

        Raises:
            ValueError: If the shapes of the maps are not as the backbone declares.
            TypeError: If the backbone returns something else than maps.
        """
        return self.joined(self.maps(images), images)

    def mid_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the same as `mid`, but correct only where the label masks ``(B, H, W)`` show foreground."""
        return self.joined(self.maps_around(images, masks), images)

    def one(self, images: Tensor, which: str) -> Tensor:
        """Compute one map, the deepest ``"mid"``-level or the ``"high"``-level one; later layers do not run.

        Raises as `mid` and `high`.
        """
        maps = self.maps(images)
        check_mid(self.backbone, maps, images)
        return maps[0] if which == "mid" else self.high(maps[0])

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the first step: the mid-level maps, the deepest first."""
        with torch.no_grad():
            maps: tuple[Tensor, ...] = self.backbone.mid(images)
        return maps

    def maps_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Run the first step, correct only where the label masks show foreground."""
        return self.maps(images)

    def joined(self, maps: Sequence[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Make the result of `mid` from the maps of the first step."""
        check_mid(self.backbone, maps, images)
        return _concatenated(maps), maps[0]

    def high(self, deepest: Tensor) -> Tensor:
        """Run the second step: the high-level map from the deepest mid-level map."""
        with torch.no_grad():
            high: Tensor = self.backbone.high(deepest)
        check_map("backbone.high", high, deepest)
        return high

    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        """Compute high-level features of maps times masks ``(B, h, w)``, correct only inside the masks."""
        return self.high(deepest * foreground[:, None].to(deepest.dtype))


class FrozenWholeBackbone(FrozenBackbone):
    """Runs a `WholeBackbone`, which computes all maps in the first step; the second step returns the high-level map.

    Args:
        backbone: A module that follows `WholeBackbone`.
    """

    @override
    def one(self, images: Tensor, which: str) -> Tensor:
        maps = self.maps(images)
        mid, high = maps[:-1], maps[-1]
        self._check(mid, high, images)
        return mid[0] if which == "mid" else high

    @override
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone: the mid-level maps, then the high-level map as the last."""
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
        return deepest  # `prior_mask` applies the masks


def _concatenated(maps: Sequence[Tensor]) -> Tensor:
    first, *others = maps
    size = (first.shape[2], first.shape[3])
    return torch.cat([first, *(resize_bilinear(features, size) for features in others)], dim=1)
