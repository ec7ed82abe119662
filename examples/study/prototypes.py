"""What the features of a backbone give without any training: the floor for whatever is trained on top of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import fewshotseg as fs
from fewshotseg.models.backbones import image_statistics
from fewshotseg.ops import foreground_weights, resize_bilinear

Prototypes = tuple[Tensor, Tensor]


class NearestPrototype(nn.Module):
    """Foreground where the mean foreground feature of the supports is nearer than their mean background feature.

    Nearer by cosine, in the deepest mid-level map, the one that prototypes come from in PFENet. Nothing is learned and
    nothing can be tuned. `fewshotseg.evaluate` takes it as it takes SCNet.

    Args:
        backbone: Any that follows `fewshotseg.Backbone`.
        memory: Keeps its features.
    """

    def __init__(self, backbone: Any, memory: fs.FeatureMemory | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = fs.SCNetConfig(**image_statistics(backbone))
        self.memory = memory

    def encode_support(self, images: Tensor, masks: Tensor) -> Prototypes:
        """``(B, 1, 3, H, W)`` images and ``(B, 1, H, W)`` label masks to a prototype of each side, ``(B, C)``."""
        features = self._features(images[:, 0])
        size = (features.shape[2], features.shape[3])
        sides = [foreground_weights(masks[:, 0] == label, size) for label in (1, 0)]
        pooled = fs.masked_average_pool(features, torch.stack(sides, dim=1))
        return pooled[:, 0], pooled[:, 1]

    def merge_shots(self, shots: Sequence[Prototypes]) -> Prototypes:
        """Average the prototypes of several shots."""
        foreground, background = (torch.stack(prototypes).mean(dim=0) for prototypes in zip(*shots, strict=True))
        return foreground, background

    def encode_query(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """``(B, 3, H, W)`` images to features, and the size of the answer."""
        return self._features(images), (images.shape[2], images.shape[3])

    def segment(self, support: Prototypes, query: tuple[Tensor, tuple[int, int]]) -> Tensor:
        """``(B, 2, H, W)`` cosines as logits, channel 1 foreground."""
        features, size = query
        foreground, background = (
            torch.cosine_similarity(features, prototype[:, :, None, None], dim=1) for prototype in support
        )
        return resize_bilinear(torch.stack([background, foreground], dim=1), size)

    def _features(self, images: Tensor) -> Tensor:
        if self.memory is None:
            return self.backbone.mid(images)[0]
        return self.memory(("mid", self.memory.digest_of(self.backbone)), self.backbone.mid, images)[0]
