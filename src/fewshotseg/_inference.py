"""Running a model for its answers, whatever mode the caller left it in."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

_lock = Lock()
_running: dict[int, tuple[nn.Module, int, bool]] = {}
"""By a module's id: the module, how many inferences it takes part in, and the mode that it gets back after them."""


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, no gradient. Afterwards every module's own mode is what it was.

    Several threads may run the same model, or models that share modules: modes come back when the last one is done.
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
    """A tensor with the device and the dtype that the model's images should have."""
    return next(model.parameters(), torch.zeros(()))


def at_once(weight: Tensor) -> int:
    """How many images of a list go through the model together: on a CPU more than one is no faster."""
    return 1 if weight.device.type == "cpu" else 8
