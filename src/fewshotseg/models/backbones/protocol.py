"""The protocols that a backbone must follow; any network that computes feature maps can follow one."""

from typing import Any, Protocol

from torch import Tensor

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD


class Frozen(Protocol):
    """The part that `Backbone` and `WholeBackbone` share."""

    mid_channels: int

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """As of ``nn.Module``."""

    def train(self, mode: bool = True) -> Any:
        """As of ``nn.Module``."""


class Backbone(Frozen, Protocol):
    """An ``nn.Module`` that can be run in two steps: up to its mid-level maps, and the last stage.

    SCNet freezes it and calls it without gradient. There are two steps because the mask of a support is applied between
    them, as in PFENet. Networks that cannot be split so follow `WholeBackbone`. A module may also have attributes
    ``mean`` and ``std``, three numbers each, of the images that it was trained on; the default is ImageNet's.

    Attributes:
        mid_channels: Number of channels of all maps of ``mid`` together.
    """

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute mid-level maps ``(B, C, h, w)`` of ``(B, 3, H, W)`` normalised images, the deepest first."""
        ...

    def high(self, deepest: Tensor) -> Tensor:
        """Compute high-level features ``(B, C', h', w')`` from the first map of ``mid``."""
        ...


class WholeBackbone(Frozen, Protocol):
    """An ``nn.Module`` that computes all maps in one step, for networks that cannot be split as `Backbone` asks.

    Examples are transformers, whose tokens see the whole image, U-shaped networks, and modules whose maps come from
    hooks. The mask of a support is then applied only in the prior and the pooling. Otherwise it is used like a
    `Backbone`; a module that has the methods of both is used as a `Backbone`.

    Attributes:
        mid_channels: Number of channels of all mid-level maps together.
    """

    def mid_and_high(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Compute mid-level maps ``(B, C, h, w)`` and a high-level map of ``(B, 3, H, W)`` normalised images.

        The model resizes the mid-level maps to the first.
        """
        ...


AnyBackbone = Backbone | WholeBackbone


def image_statistics(backbone: object) -> dict[str, Any]:
    """Return ``mean`` and ``std`` that a backbone's images are normalised by, ImageNet's by default."""
    return {"mean": getattr(backbone, "mean", IMAGENET_MEAN), "std": getattr(backbone, "std", IMAGENET_STD)}
