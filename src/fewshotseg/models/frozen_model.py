"""The base class of models with a frozen backbone."""

from typing import Any, Self

from torch import nn
from typing_extensions import override

from fewshotseg.models.backbones import AnyBackbone, check_backbone
from fewshotseg.models.fast.backbone import FastBackbone, cached_steps
from fewshotseg.models.fast.feature_memory import FeatureMemory
from fewshotseg.models.frozen import FrozenBackbone, frozen_steps


class FrozenBackboneModel(nn.Module):
    """The base class of `SCNet` and `PrototypeSegmenter`: the backbone gets no gradient and keeps its norm statistics.

    Args:
        backbone: A module that follows `Backbone` or `WholeBackbone`.

    Attributes:
        memory: Set it to a `FeatureMemory` to cache the backbone's features for images that come again.
        fast: The faster form of the backbone, set by `fuse`; None runs the backbone itself.

    Raises:
        TypeError: If the backbone follows neither protocol.
    """

    def __init__(self, backbone: AnyBackbone) -> None:
        super().__init__()
        check_backbone(backbone)
        self.backbone: Any = backbone
        self.memory: FeatureMemory | None = None
        self.fast: FastBackbone | None = None
        self.backbone.requires_grad_(False)

    @property
    def trains_norms(self) -> bool:
        """Whether the backbone's norms use and update batch statistics in training mode."""
        return False

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.train(mode and self.trains_norms)
        return self

    def fuse(self) -> Self:
        """Run the frozen backbone in a faster form from now on; features are equal up to rounding.

        Norms are folded into the convolutions before them. On a CPU the supports of an `SCNet` are computed only around
        their masks; on a GPU with tensor cores, maps are channels-last and residual blocks run in fused kernels.
        Modules, parameters and the state dict do not change. If the backbone changes later, the faster form is rebuilt
        at the next call; only writing to part of a weight through ``parameter.data`` is not detected, so call `fuse`
        again after it. A backbone that cannot be fused, such as one with hooks, runs as before. Training is faster,
        too, if norm statistics are frozen.

        Returns:
            The model itself.

        Example:
            >>> import torch
            >>> from fewshotseg import build_scnet
            >>> model = build_scnet("mobilenet_v2", hidden_channels=8).eval()
            >>> images = torch.rand(1, 3, 65, 65)
            >>> expected = model.encode_query(images).high
            >>> torch.allclose(model.fuse().encode_query(images).high, expected, atol=1e-4)
            True
        """
        self.fast = FastBackbone(self.backbone)
        return self

    @property
    def _frozen(self) -> FrozenBackbone:
        """Return the backbone's steps in the fastest form that was asked for and is possible."""
        if self.training and self.trains_norms:
            return frozen_steps(self.backbone)
        if self.fast is not None and self.fast.backbone is not self.backbone:
            self.fuse()
        frozen = frozen_steps(self.backbone) if self.fast is None else self.fast.current()
        return frozen if self.memory is None else cached_steps(frozen, self.backbone, self.memory)
