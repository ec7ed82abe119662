"""Collects the output of every block of a backbone, for models that compare many layers (HSNet, VAT)."""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from fewshotseg._checks import as_list, check_flag, check_floating, check_tensor, name_some, shown
from fewshotseg.models.backbones.staged import StagedBackbone
from fewshotseg.ops._precision import is_in_graph

RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
RESIDUAL = (BasicBlock, Bottleneck)


def feature_maps(
    backbone: nn.Module, images: Tensor, stages: Sequence[str] | None = None, *, relu: bool = True
) -> dict[str, Tensor]:
    """Run a backbone, and return the output of each of its blocks.

    Args:
        backbone: A backbone of the package (`build_backbone`), a `TimmBackbone`, another `StagedBackbone`, or a ResNet
            of torchvision, whose last two maps are coarser, as it is not dilated.
        images: ``(B, 3, H, W)`` normalised images.
        stages: Names of blocks to return, or beginnings of names, such as ``("layer2", "layer3")``; all by default.
            Later blocks are not computed.
        relu: False returns the maps before the last ReLU of each residual block, which may be negative, as HSNet uses
            them; for torchvision's blocks only.

    Returns:
        Name of the block -> its map ``(B, C, h, w)``, in order. Maps that the next module overwrites in place are left
        out. Gradients flow if parameters or images require them. Hooks of blocks run; hooks of a whole stage do not.

    Raises:
        ValueError: If ``stages`` names no block, or ``relu`` is False and the backbone has no residual blocks of
            torchvision.
        TypeError: If the backbone is of another kind, or images are not floating point.

    Example:
        >>> import torch
        >>> from fewshotseg import build_backbone
        >>> maps = feature_maps(build_backbone("resnet50"), torch.zeros(1, 3, 64, 64), ("layer2", "layer3", "layer4"))
        >>> len(maps), tuple(maps["layer4.2"].shape)
        (13, (1, 2048, 8, 8))
    """
    if not isinstance(backbone, StagedBackbone | ResNet):
        raise TypeError(
            f"backbone must run its stages one after the other, as a StagedBackbone or a ResNet of torchvision, "
            f"got {type(backbone).__name__}"
        )
    check_tensor("images", images, "B 3 H W")
    check_floating("images", images)
    relu = check_flag("relu", relu)
    blocks = list(_blocks(backbone))
    if not relu and not any(type(block) in RESIDUAL for _, block in blocks):
        raise ValueError("relu must be True for a backbone without residual blocks of torchvision's")
    beginnings = ("",) if stages is None else _beginnings(stages)
    wanted = [name.startswith(beginnings) for name, _ in blocks]
    if not any(wanted):
        raise ValueError(f"stages must name some of {name_some([name for name, _ in blocks])}, got {shown(stages)}")
    blocks = blocks[: len(wanted) - wanted[::-1].index(True)]

    kept: dict[str, Tensor] = {}
    features, before = images, None
    for number, (name, block) in enumerate(blocks):
        overwritten = any(getattr(following, "inplace", False) for _, following in blocks[number + 1 : number + 2])
        given = features
        if not relu and type(block) in RESIDUAL:
            total = _before_relu(block, features)
            features = block.relu(total.clone())
        else:
            total = features = block(features)
        if before != _version(given):  # a module inside of this block has overwritten its input
            kept.pop(blocks[number - 1][0], None)
        if wanted[number] and not overwritten:
            kept[name] = total
        before = _version(features)
    return kept


def _version(maps: Tensor) -> int | None:
    """Return a number that grows when maps are written to; None where PyTorch does not count."""
    return None if is_in_graph() or maps.is_inference() else maps._version


def _blocks(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the names and modules that run one after the other; an ``nn.Sequential`` is replaced by its children."""
    names = chain.from_iterable(backbone.stages.values()) if isinstance(backbone, StagedBackbone) else RESNET
    for name in names:
        module: Any = reduce(getattr, name.split("."), backbone)
        if type(module) is nn.Sequential:
            yield from ((f"{name}.{child_name}", child) for child_name, child in module.named_children())
        else:
            yield name, module


def _beginnings(stages: Any) -> tuple[str, ...]:
    names = as_list("stages", stages, "a list of names, such as ('layer2', 'layer3')")
    return tuple(str(name) for name in names)


def _before_relu(block: Any, features: Tensor) -> Tensor:
    """Compute the output of a residual block of torchvision before its last ReLU."""
    inner = block.relu(block.bn1(block.conv1(features)))
    inner = block.bn2(block.conv2(inner))
    if isinstance(block, Bottleneck):
        inner = block.bn3(block.conv3(block.relu(inner)))
    total: Tensor = inner + (features if block.downsample is None else block.downsample(features))
    return total
