"""torchvision's networks as backbones, and PFENet's ResNets with a deep stem."""

from typing import Any

from torch import nn
from torchvision import models as tv

from fewshotseg.models.backbones.staged import StagedBackbone, dilate, numbered


def resnet(net: tv.ResNet, *, deep_stem: bool = False) -> StagedBackbone:
    """Make a backbone of a ResNet, with its last two stages dilated to stride 8 as in PFENet.

    Every 3x3 convolution of layer3 has dilation 2 and of layer4 dilation 4, the first blocks included (torchvision's
    ``replace_stride_with_dilation`` differs there). Mid-level maps are layer3 and layer2, the high-level map is
    layer4. State dict keys are torchvision's, without ``fc``.

    Args:
        net: A torchvision ResNet with bottleneck blocks; its modules are reused and changed.
        deep_stem: Replace the 7x7 convolution by three 3x3 ones (64, 64, 128 channels), as in PFENet's ``resnet50s``.
    """
    if deep_stem:
        _deepen_stem(net)
    dilate(net.layer3, 2)
    dilate(net.layer4, 4)
    shallow = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]
    return StagedBackbone(
        {name: getattr(net, name) for name in (*shallow, "layer3", "layer4")},
        shallow=shallow,
        mid=["layer3"],
        high=["layer4"],
        mid_channels=1024 + 512,
    )


def vgg16_bn(net: tv.VGG) -> StagedBackbone:
    """Make a backbone of VGG-16 with batch norm; as in PFENet, max-pools round up and the last one is removed.

    Mid-level maps are the fourth stage (stride 16) and the third (stride 8), the high-level map is the fifth stage
    (stride 16). State dict keys are torchvision's ``features``.

    Args:
        net: torchvision's ``vgg16_bn``; its modules are reused and changed.
    """
    features = net.features[:43]
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    return StagedBackbone(
        {"features": features},
        shallow=numbered("features", 0, 24),
        mid=numbered("features", 24, 34),
        high=numbered("features", 34, 43),
        mid_channels=512 + 256,
    )


def mobilenet_v2(net: tv.MobileNetV2) -> StagedBackbone:
    """Make a backbone of MobileNetV2, with its last two strides replaced by dilation.

    Mid-level maps are the 96-channel and the 32-channel stage, the high-level map is the last convolution with 1280
    channels after ReLU6; all have stride 8. State dict keys are torchvision's ``features``.

    Args:
        net: torchvision's ``mobilenet_v2``; its modules are reused and changed.
    """
    dilate(net.features[7:14], 2)
    dilate(net.features[14:18], 4)
    return StagedBackbone(
        {"features": net.features},
        shallow=numbered("features", 0, 7),
        mid=numbered("features", 7, 14),
        high=numbered("features", 14, 19),
        mid_channels=96 + 32,
    )


def _deepen_stem(net: tv.ResNet) -> None:
    net.conv1 = nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 128, 3, padding=1, bias=False),
    )
    net.bn1 = nn.BatchNorm2d(128)
    block: Any = net.layer1[0]
    block.conv1 = nn.Conv2d(128, 64, 1, bias=False)
    block.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
    for module in (*net.conv1, block.conv1, block.downsample[0]):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
