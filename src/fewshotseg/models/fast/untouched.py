"""Tells whether calling a module may be replaced by an equivalent computation."""

from torch import nn
from torch.nn.modules import module as globally
from torch.nn.modules.batchnorm import _BatchNorm

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def is_untouched(module: nn.Module) -> bool:
    """Whether a module has no hooks, own or global, and no replaced ``forward``."""
    own = module.__dict__
    return "forward" not in own and not any(own[name] for name in HOOKS) and not any_global_hook()


def treats_images_alone(network: nn.Module) -> bool:
    """Whether features do not depend on the other images of a batch.

    They do if a batch norm takes its statistics from the batch, or a layer is quantized by its inputs' range.
    """
    return not any(
        (isinstance(module, _BatchNorm) and module.running_mean is None)
        or type(module).__module__.startswith("torch.ao.nn.quantized.dynamic")
        for module in network.modules()
    )


def any_global_hook() -> bool:
    """Whether a global hook is registered for all modules."""
    return bool(
        globally._global_forward_hooks
        or globally._global_forward_pre_hooks
        or globally._global_backward_hooks
        or globally._global_backward_pre_hooks
    )
