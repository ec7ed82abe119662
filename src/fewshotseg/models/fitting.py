"""Checks that a state dict fits a model, before anything of the model changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewshotseg._checks import shown

COUNTER = "num_batches_tracked"
"""A batch norm's counter, which files from before PyTorch 0.4.1 lack, and which weights do not depend on."""


def load_checked(model: nn.Module, state: Mapping[str, Tensor], source: object, *, strict: bool) -> None:
    """Load a state dict; if it does not fit, raise and leave the model unchanged.

    Counters of batch norms may be missing.

    Args:
        model: Any module.
        state: The state dict.
        source: The name of the state dict in messages.
        strict: Refuse missing and unknown entries too.

    Raises:
        ValueError: If the state dict does not fit, or a tensor has no values that can be copied.
    """
    state = {without_compiled(key): value for key, value in state.items()}
    named = {without_compiled(key): value for key, value in model.state_dict().items()}
    check_fits(without_missing_counters(named, state), state, source, strict=strict)
    load_fitting(model, state, source)


def load_fitting(model: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Load a state dict that is known to fit, with keys of `without_compiled`; raise if weights cannot be written."""
    own = model.state_dict()
    for key, value in own.items():
        if value.device.type == "meta" or (value.is_inference() and not torch.is_inference_mode_enabled()):
            made = "on the meta device" if value.device.type == "meta" else "made in inference mode"
            raise ValueError(f"model must have weights that can be written for {source}, but {key} was {made}")
    names = {without_compiled(key): key for key in own}
    model.load_state_dict({names[name]: value for name, value in state.items() if name in names}, strict=False)


def without_missing_counters(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out of ``own`` the counters of batch norms that ``state`` lacks."""
    return {key: value for key, value in own.items() if key in state or not key.endswith(COUNTER)}


def without_compiled(key: str) -> str:
    """Remove what `torch.compile` puts before the keys of a compiled part of a model."""
    return key.replace("_orig_mod.", "")


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: object, *, strict: bool) -> None:
    """Raise `ValueError` unless a state dict has the keys, shapes and kinds of numbers of ``own``, all finite."""
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    common = sorted(own.keys() & state.keys())
    if own and not common:
        raise ValueError(
            f"{source} must fit the model, but has none of its entries, such as {shown(missing[0])}; it has "
            f"{shown(unexpected[0]) if unexpected else 'none at all'}"
        )
    for key in common:
        check_ordinary(key, state[key] if isinstance(own[key], Tensor) else own[key], source)
    reshaped = [key for key in common if own[key].shape != state[key].shape]
    if reshaped:
        key = reshaped[0]
        raise ValueError(
            f"{source} must fit the model, but {len(reshaped)} entries have another shape, such as {key}: "
            f"{tuple(own[key].shape)} in the model, {tuple(state[key].shape)} in the file"
        )
    if strict and (missing or unexpected):
        kinds = (("lacks", missing), ("also has", unexpected))
        examples = [f"{kind} {shown(keys[0])}" for kind, keys in kinds if keys]
        raise ValueError(
            f"{source} must fit the model, but {len(missing)} entries are missing and {len(unexpected)} are unknown: "
            f"it {' and '.join(examples)}"
        )
    for key in common:
        fault = _fault(own[key], state[key])
        if fault:
            raise ValueError(f"{source} must hold weights that a model can have, but {key} {fault}")


def check_ordinary(key: str, value: Any, source: object) -> None:
    """Raise `ValueError` unless ``value`` is a dense tensor with values that can be copied."""
    if not isinstance(value, Tensor):
        fault = f"is no tensor but {type(value).__name__}"
    elif value.is_nested or value.layout != torch.strided or value.is_quantized or _is_quantized_by_others(value):
        fault = "is nested, sparse or quantized"
    elif value.device.type == "meta":
        fault = "has no values (device meta)"
    else:
        return
    raise ValueError(f"{source} must hold weights that a model can have, but {shown(key)} {fault}")


def _is_quantized_by_others(value: Tensor) -> bool:
    """Whether this is a tensor of torchao, whose values cannot be copied as numbers."""
    return type(value).__module__.partition(".")[0] == "torchao"


def _fault(own: Tensor, given: Tensor) -> str | None:
    if given.is_complex() or own.is_floating_point() != given.is_floating_point():
        wanted = "floating-point numbers" if own.is_floating_point() else "integers"
        return f"must hold {wanted}, got {given.dtype}"
    if given.is_floating_point() and not bool(given.to(own.dtype).isfinite().all()):
        return f"holds NaN, infinity or numbers that {own.dtype} cannot hold"
    return None
