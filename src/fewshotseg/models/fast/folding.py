"""Folds the frozen norms of a backbone into the convolutions before them."""

import copy
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fewshotseg.models.backbones import StagedBackbone, TimmBackbone
from fewshotseg.models.fast.fused_relu import fused, on_tensor_cores
from fewshotseg.models.fast.untouched import is_untouched, treats_images_alone

CONVOLUTIONS = ("torch.nn.modules.conv.Conv2d", "timm.layers.conv2d_same.Conv2dSame")
CONV_NORM = {
    "torchvision.models.mobilenetv2.InvertedResidual": (),
    "torchvision.models.resnet.BasicBlock": (("conv1", "bn1"), ("conv2", "bn2")),
    "torchvision.models.resnet.Bottleneck": (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    "timm.models.resnet.BasicBlock": (("conv1", "bn1"), ("conv2", "bn2")),
    "timm.models.resnet.Bottleneck": (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    "timm.models._efficientnet_blocks.ConvBnAct": (("conv", "bn1"),),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "timm.models._efficientnet_blocks.InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "timm.models._efficientnet_blocks.EdgeResidual": (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
}
"""Block -> pairs of a convolution and a norm where the norm is the only consumer of the convolution's output.

These blocks also call each ``nn.Sequential`` inside them as a whole.
"""


@torch.no_grad()
def folded(backbone: nn.Module, dtype: torch.dtype | None = None) -> StagedBackbone | None:
    """Make a faster backbone with the same features up to rounding, from the modules of this one.

    Batch norms that directly follow a convolution are folded into it. On a CPU convolutions are channels-last, and on a
    GPU too where they run on tensor cores; residual blocks are fused there. Unchanged modules are shared. The given
    backbone does not change.

    Args:
        backbone: A module that follows `Backbone`.
        dtype: Dtype of the convolutions' weights, for use under autocast, which would cast them at every call;
            unchanged by default.

    Returns:
        The faster backbone; None if its features could differ: the backbone is not a `StagedBackbone`, has hooks or a
        replaced ``forward``, is in training mode, has norms without running statistics, uses a module in two places,
        or holds special tensors.

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
    if not treats_images_alone(backbone):
        return None
    paths = sorted(f"{path}." for stage in backbone.stages.values() for path in stage)
    places = [*backbone.named_modules(remove_duplicate=False)]
    if len(places) > len({*backbone.modules()}) or any(after.startswith(path) for path, after in pairwise(paths)):
        return None
    tensors = [*backbone.parameters(), *backbone.buffers()]
    if not tensors or any(type(t) not in (Tensor, nn.Parameter) or t.is_inference() for t in tensors):
        return None
    made: StagedBackbone = _with_own_modules(backbone, paths)
    for stage in backbone.stages.values():
        for conv, norm in pairwise(stage):
            _fold(made, conv, norm)
    shared, fast = {*backbone.modules()}, on_tensor_cores(tensors[0], dtype)
    moves = fast or tensors[0].device.type == "cpu"
    _convert(made, dtype, torch.channels_last if moves else torch.preserve_format, shared=shared)
    if fast:
        _fuse_blocks(made, shared=shared)
    return made


def _convert(
    made: nn.Module, dtype: torch.dtype | None, layout: torch.memory_format, *, shared: Collection[nn.Module]
) -> None:
    """Convert the weights of convolutions to a dtype and layout, except in modules shared with the given backbone."""
    for module in made.modules():
        if _kind(module) in CONVOLUTIONS and module not in shared:
            for name, value in module._parameters.items():
                if value is not None:
                    its = layout if value.ndim == 4 else torch.preserve_format
                    module._parameters[name] = _frozen(value.to(dtype or value.dtype, memory_format=its))


def _fuse_blocks(made: nn.Module, *, shared: Collection[nn.Module]) -> None:
    for parent in [*made.modules()]:
        for name, child in parent._modules.items() if parent not in shared else ():
            if child is not None and child not in shared:
                parent._modules[name] = fused(child, CONV_NORM.get(_kind(child), ()))


def _with_own_modules(module: Any, paths: Sequence[str]) -> Any:
    """Copy a module, and the modules that the paths name; modules on the way are containers that are never called."""
    made = _shallow_copy(module)
    for name in {path.partition(".")[0] for path in paths}:
        deeper = [rest for first, _, rest in (path.partition(".") for path in paths) if first == name and rest]
        child = module._modules[name]
        made._modules[name] = _with_own_modules(child, deeper) if deeper else _folded_tree(child)
    return made


def _folded_tree(module: Any) -> Any:
    """Copy a module that is called as a whole, with the norms of known blocks and sequences folded."""
    is_sequence, kind = type(module).forward is nn.Sequential.forward, _kind(module)
    if kind in CONVOLUTIONS:
        return _shallow_copy(module)
    if not is_sequence and kind not in CONV_NORM:
        return module
    made = _shallow_copy(module)
    for name, child in module.named_children():
        made._modules[name] = _folded_tree(child)
    for conv, norm in pairwise(module._modules) if is_sequence else CONV_NORM[kind]:
        _fold(made, conv, norm)
    return made


def _fold(parent: nn.Module, conv_path: str, norm_path: str) -> None:
    """Fold a norm into the convolution before it; do nothing if the modules are of other kinds."""
    conv: Any = parent.get_submodule(conv_path)
    norm: Any = parent.get_submodule(norm_path)
    if not (_kind(conv) in CONVOLUTIONS and _is_foldable(norm)):
        return
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv._parameters = {"weight": _frozen(weight), "bias": _frozen(bias)}
    owner, _, name = norm_path.rpartition(".")
    parent.get_submodule(owner)._modules[name] = nn.Sequential(*norm.children()).eval()


def _is_foldable(norm: Any) -> bool:
    """Whether this is a batch norm with running statistics: torch's, or timm's with its activation as a child."""
    with_activation = _kind(norm) == "timm.layers.norm_act.BatchNormAct2d" and set(norm._modules) == {"drop", "act"}
    return (type(norm) is nn.BatchNorm2d or with_activation) and norm.running_mean is not None


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"


def _shallow_copy(module: nn.Module) -> nn.Module:
    made = copy.copy(module)
    made._modules, made._parameters = dict(module._modules), dict(module._parameters)
    return made


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
