"""Measurements for all benchmarks: time, ratios, peak speed, peak memory and the description of the machine.

The speed of a shared machine changes over time, so functions are called in turn and compared within each round.
"""

import datetime
import json
import multiprocessing
import os
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import trange

from fewshotseg.results import markdown_table, versions

RESULTS = Path(__file__).parent / "results"
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Instructions that decide how fast a CPU computes convolutions in float32 and in bfloat16."""


def seconds_of(
    function: Callable[[], object],
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure the seconds of one call, with CUDA events on CUDA, else with a clock.

    Args:
        function: Function to call.
        device: Device on which it computes.
        clock: Clock for other devices than CUDA; ``time.process_time`` measures the CPU time of all threads.
    """
    if torch.device(device).type != "cuda":
        start = clock()
        function()
        return clock() - start
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Measure the seconds of each function in each round; a round calls all once, each round another one first.

    Args:
        functions: Functions to measure, by name.
        rounds: Calls of each function.
        warmup: Rounds before the measured ones.
        device: As for `seconds_of`.
        clock: As for `seconds_of`.
    """
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in trange(-warmup, rounds, desc="rounds", leave=False, disable=None):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            taken = seconds_of(functions[name], device, clock)
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], name: str, other: str) -> float:
    """Return how many times as long ``name`` took as ``other``: the median over the rounds of the ratio."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))


def summary(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """Return the median and quartiles of each function, and how many times as fast as the baseline it is (`ratio`)."""
    rows = {}
    for name, taken in seconds.items():
        low, middle, high = quartiles(taken)
        rows[name] = {
            "seconds": middle,
            "quartiles": [low, high],
            "rounds": len(taken),
            "times_as_fast": ratio(seconds, baseline, name),
        }
    return rows


def quartiles(values: Sequence[float]) -> list[float]:
    """Return first quartile, median and third quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Format rows by name as a Markdown table; the names of their entries are the heading."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    body = [[name, *(_text(row.get(column, "")) for column in columns)] for name, row in rows.items()]
    return markdown_table([["", *columns], *body])


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the command, date, versions and machine."""
    name, flags = _cpu()
    allocator = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith("MALLOC_")]
    cuda = torch.device(device).type == "cuda"
    return {
        "command": shlex.join([*allocator, "python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        **versions(),
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": flags,
        "native_bfloat16": native_bfloat16(device),
    }


def native_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Return whether a device has bfloat16 instructions; others convert to float32 and back and are not faster."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_cpu()[1]))


def _cpu() -> tuple[str, list[str]]:
    """Return the CPU's name and its instructions among `CPU_FLAGS`, if the system reports them."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = entries.get("flags", entries.get("features", "")).split()
    return entries.get("model name", "unknown"), [flag for flag in CPU_FLAGS if flag in flags]


def convolution_peak(
    *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", channels: int = 512, side: int = 60
) -> dict[str, float]:
    """Measure the GFLOP/s of a device, best of five, with a 3x3 convolution and a matrix product of about equal work.

    A multiplication and an addition count as one FLOP each, whatever algorithm runs.
    """
    image = torch.randn(1, channels, side, side, dtype=dtype, device=device)
    kernel = torch.randn(channels, channels, 3, 3, dtype=dtype, device=device)
    left = torch.randn(side * side, channels * 9, dtype=dtype, device=device)
    right = torch.randn(channels * 9, channels, dtype=dtype, device=device)
    flops = 2 * 9 * channels**2 * side**2
    ways = {"convolution": lambda: F.conv2d(image, kernel, padding=1), "matmul": lambda: left @ right}
    with torch.no_grad():
        seconds = interleaved(ways, rounds=5, device=device)
    return {name: flops / min(taken) / 1e9 for name, taken in seconds.items()}


class _FlopCounter(TorchDispatchMode):
    """Count FLOPs without the module hooks of `FlopCounterMode`, since a model with hooks does not run fused."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def count_gflop(function: Callable[[], object]) -> float:
    """Count the GFLOP of the convolutions and matrix products of one call, forward and backward."""
    with _FlopCounter() as counter:
        function()
    return counter.total / 1e9


def peak_memory(function: Callable[[], object]) -> float:
    """Measure the peak memory in MiB of a new Python process that calls a function.

    On CUDA that is the memory of all tensors on the device, else that of the process with Python and its imports.

    Args:
        function: A function of a module, or a ``functools.partial`` of one, so that the process can import it.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(function, torch.get_num_threads(), sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function} ended its process before it was done") from None
    finally:
        process.join()


def _measure(function: Callable[[], object], threads: int, sender: Any) -> None:
    torch.set_num_threads(threads)
    function()
    status = Path("/proc/self/status")
    if torch.cuda.is_initialized():
        sender.send(torch.cuda.max_memory_allocated() / 2**20)
    elif status.exists():  # getrusage would include the memory of the parent process
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        sender.send(int(line.split()[1]) / 2**10)
    else:
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # bytes on macOS


def save(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a JSON file and create its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
