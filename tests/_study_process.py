"""One of several processes that share a study; apart, so that a new process can import it."""

import os

import torch
import torch.distributed as dist


def run_share(rank, world, store, arguments):
    """Run study.py, with a file in place of torchrun's ports."""
    import study

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    study.main(arguments)
    dist.destroy_process_group()
