"""What a shortcut was made from, to notice that it has changed."""

import hashlib
import itertools
import uuid
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fewshotseg.models.fast.untouched import HOOKS, any_global_hook
from fewshotseg.ops._precision import is_eager_cpu, without_autocast

CHILDREN = ("_modules", "_parameters", "_buffers")

_count = itertools.count()
_numbers: WeakKeyDictionary[type, int] = WeakKeyDictionary()
"""A number for each class: two of one name, as after a change in a notebook, may compute different things."""


class State:
    """The modules of a network, their settings and their tensors, as they are now.

    Args:
        network: Any module.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = list(network.modules())
        self._attributes = [dict(module.__dict__) for module in self._modules]
        self._tensors = [
            tensor
            for module in self._modules
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        ]
        self._probes = [_middle(tensor) for tensor in self._tensors if tensor.is_floating_point() and _at_hand(tensor)]
        self._found = self._look()
        self._values = self._probed()

    def holds(self) -> bool:
        """Whether everything is as it was. Without host-device synchronisation, in a fraction of a millisecond.

        What is written through ``parameter.data`` leaves no trace. On a CPU one value of each tensor is looked at, so
        that a change of whole tensors is noticed all the same.
        """
        for module, before in zip(self._modules, self._attributes, strict=True):
            try:
                if module.__dict__ != before:
                    return False
            except (RuntimeError, ValueError, TypeError):  # an array as an attribute, which is another one now
                return False
        return self._look() == self._found and torch.equal(self._probed(), self._values)

    def _look(self) -> list[object]:
        """Children, hooks and tensors by identity, and the tensors' versions."""
        found: list[object] = [any_global_hook()]
        for module in self._modules:
            own = module.__dict__
            found += map(id, own["_modules"].values())
            found += map(id, own["_parameters"].values())
            found += map(id, own["_buffers"].values())
            found += [len(own[name]) for name in HOOKS if own[name]]
        found += [(_address(tensor), tensor._version) for tensor in self._tensors if _tracked(tensor)]
        return found

    def _probed(self) -> Tensor:
        if not self._probes:
            return torch.empty(0)
        with without_autocast(self._probes[0]):
            return torch.cat(self._probes)


def digest(network: nn.Module) -> bytes:
    """Changes with a tensor, a module or a setting of a network; the same for networks that are alike.

    A network with hooks, or with anything but modules, tensors and plain values, is like no other.
    """
    found = hashlib.sha256()
    alike = not any_global_hook()
    for name, module in network.named_modules(remove_duplicate=False):
        settings = {key: value for key, value in module.__dict__.items() if key not in CHILDREN}
        alike = alike and all(map(_is_plain, settings.values()))
        found.update(f"{name} {_numbers.setdefault(type(module), next(_count))} {settings}".encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.layout == torch.strided and not tensor.is_quantized:
            found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            alike = False
    return found.digest() if alike else uuid.uuid4().bytes


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(part) for item in value.items() for part in item)
    if isinstance(value, (tuple, list, set)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _tracked(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_inference()


def _address(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout == torch.strided else 0


def _at_hand(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and is_eager_cpu(tensor.data) and tensor.numel() > 0


def _middle(tensor: Tensor) -> Tensor:
    """One value of a tensor, as a view of it."""
    return tensor.detach()[tuple(side // 2 for side in tensor.shape)].reshape(1)
