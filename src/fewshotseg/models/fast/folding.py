"""Frozen norms folded into the convolutions before them: the features of a backbone for less work."""

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fewshotseg.models.backbones import StagedBackbone, TimmBackbone
from fewshotseg.models.fast.untouched import is_untouched

CONV_NORM = {
    "torchvision.models.resnet.BasicBlock": (("conv1", "bn1"), ("conv2", "bn2")),
    "torchvision.models.resnet.Bottleneck": (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    "timm.models.resnet.BasicBlock": (("conv1", "bn1"), ("conv2", "bn2")),
    "timm.models.resnet.Bottleneck": (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    "timm.models._efficientnet_blocks.ConvBnAct": (("conv", "bn1"),),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "timm.models._efficientnet_blocks.InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "timm.models._efficientnet_blocks.EdgeResidual": (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
}
"""Blocks of which is known that each of these norms, and nothing else, takes what the convolution beside it gives."""


@torch.no_grad()
def folded(backbone: nn.Module) -> StagedBackbone | None:
    """A backbone that gives the same features faster, to rounding, made of the modules of this one as they are now.

    Batch norms that directly follow a convolution are folded into it, and on a CPU convolutions are channels-last. What
    does not change is shared. The backbone itself stays as it is.

    Args:
        backbone: What follows `Backbone`.

    Returns:
        The faster backbone; None where it could differ from this one: one that is no `StagedBackbone`, has hooks or a
        ``forward`` put on an instance, is in training mode, or holds anything but plain tensors.

    Example:
        >>> import torch, fewshotseg
        >>> backbone = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8).eval().backbone
        >>> images = torch.rand(1, 3, 65, 65)
        >>> torch.allclose(folded(backbone).mid(images)[0], backbone.mid(images)[0], atol=1e-5)
        True
    """
    if type(backbone) not in (StagedBackbone, TimmBackbone) or not isinstance(backbone, StagedBackbone):
        return None
    if not all(is_untouched(module) and not module.training for module in backbone.modules()):
        return None
    tensors = [*backbone.parameters(), *backbone.buffers()]
    if not tensors or any(type(t) not in (Tensor, nn.Parameter) or t.is_inference() for t in tensors):
        return None
    made: StagedBackbone = _folded_tree(backbone)
    for stage in backbone.stages.values():
        for conv, norm in pairwise(stage):
            _fold(made, conv, norm)
    return made


def _folded_tree(module: Any) -> Any:
    """A copy that shares all tensors, with the norms of known blocks and sequences folded."""
    made = _shallow_copy(module)
    for name, child in module.named_children():
        made._modules[name] = _folded_tree(child)
    kind = type(module)
    pairs = CONV_NORM.get(f"{kind.__module__}.{kind.__name__}", ())
    if kind.forward is nn.Sequential.forward:
        pairs = tuple(pairwise(module._modules))
    for conv, norm in pairs:
        _fold(made, conv, norm)
    if kind is nn.Conv2d and made.weight.device.type == "cpu":
        made._parameters["weight"] = _frozen(made.weight.to(memory_format=torch.channels_last))
    return made


def _fold(parent: nn.Module, conv_path: str, norm_path: str) -> None:
    """Fold a norm, if it is one, into the convolution before it, if that is one."""
    conv: Any = parent.get_submodule(conv_path)
    norm: Any = parent.get_submodule(norm_path)
    if not (isinstance(conv, nn.Conv2d) and _is_foldable(norm)):
        return
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    layout = torch.channels_last if weight.device.type == "cpu" else torch.preserve_format
    conv._parameters = {"weight": _frozen(weight.to(memory_format=layout)), "bias": _frozen(bias)}
    owner, _, name = norm_path.rpartition(".")
    parent.get_submodule(owner)._modules[name] = nn.Sequential(*norm.children()).eval()


def _is_foldable(norm: Any) -> bool:
    """A batch norm with statistics of its own: torch's, or timm's, whose activation is a child that comes after."""
    after = set(norm._modules)
    kind = f"{type(norm).__module__}.{type(norm).__name__}"
    plain = type(norm) is nn.BatchNorm2d or (kind == "timm.layers.norm_act.BatchNormAct2d" and after == {"drop", "act"})
    return plain and norm.running_mean is not None


def _shallow_copy(module: nn.Module) -> nn.Module:
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
