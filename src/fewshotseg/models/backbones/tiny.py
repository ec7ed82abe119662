"""A small backbone that a laptop trains in a minute, for images on which ImageNet weights do not help."""

from torch import nn

from fewshotseg.models.backbones.staged import StagedBackbone


def tiny() -> StagedBackbone:
    """Make a backbone of four small stages at stride 8, with mid-level maps of 96 and 64 channels."""
    parts = {
        "stem": nn.Sequential(_block(3, 32, stride=2), _block(32, 48, stride=2)),
        "shallow": _block(48, 64, stride=2),
        "deep": nn.Sequential(_block(64, 96), _block(96, 96, dilation=2)),
        "last": _block(96, 128, dilation=2),
    }
    return StagedBackbone(parts, shallow=["stem", "shallow"], mid=["deep"], high=["last"], mid_channels=96 + 64)


def _block(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
