"""Distributed training: one process, or several started by torchrun."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewshotseg._checks import checked_device


class ProcessInfo(NamedTuple):
    """The rank of this process, the number of processes, and its device.

    Attributes:
        rank: Rank from 0; the process of rank 0 writes files and messages.
        world_size: Number of processes.
        device: Device of this process.
        control: Process group for `max_over_processes`, on the CPU to avoid host-device synchronisation; None for one
            process.
    """

    rank: int
    world_size: int
    device: torch.device
    control: Any = None

    @property
    def shows_progress(self) -> bool:
        """Whether to show progress bars: rank 0 does, if standard error is a terminal."""
        return self.rank == 0 and sys.stderr.isatty()


@contextmanager
def process_group(device: str | None = None) -> Iterator[ProcessInfo]:
    """Join the process group if torchrun started this process, and leave it at the end.

    Args:
        device: Device such as ``"cpu"`` or ``"cuda:1"``; by default CUDA if there is a GPU, one for each process.

    Raises:
        ValueError: If there is no such device.
    """
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    joins = "WORLD_SIZE" in os.environ and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        if dist.is_initialized() and dist.get_world_size() > 1:
            control = dist.new_group(backend="gloo")
            yield ProcessInfo(dist.get_rank(), dist.get_world_size(), chosen, control)
        else:
            yield ProcessInfo(0, 1, chosen)
    finally:
        if joins:
            dist.destroy_process_group()


def choose_device(name: str | None, local_rank: int = 0) -> torch.device:
    """Return the device of that name, by default CUDA if there is a GPU; each local process gets its own."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return checked_device(f"cuda:{local_rank}" if name == "cuda" else name)


def share_buffers(model: nn.Module, process: ProcessInfo) -> None:
    """Give all processes the buffers of rank 0, which are those that are saved: norm statistics and clutter."""
    if process.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def mean_over_processes(losses: Mapping[str, Tensor], process: ProcessInfo) -> dict[str, float]:
    """Average the losses of an iteration over all processes."""
    values = torch.stack([value.double() for value in losses.values()])
    if process.world_size > 1:
        dist.all_reduce(values)
    return dict(zip(losses, (values / process.world_size).tolist(), strict=True))


def max_over_processes(value: int, process: ProcessInfo) -> int:
    """Return the largest value of all processes, so that all act alike."""
    if process.control is None:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=process.control)
    return int(largest)
