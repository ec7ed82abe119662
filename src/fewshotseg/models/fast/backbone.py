"""A frozen backbone at work: the features that it gives, for less than running it each time on all of each image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fewshotseg.models.backbones import Backbone
from fewshotseg.models.fast.cropping import masked_high, masked_mid
from fewshotseg.models.fast.feature_memory import FeatureMemory, image_by_image
from fewshotseg.models.fast.folding import folded
from fewshotseg.ops import resize_bilinear
from fewshotseg.ops._precision import is_eager_cpu


@dataclass(frozen=True)
class FrozenBackbone:
    """The steps of a backbone without gradient, right to rounding.

    Attributes:
        backbone: What follows `Backbone`.
        memory: Features of images that came before, if they are kept.
        batch_statistics: Whether its norms use them: then an image's features depend on the others of its batch, and
            everything runs as it is.
    """

    backbone: Backbone
    memory: FeatureMemory | None
    batch_statistics: bool

    def mid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mid-level maps, concatenated on the grid of the deepest, and the deepest alone."""
        return _concatenated(self._run("mid", lambda backbone, inputs: backbone.mid(inputs), images))

    def mid_around(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The same, right where label masks show foreground."""
        if self.memory is not None:
            return self.mid(images)
        return _concatenated(self._run("mid around", masked_mid, images, masks))

    def high(self, deepest: Tensor) -> Tensor:
        """High-level features."""
        (high,) = self._run("high", lambda backbone, maps: (backbone.high(maps),), deepest)
        return high

    def high_of_masked(self, deepest: Tensor, foreground: Tensor) -> Tensor:
        """High-level features of maps times masks, right inside the masks."""
        (high,) = self._run("masked", lambda *masked: (masked_high(*masked),), deepest, foreground)
        return high

    def _run(self, name: str, step: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """A step of the backbone, from memory where it can; on a CPU image by image, which is faster there."""
        with torch.no_grad():
            if self.batch_statistics:
                return step(self.backbone, *inputs)
            if self.memory is not None:
                return self.memory(name, lambda *image: step(folded(self.backbone), *image), *inputs)
            backbone = folded(self.backbone)
            if inputs[0].shape[0] == 1 or not is_eager_cpu(inputs[0]):
                return step(backbone, *inputs)
            return image_by_image(partial(step, backbone), *inputs)


def _concatenated(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    deepest, *others = maps
    size = (deepest.shape[2], deepest.shape[3])
    return torch.cat([deepest, *(resize_bilinear(features, size) for features in others)], dim=1), deepest
