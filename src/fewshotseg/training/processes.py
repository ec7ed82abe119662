"""One process or several that torchrun started: the same script for both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist


class Place(NamedTuple):
    """Where this process stands among all."""

    rank: int
    processes: int
    device: torch.device


@contextmanager
def joined_processes(device: str | None) -> Iterator[Place]:
    """Join the other processes that torchrun started, if it did; leave them in the end."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device(device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    joins = "WORLD_SIZE" in os.environ and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        together = dist.is_initialized()
        yield Place(dist.get_rank() if together else 0, dist.get_world_size() if together else 1, chosen)
    finally:
        if joins:
            dist.destroy_process_group()
