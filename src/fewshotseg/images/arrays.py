"""Converts arrays and tensors of any layout to NumPy arrays with the channels first."""

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshotseg.images.files import first_line, shorten

Array: TypeAlias = NDArray[Any]

CHANNELS = (1, 3, 4)


def channels_first(name: str, value: object) -> Array:
    """Convert an array ``(H, W)`` or ``(H, W, C)``, or a tensor ``(H, W)`` or ``(C, H, W)``, to ``(C, H, W)``.

    Args:
        name: The name of the value in messages.
        value: An array or tensor with 1, 3 or 4 channels, on any device.

    Returns:
        Bools, integers or floating-point numbers. It may share memory with ``value``.

    Raises:
        ValueError: If the shape is another.
        TypeError: If it is neither array nor tensor, or does not hold plain numbers.
    """
    if isinstance(value, Tensor):
        array, axis = _numbers(name, value), 0
    elif isinstance(value, np.ndarray):
        array, axis = value, -1
    else:
        raise TypeError(f"{name} must be a path, a PIL image, an array or a tensor, got {type(value).__name__}")
    if array.dtype.kind not in "biuf" or np.ma.is_masked(array):
        kind = "masked values" if np.ma.is_masked(array) else shorten(str(array.dtype), 60)
        raise TypeError(f"{name} must hold bools, integers or floating-point numbers, got {kind}")
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[axis] in CHANNELS)
    if not fits or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (H, W) or (H, W, C) as an array, (H, W) or (C, H, W) as a tensor, C being 1, 3 or "
            f"4, got {array.shape}{_advice(array.shape, axis)}"
        )
    array = np.asarray(array)  # drop subclasses of ndarray
    return array[None] if array.ndim == 2 else np.moveaxis(array, axis, 0)


def _numbers(name: str, tensor: Tensor) -> Array:
    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta or tensor.is_complex())
    if not plain:
        raise TypeError(
            f"{name} must be a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout} on {tensor.device}"
        )
    try:
        tensor = tensor.detach().cpu()
        numbers: Array = (tensor.float() if tensor.is_floating_point() else tensor).resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # fake tensors, those inside of torch.func
        raise TypeError(f"{name} must be a tensor whose values can be read, but: {first_line(error)}") from error
    return numbers


def _advice(shape: tuple[int, ...], axis: int) -> str:
    if len(shape) == 4:
        return "; give one image, not a batch"
    if len(shape) == 3 and axis == -1 and shape[0] in CHANNELS:
        return "; bring the channels to the end with np.moveaxis(..., 0, -1)"
    if len(shape) == 3 and axis == 0 and shape[-1] in CHANNELS:
        return "; bring the channels to the front with .permute(2, 0, 1)"
    return ""
