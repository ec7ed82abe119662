"""Checks of arguments; a message names the argument, what it must be and what was given."""

import math
import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from reprlib import Repr
from typing import Any

import torch
from torch import Tensor

MAX_SIDE = 2**16
"""Largest side of maps and images in pixels, a limit that catches mistakes before memory runs out."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_short = Repr()
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 8
_short.maxstring = _short.maxother = 60


def shown(value: object) -> str:
    """Return ``repr(value)`` for a message, shortened to one line."""
    try:
        text = " ".join(_short.repr(value).split())
    except ValueError:  # an integer with more digits than Python prints
        return f"a number of about {int(value).bit_length() * 0.30103:.0f} digits" if isinstance(value, int) else "..."
    return text if len(text) <= 160 else f"{text[:157]}..."


def check_tensor(name: str, value: Tensor, *layouts: str) -> None:
    """Raise unless ``value`` is a dense tensor with the axes of one of ``layouts``, such as ``"B C H W"``.

    A batch may be empty; any other axis of size 0 is refused.
    """
    expected = " or ".join(f"({', '.join(layout.split())})" for layout in layouts)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {expected}, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        raise TypeError(f"{name} must be a dense tensor of shape {expected}, got a sparse or nested one")
    if value.ndim not in {len(layout.split()) for layout in layouts}:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(value.shape)}")
    if 0 in (value.shape[1:] if layouts[0].startswith("B") else value.shape):
        raise ValueError(f"{name} must have shape {expected} and hold something, got {tuple(value.shape)}")


def check_floating(name: str, value: Tensor) -> None:
    """Raise unless ``value`` holds real floating-point numbers of 16 bits or more."""
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be a floating-point tensor of 16 bits or more, got {value.dtype}")


def check_real(name: str, value: Tensor) -> None:
    """Raise unless ``value`` holds bools, integers or real floating-point numbers."""
    if value.is_complex() or (value.is_floating_point() and value.dtype not in FLOATS):
        raise TypeError(f"{name} must hold bools, integers or real numbers, got {value.dtype}")


def check_labels(name: str, value: Tensor) -> None:
    """Raise unless ``value`` holds integers or bools."""
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name} must hold integers or bools, got {value.dtype}")


def check_sizes(name: str, value: Tensor, axes: str, like: Tensor, like_name: str, like_axes: str = "") -> None:
    """Raise unless ``value`` and ``like`` are on one device and agree on every axis letter that both carry.

    ``axes`` and ``like_axes`` (default: the same letters) name the leading axes of the two, as in ``"B H W"``.
    """
    names, like_names = axes.split(), (like_axes or axes).split()
    sizes = dict(zip(like_names, like.shape[: len(like_names)], strict=True))
    for axis, size in zip(names, value.shape[: len(names)], strict=True):
        if sizes.get(axis, size) != size:
            raise ValueError(
                f"{name} must have the {axis} of {like_name}, {sizes[axis]}, got shape {tuple(value.shape)}"
            )
    if value.device != like.device:
        raise ValueError(f"{name} must be on the device of {like_name}, {like.device}, got {value.device}")


def check_at_least(name: str, value: int, minimum: int, maximum: int | None = None) -> int:
    """Return ``value`` as a Python integer; raise unless it is one from ``minimum`` to ``maximum``."""
    if isinstance(value, torch.SymInt) or (isinstance(value, Tensor) and torch.jit.is_tracing()):  # a traced size
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {shown(value)}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {shown(value)}")
    return int(value)


def check_number(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return ``value`` as a Python float; raise unless it is a finite real number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of floats
        number = math.inf
    if not (low <= number <= high and number < math.inf):
        expected = f"from {low:g} to {high:g}" if math.isfinite(high) else f"finite and at least {low:g}"
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")
    return number


def check_flag(name: str, value: bool) -> bool:
    """Return ``value`` as a Python bool; raise unless it is True or False."""
    if value is not True and value is not False and type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


def check_numbers(name: str, values: Iterable[float], count: int, low: float, high: float) -> tuple[float, ...]:
    """Return ``values`` as Python floats; raise unless they are ``count`` real numbers from ``low`` to ``high``."""
    listed = as_list(name, values, f"a list of {count} numbers")
    if len(listed) != count:
        raise ValueError(f"{name} must be {count} numbers, got {shown(listed)}")
    return tuple(check_number(f"every number of {name}", value, low, high) for value in listed)


def check_size(name: str, value: Sequence[int]) -> tuple[int, int]:
    """Return ``(H, W)`` as Python integers; raise unless it is two integers from 1 to `MAX_SIDE`."""
    sides = as_list(name, value, "(H, W)")
    if len(sides) != 2:
        raise ValueError(f"{name} must be (H, W), got {shown(value)}")
    height, width = sides
    return (
        check_at_least(f"H of {name}", height, 1, MAX_SIDE),
        check_at_least(f"W of {name}", width, 1, MAX_SIDE),
    )


def check_whole_numbers(name: str, values: Iterable[int], minimum: int) -> tuple[int, ...]:
    """Return ``values`` as Python integers; raise unless they are different integers of at least ``minimum``."""
    numbers = tuple(
        check_at_least(f"every number of {name}", each, minimum) for each in as_list(name, values, "a list of integers")
    )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} must be different, got {shown(numbers)}")
    return numbers


def check_void(name: str, value: int) -> int:
    """Return ``value`` as a Python integer; raise unless it can be the label of void: 32 bits, neither 0 nor 1."""
    value = check_at_least(name, value, -(2**31), 2**31 - 1)
    if value in (0, 1):
        raise ValueError(f"{name} must not be the label of the background, 0, or of the foreground, 1, got {value}")
    return value


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise unless ``value`` is one of ``choices``; True and 1.0 do not count as 1."""

    def kind(each: object) -> tuple[bool, ...]:
        return tuple(isinstance(each, one) for one in (bool, Integral, str))

    if not any(kind(value) == kind(choice) and value == choice for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")


def check_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return ``value`` as a `Path`; raise unless it is a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {type(value).__name__}")
    return Path(value)


def check_float_dtype(name: str, value: torch.dtype | None) -> None:
    """Raise unless ``value`` is None or a floating-point dtype of 16 bits or more."""
    if value is not None and value not in FLOATS:
        raise TypeError(f"{name} must be a floating-point dtype such as torch.float16, got {shown(value)}")


def check_generator(value: torch.Generator | None) -> None:
    """Raise unless ``value`` is None or a ``torch.Generator``."""
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, such as torch.Generator().manual_seed(0), got {type(value).__name__}"
        )


def as_list(name: str, values: Iterable[Any], expected: str) -> list[Any]:
    """Return the items of ``values`` as a list, those of arrays and tensors as Python numbers; raise for scalars."""
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be {expected}, got {type(values).__name__}")
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(listed, list):
        raise TypeError(f"{name} must be {expected}, got a single number")
    return listed


def check_share(name: str, value: float, *, open_ends: bool = False) -> float:
    """Return ``value`` as a Python float; raise unless it is from 0 to 1, with ``open_ends`` both excluded."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    share: Any = value
    if not (0 < share < 1 if open_ends else 0 <= share <= 1):
        raise ValueError(
            f"{name} must be {'between 0 and 1, both excluded' if open_ends else 'from 0 to 1'}, got {shown(value)}"
        )
    return float(value)


def checked_device(device: object) -> torch.device:
    """Return the device of that name.

    Raises:
        ValueError: If the machine has no such device, or it is ``meta``, which computes nothing.
        TypeError: If ``device`` is neither a name nor a device.
    """
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a name such as 'cpu' or 'cuda:0', got {shown(device)}")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"device must be one that this machine has, such as 'cpu', got {str(device)!r}") from error
    if found.type == "meta":
        raise ValueError("device must be one that computes, such as 'cpu', got 'meta'")
    return found


def name_some(items: Sequence[str], *, most: int = 5, separator: str = ", ") -> str:
    """List the first few of ``items``, each shortened, and say how many more there are."""
    more = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return separator.join([*map(one_line, items[:most]), *more])


def one_line(text: str, *, most: int = 300) -> str:
    """Escape characters that are not printable, and cut the middle out of a text longer than ``most``."""
    kept = text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in kept)
