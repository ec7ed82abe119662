"""What `SCNet` asks of a backbone: as little as can be, so that any network that makes feature maps fits."""

from typing import Any, Protocol

from torch import Tensor

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD


class Frozen(Protocol):
    """What every backbone has: the rest of `Backbone` and `WholeBackbone`."""

    mid_channels: int

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """As of ``nn.Module``."""

    def train(self, mode: bool = True) -> Any:
        """As of ``nn.Module``."""


class Backbone(Frozen, Protocol):
    """An ``nn.Module`` with these two methods and this number, for networks that can be cut before their last stage.

    SCNet freezes it and calls it without gradient. The two steps are apart because the mask of a support is applied
    between them, as PFENet does. Networks that cannot be cut follow `WholeBackbone`. A module may also carry ``mean``
    and ``std``, three numbers each, for the images it was trained on (ImageNet's are assumed otherwise).

    Attributes:
        mid_channels: Channels of all maps that ``mid`` gives, together.
    """

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` normalised images to mid-level maps ``(B, C, h, w)``, the deepest first."""
        ...

    def high(self, deepest: Tensor) -> Tensor:
        """The first map of ``mid`` to high-level features ``(B, C', h', w')``."""
        ...


class WholeBackbone(Frozen, Protocol):
    """An ``nn.Module`` with this method and this number, for networks that cannot be cut.

    Transformers whose tokens see the whole image, U-shaped networks and modules whose maps come from hooks are such.
    The mask of a support then only weighs the prior and the pooling. What else `Backbone` says holds here too; a module
    that has the methods of both is cut.

    Attributes:
        mid_channels: Channels of all mid-level maps together.
    """

    def mid_and_high(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """``(B, 3, H, W)`` normalised images to mid-level maps ``(B, C, h, w)`` and a high-level one.

        Mid-level maps are brought to the grid of the first.
        """
        ...


AnyBackbone = Backbone | WholeBackbone


def image_statistics(backbone: object) -> dict[str, Any]:
    """``mean`` and ``std`` of the images that a backbone expects, as transforms take them; ImageNet's by default."""
    return {"mean": getattr(backbone, "mean", IMAGENET_MEAN), "std": getattr(backbone, "std", IMAGENET_STD)}
