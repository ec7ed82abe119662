"""Pretrains the backbone ``"tiny"`` by classifying the base classes, instead of on ImageNet."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fewshotseg._io import progress_bar
from fewshotseg.data import VOID, SegmentationSource
from fewshotseg.models.backbones import StagedBackbone
from fewshotseg.models.backbones.tiny import tiny
from fewshotseg.ops import sample_nearest


def pretrained_tiny_backbone(
    source: SegmentationSource, base: Sequence[int], transform: Callable[..., Any], iterations: int
) -> StagedBackbone:
    """Train the backbone to classify the base class of each object pixel; other pixels are ignored.

    Args:
        source: Images with class masks.
        base: The classes to tell apart.
        transform: Resizes images and masks to one size, and normalises the images.
        iterations: Number of iterations, with 16 images each.

    Returns:
        The trained backbone. Random numbers come from torch's default generator.

    Raises:
        ValueError: If there is no base class or no image.
    """
    if not base or not source.ids:
        raise ValueError(f"source must have images of base classes to train on, got {len(source.ids)} images")
    backbone, names = tiny(), nn.Conv2d(128, len(base), 1)
    row_of = torch.full((256,), VOID)
    row_of[list(base)] = torch.arange(len(base))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *names.parameters()], lr=3e-3)
    order = torch.randint(len(source.ids), (iterations, 16)).tolist()
    for indices in progress_bar(order, "pretraining the backbone on base classes", show=sys.stderr.isatty()):
        images, masks = zip(*(transform(*source.load(index)) for index in indices), strict=True)
        logits = names(backbone.high(backbone.mid(torch.stack(images))[0]))  # B classes h w
        size = (logits.shape[2], logits.shape[3])
        labels = row_of[sample_nearest(torch.stack(masks), size)]  # B h w
        loss = F.cross_entropy(logits, labels, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return backbone
