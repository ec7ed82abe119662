"""Frozen backbones behind one small protocol: torchvision's, PFENet's deep-stem ResNets, or any module of yours."""

from typing import Any, Protocol

from torch import Tensor, nn
from torchvision import models as tv

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD
from fewshotseg.models.lite import efficientnet_lite0


class Backbone(Protocol):
    """What `SCNet` asks of a backbone: an ``nn.Module`` with these two methods and this number.

    SCNet freezes it and calls it without gradient. The two steps are apart because the mask of a support is applied
    between them. A module may also carry ``mean`` and ``std``, three numbers each, for the images it was trained on
    (ImageNet's are assumed otherwise).

    On a CPU supports are computed around their masks alone, where a module also says what its steps run one after the
    other: ``high_blocks`` those of ``high``; ``mid_blocks`` those that ``mid`` runs on ``shallow(images)``, giving what
    becomes of it, and it. All of them have to keep the grid and look about by convolutions only.

    Attributes:
        mid_channels: Channels of all maps that ``mid`` gives, together.
    """

    mid_channels: int

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` normalised images to mid-level maps ``(B, C, h, w)``, the deepest first."""
        ...

    def high(self, deepest: Tensor) -> Tensor:
        """The first map of ``mid`` to high-level features ``(B, C', h', w')``."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """As of ``nn.Module``."""

    def train(self, mode: bool = True) -> Any:
        """As of ``nn.Module``."""


class ResNetBackbone(nn.Module):
    """A ResNet whose last two stages keep stride 8, as PFENet dilates them.

    Every 3x3 convolution of layer3 has dilation 2 and of layer4 dilation 4, the first blocks included (torchvision's
    ``replace_stride_with_dilation`` differs there). Mid-level maps are layer3 and layer2, the high-level map is
    layer4. State dict keys are torchvision's, without ``fc``.

    Args:
        net: A torchvision ResNet of bottleneck blocks; its parts are taken over and changed.
        deep_stem: Three 3x3 convolutions (64, 64, 128 channels) in place of the 7x7 one, as in PFENet's ``resnet50s``.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, net: tv.ResNet, *, deep_stem: bool = False) -> None:
        super().__init__()
        if deep_stem:
            _deepen_stem(net)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        _dilate(self.layer3, 2)
        _dilate(self.layer4, 4)
        self.mid_channels = sum(stage[-1].conv3.out_channels for stage in (net.layer3, net.layer2))

    def shallow(self, images: Tensor) -> Tensor:
        """Layer2, at stride 8."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features: Tensor = self.layer2(self.layer1(stem))
        return features

    @property
    def mid_blocks(self) -> nn.Sequential:
        """The blocks of ``mid`` after ``shallow``."""
        blocks: nn.Sequential = self.layer3
        return blocks

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Layer3 and layer2, both at stride 8."""
        shallow = self.shallow(images)
        return self.mid_blocks(shallow), shallow

    @property
    def high_blocks(self) -> nn.Sequential:
        """The blocks of ``high``."""
        blocks: nn.Sequential = self.layer4
        return blocks

    def high(self, deepest: Tensor) -> Tensor:
        """Layer4, at stride 8."""
        features: Tensor = self.high_blocks(deepest)
        return features


class VGGBackbone(nn.Module):
    """VGG-16 with batch norm, with PFENet's rounding up in its max-pools and without the last of them.

    Mid-level maps are the fourth stage (stride 16) and the third (stride 8), the high-level map is the fifth stage
    (stride 16). State dict keys are torchvision's ``features``.

    Args:
        net: torchvision's ``vgg16_bn``; its parts are taken over and changed.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    mid_channels = 512 + 256

    def __init__(self, net: tv.VGG) -> None:
        super().__init__()
        self.features = net.features[:43]
        for module in self.features:
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The fourth and the third stage, each after its max-pool."""
        shallow = self.features[:24](images)
        return self.features[24:34](shallow), shallow

    @property
    def high_blocks(self) -> nn.Sequential:
        """The blocks of ``high``."""
        blocks: nn.Sequential = self.features[34:]
        return blocks

    def high(self, deepest: Tensor) -> Tensor:
        """The fifth stage, without its max-pool."""
        features: Tensor = self.high_blocks(deepest)
        return features


class MobileNetV2Backbone(nn.Module):
    """MobileNetV2 with its last two strides dilated away, a backbone for laptops.

    Mid-level maps are the 96-channel stage and the 32-channel stage, the high-level map is the last convolution's
    1280 channels, all at stride 8. State dict keys are torchvision's ``features``.

    Args:
        net: torchvision's ``mobilenet_v2``; its parts are taken over and changed.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    mid_channels = 96 + 32

    def __init__(self, net: tv.MobileNetV2) -> None:
        super().__init__()
        self.features = net.features
        _dilate(self.features[7:14], 2)
        _dilate(self.features[14:18], 4)

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of blocks 13 and 6."""
        shallow = self.features[:7](images)
        return self.features[7:14](shallow), shallow

    @property
    def high_blocks(self) -> nn.Sequential:
        """The blocks of ``high``."""
        blocks: nn.Sequential = self.features[14:]
        return blocks

    def high(self, deepest: Tensor) -> Tensor:
        """The last convolution, after ReLU6 and so never negative."""
        features: Tensor = self.high_blocks(deepest)
        return features


class TimmBackbone(nn.Module):
    """A convolutional feature extractor of timm, cut where a support's mask has to go in.

    Of its last three maps the middle and the first are mid-level, the last is high-level. State dict keys are the
    extractor's below ``extractor``.

    Args:
        extractor: What ``timm.create_model(name, features_only=True)`` gives; with ``output_stride=8``, where timm
            offers it, maps are as fine as PFENet's.

    Raises:
        ValueError: If the extractor gives fewer than three maps or is not a plain chain of stages.

    Example:
        >>> import timm, torch
        >>> backbone = TimmBackbone(timm.create_model("resnet18", features_only=True, output_stride=8))
        >>> [tuple(features.shape) for features in backbone.mid(torch.zeros(1, 3, 64, 64))]
        [(1, 256, 8, 8), (1, 128, 8, 8)]
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        info: Any = getattr(extractor, "feature_info", None)
        if info is None or len(info.channels()) < 3:
            raise ValueError(
                "extractor must be made with timm.create_model(..., features_only=True) and give at least three maps, "
                f"got {type(extractor).__name__}"
            )
        stages: dict[str, nn.Module] = {}
        for name, child in extractor.named_children():
            if name == "blocks":
                stages.update((f"blocks_{number}", block) for number, block in child.named_children())
            else:
                stages[name] = child
        positions = {name: position + 1 for position, name in enumerate(stages)}
        taps = [name.replace(".", "_") for name in info.module_name()[-3:]]
        if not set(taps) <= set(positions):
            raise ValueError(f"extractor must be a chain of stages {taps}, got {sorted(positions)}")

        self.extractor = extractor
        self._stages = list(stages.values())  # a plain list: the extractor owns the modules
        self._ends = [positions[tap] for tap in taps]
        self.mid_channels = sum(info.channels()[-3:-1])
        config = getattr(extractor, "pretrained_cfg", None) or {}
        self.mean = tuple(config.get("mean", IMAGENET_MEAN))
        self.std = tuple(config.get("std", IMAGENET_STD))

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The last map but one and the map before it."""
        first, second, _ = self._ends
        shallow = self._run(images, 0, first)
        return self._run(shallow, first, second), shallow

    def high(self, deepest: Tensor) -> Tensor:
        """The last map."""
        return self._run(deepest, self._ends[1], self._ends[2])

    def _run(self, features: Tensor, start: int, end: int) -> Tensor:
        for stage in self._stages[start:end]:
            features = stage(features)
        return features


def image_statistics(backbone: object) -> dict[str, tuple[float, ...]]:
    """``mean`` and ``std`` of the images that a backbone expects, as transforms take them; ImageNet's by default."""
    return {"mean": getattr(backbone, "mean", IMAGENET_MEAN), "std": getattr(backbone, "std", IMAGENET_STD)}


def make_backbone(name: str) -> Backbone:
    """A backbone by its name, with random weights.

    Args:
        name: One of `BACKBONES`.

    Raises:
        ValueError: If there is no backbone of that name.
        ImportError: If it needs timm, which is not installed.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)} or a module, got {name!r}")
    if name == "efficientnet_lite0":
        return efficientnet_lite0()
    kind = name.removesuffix("s")
    net: Any = getattr(tv, kind)(weights=None)
    if isinstance(net, tv.VGG):
        return VGGBackbone(net)
    if isinstance(net, tv.MobileNetV2):
        return MobileNetV2Backbone(net)
    return ResNetBackbone(net, deep_stem=name.endswith("s"))


BACKBONES = ("resnet50", "resnet101", "vgg16_bn", "mobilenet_v2", "efficientnet_lite0", "resnet50s", "resnet101s")
"""Names that `build_scnet` knows; the last two are PFENet's deep-stem ResNets."""


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


def _dilate(stage: nn.Module, dilation: int) -> None:
    """Trade the stage's stride for dilation, in every convolution."""
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            conv.stride = (1, 1)
            if conv.kernel_size != (1, 1):
                conv.dilation = (dilation, dilation)
                conv.padding = tuple(dilation * (side // 2) for side in conv.kernel_size)
