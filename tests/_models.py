"""A network small enough for tests that follows the backbone protocol."""

import torch
from torch import nn

import fewshotseg as fs


class TinyBackbone(nn.Module):
    """The least that follows the protocol; high-level features may be negative."""

    mid_channels = 12 + 6

    def __init__(self):
        super().__init__()
        self.shallow = nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), nn.BatchNorm2d(12))
        self.last = nn.Conv2d(12, 20, 3, padding=1)

    def mid(self, images):
        shallow = self.shallow(images)
        return self.deep(shallow), shallow

    def high(self, deepest):
        return self.last(deepest)


def tiny(seed=0, **settings):
    """SCNet on the tiny backbone, the same for the same seed."""
    torch.manual_seed(seed)
    return fs.build_scnet(TinyBackbone(), **{"hidden_channels": 8, "bins": (1.0, 0.5), **settings})
