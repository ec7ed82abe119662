"""Runs a model in evaluation mode, whatever mode the caller left it in."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

_lock = Lock()
_running: dict[int, tuple[nn.Module, int, bool]] = {}
"""A module's id -> the module, the number of running inferences with it, and the mode to restore afterwards."""


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode without gradients; afterwards restore the mode of every module.

    Several threads may run the same model, or models that share modules: modes are restored when the last one ends.
    """
    modules = list(model.modules())
    with _lock:
        for module in modules:
            _, users, mode = _running.get(id(module), (module, 0, module.training))
            _running[id(module)] = module, users + 1, mode
            module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        with _lock:
            for module in modules:
                _, users, mode = _running.pop(id(module))
                if users > 1:
                    _running[id(module)] = module, users - 1, mode
                else:
                    module.training = mode


def example_weight(model: nn.Module) -> Tensor:
    """Return a parameter, whose device and dtype the model's images must have."""
    return next(model.parameters(), torch.zeros(()))


def at_once(weight: Tensor) -> int:
    """Return the batch size for a list of images: on a CPU more than one is not faster."""
    return 1 if weight.device.type == "cpu" else 8
