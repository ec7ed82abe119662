"""Frozen norms folded into the convolutions before them: the features of a backbone for less work."""

import copy
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

PROBE_SIDE = 64
"""Pixels of the image on which a backbone shows what follows what."""

_copies: WeakKeyDictionary[nn.Module, tuple[object, Any]] = WeakKeyDictionary()


def folded(backbone: Any) -> Any:
    """A copy of a frozen backbone that gives the same features faster, to rounding.

    Batch norms that directly follow a convolution are folded into it, and on a CPU weights are channels-last. The copy
    is made at the first call and whenever a weight has changed since; it goes with the backbone, which itself is never
    changed. A backbone in training mode, under a compiler, or of anything but plain parameters is returned as it is.

    Args:
        backbone: What follows `Backbone`.

    Example:
        >>> import torch, fewshotseg
        >>> backbone = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8).eval().backbone
        >>> images = torch.rand(1, 3, 65, 65)
        >>> torch.allclose(folded(backbone).mid(images)[0], backbone.mid(images)[0], atol=1e-5)
        True
    """
    if backbone.training or torch.compiler.is_compiling():
        return backbone
    tensors = [*backbone.parameters(), *backbone.buffers()]
    if not tensors or any(type(tensor) not in (Tensor, nn.Parameter) or tensor.is_inference() for tensor in tensors):
        return backbone
    state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
    known, made = _copies.get(backbone, (None, None))
    if known != state:
        made = _fold(backbone, tensors[0])
        _copies[backbone] = state, made
    return made


@torch.no_grad()
def _fold(backbone: Any, weight: Tensor) -> Any:
    # The copy has modules of its own, and weights of its own only where they differ: no third set at any moment.
    shared = [*backbone.parameters(), *backbone.buffers()]
    made = copy.deepcopy(backbone, {id(tensor): tensor for tensor in shared})
    with _Order() as order:
        order.outputs = made.mid(weight.new_zeros(1, 3, PROBE_SIDE, PROBE_SIDE))
        order.outputs += (made.high(order.outputs[0]),)

    names = {module: name for name, module in made.named_modules()}
    norms = {norm.running_mean: norm for norm in names if _is_foldable(norm)}
    for conv in [module for module in names if isinstance(module, nn.Conv2d)]:
        norm = norms.get(order.only_norm_of(conv.weight))
        if norm is not None:
            made.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
            made.set_submodule(names[norm], nn.Sequential(*norm.children()))
    for conv in made.modules():
        if isinstance(conv, nn.Conv2d) and weight.device.type == "cpu":
            channels_last = conv.weight.to(memory_format=torch.channels_last)
            conv.weight = nn.Parameter(channels_last, requires_grad=False)
    return made


def _is_foldable(module: nn.Module) -> bool:
    """A plain batch norm, or timm's, whose activation is a child that comes after the norm."""
    after = dict(module.named_children()).keys()
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and after in (set(), {"drop", "act"})


class _Order(TorchFunctionMode):
    """Watches a forward pass: which norm takes up what a convolution gave, and who else does."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: tuple[Tensor, ...] = ()
        self._results: dict[Tensor, list[Tensor]] = {}
        self._norms: dict[Tensor, Tensor | None] = {}
        self._uses: Counter[Tensor] = Counter()

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self._uses.update(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if func is F.conv2d:
            self._results.setdefault(args[1], []).append(result)
        elif func is F.batch_norm:
            self._norms[args[0]] = args[1]
        return result

    def only_norm_of(self, weight: Tensor) -> Tensor | None:
        """The running mean of the norm that alone takes up what the convolution of ``weight`` gave, if there is one."""
        results = self._results.get(weight, [])
        if len(results) != 1 or self._uses[results[0]] != 1 or any(results[0] is output for output in self.outputs):
            return None
        return self._norms.get(results[0])
