"""Detects changes of a network, so that a speed-up made from it can be rebuilt."""

import hashlib
import itertools
import uuid
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from fewshotseg._checks import FLOATS
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
        self._attributes = [_copied(module) for module in self._modules]
        # If a module gets other dicts than these, its attributes differ.
        self._children = [module.__dict__[name] for module in self._modules for name in CHILDREN]
        self._hooks = [module.__dict__[name] for module in self._modules for name in HOOKS]
        tensors = [
            tensor
            for module in self._modules
            for tensor in (*module._parameters.values(), *module._buffers.values(), *module.__dict__.values())
            if isinstance(tensor, Tensor)
        ]
        self._tracked = [tensor for tensor in tensors if _tracked(tensor)]
        self._addressed = [tensor for tensor in self._tracked if tensor.layout == torch.strided]
        self._probes = [_middle(tensor) for tensor in tensors if _readable(tensor)]
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
        return self._look() == self._found and (not self._probes or torch.equal(self._probed(), self._values))

    def _look(self) -> list[object]:
        """Collect the types of modules, the identities of children, hooks and tensors, and the versions of tensors."""
        return [
            any_global_hook(),
            *map(type, self._modules),
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


def digest(network: nn.Module) -> bytes | None:
    """Compute a digest of a network's modules, settings and tensors; equal networks have equal digests.

    A network with attributes other than modules, tensors and plain values gets a unique digest. One with hooks, which
    may do something else at each call, has none, nor has one with tensors that cannot be read, such as fake ones or
    those of a subclass.
    """
    if any_global_hook() or any(module.__dict__[name] for module in network.modules() for name in HOOKS):
        return None
    found = hashlib.sha256()
    alike = True
    for name, module in network.named_modules(remove_duplicate=False):
        settings = {key: value for key, value in module.__dict__.items() if key not in CHILDREN}
        alike = alike and all(map(_is_plain, settings.values()))
        found.update(f"{name} {_numbers.setdefault(type(module), next(_count))} {settings}".encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not is_real(tensor) or type(tensor) not in (Tensor, nn.Parameter):
            return None
        if tensor.layout == torch.strided and not tensor.is_quantized:
            values = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1)
            found.update(values.view(torch.uint8).numpy().tobytes())
        else:
            alike = False
    return found.digest() if alike else uuid.uuid4().bytes


def _copied(module: nn.Module) -> dict[str, Any]:
    """Copy a module's attributes, with all lists, dicts and sets inside; `_look` looks at children and hooks."""
    return {
        name: value if name in (*CHILDREN, *HOOKS) else _copied_value(value) for name, value in module.__dict__.items()
    }


def _copied_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied_value(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copied_value, value))
    return set(value) if type(value) is set else value


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(part) for item in value.items() for part in item)
    if isinstance(value, (tuple, list, set)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _tracked(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_inference()


def is_real(tensor: Tensor) -> bool:
    """Whether a tensor has values that do not depend on a mode or transform that is active."""
    fake = tensor.device.type == "meta" or isinstance(tensor, FakeTensor)
    return not fake and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _readable(tensor: Tensor) -> bool:
    ordinary = tensor.layout == torch.strided and tensor.dtype in FLOATS and is_real(tensor)
    return ordinary and is_eager_cpu(tensor.data) and tensor.numel() > 0


def _middle(tensor: Tensor) -> Tensor:
    """Return the middle value of a tensor, as a view."""
    return tensor.detach()[tuple(side // 2 for side in tensor.shape)].reshape(1)
