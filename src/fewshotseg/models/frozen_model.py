"""What models on a frozen backbone have in common: how the backbone is run, and that it stays as it is."""

from typing import Any, Self

from torch import nn
from typing_extensions import override

from fewshotseg.models.backbones import AnyBackbone, check_backbone
from fewshotseg.models.fast.backbone import FastBackbone, remembering_steps
from fewshotseg.models.fast.feature_memory import FeatureMemory
from fewshotseg.models.frozen import FrozenBackbone, frozen_steps


class FrozenBackboneModel(nn.Module):
    """A model whose backbone gets no gradient, and whose norm statistics stay as they are; `SCNet` is one.

    Args:
        backbone: Follows `Backbone` or `WholeBackbone`.

    Attributes:
        memory: Set it to a `FeatureMemory` to keep the backbone's features for images that come again.
        fast: The faster form of the backbone, once `fuse` was called; None runs the backbone as it is.

    Raises:
        TypeError: If the backbone lacks something that these ask for.
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
        """Whether the backbone's norms use and update batch statistics in training."""
        return False

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.train(mode and self.trains_norms)
        return self

    def fuse(self) -> Self:
        """Run the frozen backbone in a faster form from now on: the same features, to rounding.

        Norms are folded into the convolutions before them, and on a CPU the supports of an `SCNet` are computed around
        their masks alone. Modules, parameters and state dict stay what they are. A change of the backbone is noticed at
        the next call (but not of parts of weights through ``parameter.data``: call `fuse` again then), and a backbone
        that does not fit, such as one with hooks, runs as it is. It serves training too, where norm statistics are
        frozen.

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

    def _frozen(self) -> FrozenBackbone:
        """The backbone's steps, in the fastest form that was asked for and fits."""
        if self.training and self.trains_norms:
            return frozen_steps(self.backbone)
        if self.fast is not None and self.fast.backbone is not self.backbone:
            self.fuse()
        frozen = frozen_steps(self.backbone) if self.fast is None else self.fast.current()
        return frozen if self.memory is None else remembering_steps(frozen, self.backbone, self.memory)
