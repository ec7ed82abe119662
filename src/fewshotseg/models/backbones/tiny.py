"""A backbone that a laptop trains in a minute, for images on which ImageNet's weights are of no use."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from fewshotseg.data import VOID, SegmentationSource
from fewshotseg.ops import sample_nearest


class TinyBackbone(nn.Module):
    """Four small stages, stride 8; it follows the protocol of `fewshotseg.Backbone`."""

    mid_channels = 96 + 64

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 32, stride=2), _block(32, 48, stride=2))
        self.shallow = _block(48, 64, stride=2)
        self.deep = nn.Sequential(_block(64, 96), _block(96, 96, dilation=2))
        self.last = _block(96, 128, dilation=2)

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The third and the second stage."""
        shallow = self.shallow(self.stem(images))
        return self.deep(shallow), shallow

    def high(self, deepest: Tensor) -> Tensor:
        """The fourth stage."""
        return self.last(deepest)


def _block(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def pretrained_tiny_backbone(
    source: SegmentationSource, base: Sequence[int], transform: Callable, iterations: int
) -> TinyBackbone:
    """Learn to name the base class of each object pixel, in place of ImageNet. Nothing is learned from other pixels."""
    backbone, names = TinyBackbone(), nn.Conv2d(128, len(base), 1)
    row_of = torch.full((256,), VOID)
    row_of[list(base)] = torch.arange(len(base))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *names.parameters()], lr=3e-3)
    order = torch.randint(len(source.ids), (iterations, 16)).tolist()
    for indices in tqdm(order, desc="pretraining the backbone on base classes", disable=None):
        images, masks = zip(*(transform(*source.load(index)) for index in indices), strict=True)
        logits = names(backbone.high(backbone.mid(torch.stack(images))[0]))
        labels = row_of[sample_nearest(torch.stack(masks), logits.shape[2:])]
        loss = F.cross_entropy(logits, labels, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return backbone
