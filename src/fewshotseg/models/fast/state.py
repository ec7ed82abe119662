"""Detects changes of a network, so that a speed-up made from it can be rebuilt."""

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
"""A number for each class, as two classes of one name may differ, for example after an edit in a notebook."""


class State:
    """A snapshot of a network's modules, their attributes and their tensors.

    Args:
        network: Any module.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = list(network.modules())
        self._attributes = [dict(module.__dict__) for module in self._modules]
        # If a module gets other dicts than these, its attributes differ.
        self._children = [module.__dict__[name] for module in self._modules for name in CHILDREN]
        self._hooks = [module.__dict__[name] for module in self._modules for name in HOOKS]
        tensors = [
            tensor
            for module in self._modules
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        ]
        self._tracked = [tensor for tensor in tensors if _tracked(tensor)]
        self._addressed = [tensor for tensor in self._tracked if tensor.layout == torch.strided]
        self._probes = [_middle(tensor) for tensor in tensors if tensor.is_floating_point() and _readable(tensor)]
        self._found = self._look()
        self._values = self._probed()

    def holds(self) -> bool:
        """Whether nothing has changed; takes a fraction of a millisecond and no host-device synchronisation.

        Writing through ``parameter.data`` leaves no trace. On a CPU one value of each tensor is compared, which detects
        such a change of a whole tensor.
        """
        for module, before in zip(self._modules, self._attributes, strict=True):
            try:
                if module.__dict__ != before:
                    return False
            except (RuntimeError, ValueError, TypeError):  # an attribute is an array, which has been replaced
                return False
        return self._look() == self._found and torch.equal(self._probed(), self._values)

    def _look(self) -> list[object]:
        """Collect the identities of children, hooks and tensors, and the versions of tensors."""
        return [
            any_global_hook(),
            *map(id, itertools.chain.from_iterable(children.values() for children in self._children)),
            *map(len, self._hooks),
            *map(Tensor.data_ptr, self._addressed),
            *(tensor._version for tensor in self._tracked),
        ]

    def _probed(self) -> Tensor:
        if not self._probes:
            return torch.empty(0)
        with without_autocast(self._probes[0]):
            return torch.cat(self._probes)


def digest(network: nn.Module) -> bytes:
    """Compute a digest of a network's modules, settings and tensors; equal networks have equal digests.

    A network with hooks, or with attributes other than modules, tensors and plain values, gets a unique digest.
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


def _readable(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and is_eager_cpu(tensor.data) and tensor.numel() > 0


def _middle(tensor: Tensor) -> Tensor:
    """Return the middle value of a tensor, as a view."""
    return tensor.detach()[tuple(side // 2 for side in tensor.shape)].reshape(1)
