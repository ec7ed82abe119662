"""Whether a module does what its class says and nothing more, so that a shortcut may stand in for calling it."""

from torch import nn
from torch.nn.modules import module as globally

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def is_untouched(module: nn.Module) -> bool:
    """True without hooks, its own or for all modules, and without a ``forward`` that was put on the instance."""
    own = module.__dict__
    return "forward" not in own and not any(own[name] for name in HOOKS) and not any_global_hook()


def any_global_hook() -> bool:
    """Whether hooks stand for the calls of every module."""
    return bool(
        globally._global_forward_hooks
        or globally._global_forward_pre_hooks
        or globally._global_backward_hooks
        or globally._global_backward_pre_hooks
    )
