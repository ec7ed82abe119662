"""What a shortcut was made from, to notice that it has changed."""

import hashlib

import torch
from torch import Tensor, nn

from fewshotseg.models.fast.untouched import HOOKS, any_global_hook
from fewshotseg.ops._precision import is_eager_cpu


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
            except RuntimeError:  # a tensor as an attribute, which is another one now
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
        found += [(tensor.data_ptr(), tensor._version) for tensor in self._tensors if _tracked(tensor)]
        return found

    def _probed(self) -> Tensor:
        return torch.cat(self._probes) if self._probes else torch.empty(0)


def digest(network: nn.Module) -> bytes:
    """Changes with a tensor, a module or a setting of a network; the same for networks that are alike."""
    found = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return found.digest()


def _tracked(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_inference()


def _at_hand(tensor: Tensor) -> bool:
    return is_eager_cpu(tensor.data) and tensor.numel() > 0


def _middle(tensor: Tensor) -> Tensor:
    """One value of a tensor, as a view of it."""
    return tensor.detach()[tuple(side // 2 for side in tensor.shape)].reshape(1)
