"""A backbone made of modules that run one after the other."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from torch import Tensor, nn

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD


class StagedBackbone(nn.Module):
    """A `Backbone` made of modules that run one after the other.

    State dict keys are those of the parts. Modules are looked up by name at each call, so a replaced one is used.

    Args:
        parts: Name -> module; they become children.
        shallow: Names of the modules up to the finer mid-level map, in order; dots lead into children.
        mid: Names of the modules from there to the deeper mid-level map.
        high: Names of the modules from there to the high-level map.
        mid_channels: Number of channels of both mid-level maps together.
        mean: Mean of red, green and blue, from 0 to 1, that images are normalised by.
        std: Standard deviation, likewise.

    Example:
        >>> import torch
        >>> parts = {name: nn.Conv2d(i, o, 3, stride=2) for name, i, o in (("a", 3, 4), ("b", 4, 6), ("c", 6, 8))}
        >>> backbone = StagedBackbone(parts, shallow=["a"], mid=["b"], high=["c"], mid_channels=10)
        >>> deepest, finer = backbone.mid(torch.zeros(1, 3, 64, 64))
        >>> deepest.shape, finer.shape, backbone.high(deepest).shape
        (torch.Size([1, 6, 15, 15]), torch.Size([1, 4, 31, 31]), torch.Size([1, 8, 7, 7]))
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        *,
        shallow: Sequence[str],
        mid: Sequence[str],
        high: Sequence[str],
        mid_channels: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        for name, module in parts.items():
            self.add_module(name, module)
        self.stages = {"shallow": tuple(shallow), "mid": tuple(mid), "high": tuple(high)}
        self.mid_channels = mid_channels
        self.mean, self.std = tuple(mean), tuple(std)

    def stage(self, name: str) -> list[nn.Module]:
        """Return the modules of ``"shallow"``, ``"mid"`` or ``"high"``, in order."""
        return [reduce(getattr, path.split("."), self) for path in self.stages[name]]

    def run(self, name: str, features: Tensor) -> Tensor:
        """Run the modules of a stage on ``(B, C, H, W)`` features."""
        for module in self.stage(name):
            features = module(features)
        return features

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the deeper and the finer mid-level map."""
        finer = self.run("shallow", images)
        return self.run("mid", finer), finer

    def high(self, deepest: Tensor) -> Tensor:
        """Compute the high-level map."""
        return self.run("high", deepest)


def dilate(stage: nn.Module, dilation: int) -> None:
    """Replace stride by dilation in every convolution of a stage, the first block included."""
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            conv.stride = (1, 1)
            if conv.kernel_size != (1, 1):
                conv.dilation = (dilation, dilation)
                conv.padding = tuple(dilation * (side // 2) for side in conv.kernel_size)


def numbered(name: str, start: int, end: int) -> list[Any]:
    """Return the names of the children ``start`` to ``end - 1`` of a sequence."""
    return [f"{name}.{number}" for number in range(start, end)]
