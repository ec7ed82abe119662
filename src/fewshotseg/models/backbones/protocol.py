"""What `SCNet` asks of a backbone: as little as can be, so that any network that makes feature maps fits."""

from typing import Any, Protocol

from torch import Tensor

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD


class Backbone(Protocol):
    """An ``nn.Module`` with these two methods and this number.

    SCNet freezes it and calls it without gradient. The two steps are apart because the mask of a support is applied
    between them. A module may also carry ``mean`` and ``std``, three numbers each, for the images it was trained on
    (ImageNet's are assumed otherwise).

    Attributes:
        mid_channels: Channels of all maps that ``mid`` gives, together.
    """

    mid_channels: int

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` normalised images to mid-level maps ``(B, C, h, w)``, the deepest first."""
        ...

    def high(self, deepest: Tensor) -> Tensor:
        """The first map of ``mid`` to high-level features ``(B, C', h', w')``."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """As of ``nn.Module``."""

    def train(self, mode: bool = True) -> Any:
        """As of ``nn.Module``."""


def image_statistics(backbone: object) -> dict[str, Any]:
    """``mean`` and ``std`` of the images that a backbone expects, as transforms take them; ImageNet's by default."""
    return {"mean": getattr(backbone, "mean", IMAGENET_MEAN), "std": getattr(backbone, "std", IMAGENET_STD)}
