"""The one way arguments are refused: the argument, what it must be, what came."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_tensor(name: str, value: Tensor, *layouts: str) -> None:
    """Raise unless ``value`` is a tensor with the axes of one of ``layouts``, such as ``"B C H W"``."""
    expected = " or ".join(f"({', '.join(layout.split())})" for layout in layouts)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {expected}, got {type(value).__name__}")
    if value.ndim not in {len(layout.split()) for layout in layouts}:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(value.shape)}")


def check_floating(name: str, value: Tensor) -> None:
    """Raise unless ``value`` holds real floating-point numbers."""
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")


def check_labels(name: str, value: Tensor) -> None:
    """Raise unless ``value`` holds integers or bools."""
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name} must hold integers or bools, got {value.dtype}")


def check_sizes(name: str, value: Tensor, axes: str, like: Tensor, like_name: str, like_axes: str = "") -> None:
    """Raise unless ``value`` and ``like`` agree on every axis letter that both carry.

    ``axes`` and ``like_axes`` (default: the same letters) name the leading axes of the two, as in ``"B H W"``.
    """
    names, like_names = axes.split(), (like_axes or axes).split()
    sizes = dict(zip(like_names, like.shape[: len(like_names)], strict=True))
    for axis, size in zip(names, value.shape[: len(names)], strict=True):
        if sizes.get(axis, size) != size:
            raise ValueError(
                f"{name} must have the {axis} of {like_name}, {sizes[axis]}, got shape {tuple(value.shape)}"
            )


def check_at_least(name: str, value: int, minimum: int) -> None:
    """Raise unless ``value`` is a whole number of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_share(name: str, value: object, *, open_ends: bool = False) -> None:
    """Raise unless ``value`` is a number from 0 to 1; with ``open_ends`` both excluded."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not (0 < value < 1 if open_ends else 0 <= value <= 1):
        raise ValueError(
            f"{name} must be {'between 0 and 1, both excluded' if open_ends else 'from 0 to 1'}, got {value}"
        )


def check_floating_dtype(name: str, value: object) -> None:
    """Raise unless ``value`` is None or a dtype of real floating-point numbers."""
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise TypeError(f"{name} must be a floating-point dtype such as torch.float16, or None, got {value!r}")


def checked_device(device: object) -> torch.device:
    """The device of that name, which has to be there.

    Raises:
        ValueError: If there is no such device.
        TypeError: If ``device`` is no name and no device.
    """
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a name such as 'cpu' or 'cuda:0', got {device!r}")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"device must be one that this machine has, such as 'cpu', got {str(device)!r}") from error
    return found
