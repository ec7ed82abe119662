"""Classification of base classes in place of ImageNet: what the backbone ``"tiny"`` learns first."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from fewshotseg.data import VOID, SegmentationSource
from fewshotseg.models.backbones import StagedBackbone
from fewshotseg.models.backbones.tiny import tiny
from fewshotseg.ops import sample_nearest


def pretrained_tiny_backbone(
    source: SegmentationSource, base: Sequence[int], transform: Callable[..., Any], iterations: int
) -> StagedBackbone:
    """Learn to name the base class of each object pixel, in place of ImageNet. Nothing is learned from other pixels."""
    backbone, names = tiny(), nn.Conv2d(128, len(base), 1)
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
