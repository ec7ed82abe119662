"""Models of timm that cannot be split into two steps, such as vision transformers, as backbones."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD


class WholeTimmBackbone(nn.Module):
    """A model of timm as a `WholeBackbone`.

    Images are padded with zeros on the right and at the bottom to a multiple of the size that the model needs. The maps
    are cropped to the cells that show the image, including partly covered ones. Class and register tokens are dropped.
    State dict keys are the model's with the prefix ``net``.

    Args:
        net: A model of ``timm.create_model`` with ``forward_intermediates``. It must accept images of any such size;
            many models do if created with ``dynamic_img_size=True`` or ``strict_img_size=False``.
        blocks: Increasing indices, from 0, of two or more blocks or stages: the last gives the high-level map, the
            others the mid-level maps. By default those at half, three quarters and all of the depth if all blocks have
            the same grid, else the last three stages.
        multiple: Pad the sides of images to a multiple of this many pixels; by default the model's coarsest stride.
        norm: Apply the model's final norm to the maps, if timm supports it for the model.

    Raises:
        ValueError: If the model has no ``forward_intermediates`` or fewer than three blocks, or ``blocks`` or
            ``multiple`` are out of range.
        TypeError: If these are not integers.

    Example:
        >>> import timm, torch
        >>> net = timm.create_model("vit_tiny_patch16_224", depth=4, dynamic_img_size=True)
        >>> backbone = WholeTimmBackbone(net)
        >>> mid, high = backbone.mid_and_high(torch.zeros(1, 3, 97, 64))
        >>> backbone.blocks, [tuple(features.shape) for features in (*mid, high)]
        ((1, 2, 3), [(1, 192, 7, 4), (1, 192, 7, 4), (1, 192, 7, 4)])
    """

    def __init__(
        self, net: nn.Module, *, blocks: Sequence[int] | None = None, multiple: int | None = None, norm: bool = True
    ) -> None:
        super().__init__()
        stages: Any = getattr(net, "feature_info", None)
        if not hasattr(net, "forward_intermediates") or not isinstance(stages, list) or len(stages) < 3:
            raise ValueError(
                "net must be a model of timm with forward_intermediates and at least three blocks, "
                f"got {type(net).__name__}"
            )
        self.blocks = _default_blocks(stages) if blocks is None else tuple(blocks)
        if len(self.blocks) < 2 or sorted(set(self.blocks) & set(range(len(stages)))) != list(self.blocks):
            raise ValueError(
                f"blocks must be two or more rising numbers from 0 to {len(stages) - 1}, got {self.blocks}"
            )
        self.multiple: int = stages[-1]["reduction"] if multiple is None else multiple
        check_at_least("multiple", self.multiple, 1)
        self.norm = norm
        self.mid_channels: int = sum(stages[block]["num_chs"] for block in self.blocks[:-1])
        config = getattr(net, "pretrained_cfg", None) or {}
        self.mean, self.std = tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
        self.net = net

    def mid_and_high(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Compute mid-level maps, the deepest first, and the high-level map of ``(B, 3, H, W)`` images."""
        height, width = images.shape[2], images.shape[3]
        padded = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        rows, columns = padded.shape[2], padded.shape[3]
        net: Any = self.net
        maps = net.forward_intermediates(
            padded, indices=list(self.blocks), norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )
        *mid, high = (
            features[:, :, : -(-height * features.shape[2] // rows), : -(-width * features.shape[3] // columns)]
            for features in maps
        )
        return tuple(reversed(mid)), high

    @override
    def extra_repr(self) -> str:
        return f"blocks={self.blocks}, multiple={self.multiple}, norm={self.norm}"


def _default_blocks(stages: Sequence[Any]) -> tuple[int, ...]:
    depth = len(stages)
    if stages[0]["reduction"] == stages[-1]["reduction"]:
        return depth // 2 - 1, 3 * depth // 4 - 1, depth - 1
    return depth - 3, depth - 2, depth - 1
