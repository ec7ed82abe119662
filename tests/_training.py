"""Training runs that are as small as can be, here and in processes that may be killed."""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from fewshotseg.cli import main
from fewshotseg.training.processes import ProcessInfo, share_buffers

TINY = ["synthetic", "--images", "90", "--size", "49", "--pretrain", "1", "--device", "cpu"]
MODEL = ["hidden_channels=8", "bins=1.0,0.5"]
HALF = b"half a checkpoint"

# With lambda = 1 a few iterations suffice for scores that rise and fall: the best weights are neither first nor last.
SELECTING = ["--iterations", 8, "--save-every", 3, "--accumulate", 2, "--select", "held-out", "--validate-every", 2,
             "--validate-episodes", 12, "--lr", 0.01, "--model", *MODEL, "self_contrast_weight=1"]  # fmt: skip


def training(out, *options):
    """Arguments of the command; later options replace earlier ones."""
    return ["train", *TINY, "--model", *MODEL, "--log-every", "1", "--out", str(out), *map(str, options)]


def trained(out, *options):
    """Train here to the end; the last checkpoint."""
    assert main(training(out, *options)) == 0
    return Path(out, "last.pth")


def read(path):
    """The content of a checkpoint."""
    return torch.load(path, weights_only=True)


def log_of(out, *, starts=False):
    """The lines of a run's log."""
    lines = [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if starts or "event" not in line]


def reached(out, *, starts, iteration):
    """Whether a run was started that often, and then came to that iteration."""
    log = Path(out) / "log.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return sum('"event"' in line for line in lines) == starts and json.loads(lines[-1])["iteration"] >= iteration


def assert_identical(actual, expected, name=""):
    """Equal to the last bit, whatever is nested in whatever."""
    assert type(actual) is type(expected), name
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), name
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys(), name
        for key in expected:
            assert_identical(actual[key], expected[key], f"{name} {key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), name
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            assert_identical(*pair, f"{name} {number}")
    else:
        assert actual == expected, name


def assert_same_run(out, uninterrupted):
    """All files of a run, and nothing but them; which checkpoint came before the last depends on interruptions."""
    assert {path.name for path in out.iterdir()} - {"previous.pth"} == {"best.pth", "last.pth", "log.jsonl"}
    for name in ("last.pth", "best.pth"):
        assert_identical(read(out / name), read(uninterrupted / name), name)
    assert log_of(out) == log_of(uninterrupted)


def signalled(process, number):
    """Send a signal; the exit status."""
    os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


def wait(condition, process, seconds=60):
    """Until the condition holds; False if the process ended first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not process.is_alive():
            return False
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)
    return True


def run_command(arguments, *, stuck_at_save=None, said=os.devnull):
    """Run a command in a process of its own; it hangs in that call of torch.save, with half a file written."""
    sys.stderr = open(said, "a")  # noqa: SIM115, PTH123 (until the process ends)
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
    sys.exit(main(arguments))


def run_share(rank, world, store, arguments, said=os.devnull):
    """Run a command as one of several processes, with a file in place of torchrun's ports."""
    sys.stderr = open(said, "a")  # noqa: SIM115, PTH123 (until the process ends)
    warnings.simplefilter("error", FutureWarning)
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    status = main(arguments)
    dist.destroy_process_group()
    sys.exit(status)


def share_numbered_buffers(rank: int, world: int, store: str, folder: str) -> None:
    """Number a module's buffers by the rank, share them, and save them."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    norm = torch.nn.BatchNorm1d(2)
    for buffer in norm.buffers():
        buffer.fill_(rank + 1)
    share_buffers(norm, ProcessInfo(rank, world, torch.device("cpu")))
    torch.save(dict(norm.named_buffers()), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
