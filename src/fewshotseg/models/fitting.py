"""Does a state dict fit a model? Asked before anything of the model changes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def load_checked(model: nn.Module, state: Mapping[str, Tensor], source: object, *, strict: bool) -> None:
    """Load a state dict that fits; a model that it does not fit stays exactly as it was.

    Args:
        model: Any module.
        state: Names and tensors.
        source: What to call the state dict in messages.
        strict: Refuse missing and unknown entries too.

    Raises:
        ValueError: If the state dict does not fit, or a tensor has no values that can be copied.
    """
    own = model.state_dict()
    check_fits(own, state, source, strict=strict)
    model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: object, *, strict: bool) -> None:
    """Raise `ValueError` unless a state dict has the names, shapes and kinds of numbers of ``own``, all finite."""
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    common = sorted(own.keys() & state.keys())
    reshaped = [key for key in common if own[key].shape != state[key].shape]
    if reshaped:
        key = reshaped[0]
        raise ValueError(
            f"{source} must fit the model, but {len(reshaped)} entries have another shape, such as {key}: "
            f"{tuple(own[key].shape)} in the model, {tuple(state[key].shape)} in the file"
        )
    if strict and (missing or unexpected):
        examples = [f"{kind} {keys[0]}" for kind, keys in (("lacks", missing), ("also has", unexpected)) if keys]
        raise ValueError(
            f"{source} must fit the model, but {len(missing)} entries are missing and {len(unexpected)} are unknown: "
            f"it {' and '.join(examples)}"
        )
    for key in common:
        fault = _fault(own[key], state[key])
        if fault:
            raise ValueError(f"{source} must hold weights that a model can have, but {key} {fault}")


def _fault(own: Tensor, given: Tensor) -> str | None:
    if given.layout != torch.strided or given.is_quantized:
        return f"is {'quantized' if given.is_quantized else 'sparse'}"
    if given.device.type == "meta":
        return "has no values (device meta)"
    if given.is_complex() or own.is_floating_point() != given.is_floating_point():
        wanted = "floating-point numbers" if own.is_floating_point() else "integers"
        return f"must hold {wanted}, got {given.dtype}"
    if given.is_floating_point() and not bool(given.to(own.dtype).isfinite().all()):
        return f"holds NaN, infinity or numbers that {own.dtype} cannot hold"
    return None
