"""Copies tensors between devices."""

import torch
from torch import Tensor


def copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without host-device synchronisation, except to the CPU.

    A copy to the CPU that is not waited for may be read before its numbers have arrived.
    """
    return tensor.to(device, non_blocking=device.type != "cpu")
