"""Runs of the example scripts that are as small as can be, here and in processes that may be killed."""

import os
import time

import torch
import torch.distributed as dist

TINY = ["synthetic", "--images", "90", "--size", "49", "--pretrain", "1", "--device", "cpu"]
MODEL = ["hidden_channels=8", "bins=1.0,0.5"]
HALF = b"half a checkpoint"


def training(out, *options):
    """Arguments of train.py; later options replace earlier ones."""
    return [*TINY, "--model", *MODEL, "--log-every", "1", "--out", str(out), *map(str, options)]


def wait(condition, process, seconds=60):
    """Until the condition holds; False if the process ended first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not process.is_alive():
            return False
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)
    return True


def train(arguments, stuck_at_save=None):
    """Train; the process hangs in the middle of that call of torch.save, with half a file written."""
    from fewshotseg.training import loop as train

    torch.set_num_threads(1)
    save, calls = torch.save, []

    def slow_save(content, file):
        calls.append(file.name)
        if len(calls) == stuck_at_save:
            file.write(HALF)
            file.flush()
            time.sleep(600)
        save(content, file)

    torch.save = slow_save
    train.main(arguments)


def run_share(rank, world, store, script, arguments):
    """Run a script as one of several processes, with a file in place of torchrun's ports."""
    import evaluate

    from fewshotseg.training import loop as train

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    {"train": train, "evaluate": evaluate}[script].main(arguments)
    dist.destroy_process_group()
