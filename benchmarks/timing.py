"""What the benchmarks share: interleaved timing, ratios, peak speed, peak memory, and where they were measured.

Seconds of a shared machine drift, so that functions to compare take turns and are compared within a round. Timing on
CUDA follows the usual way, with events, but was never run: all published numbers are of a CPU.
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
from tqdm import trange

from fewshotseg.results import versions

RESULTS = Path(__file__).parent / "results"
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""What of a CPU decides about the speed of convolutions in float32 and in bfloat16."""


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each function in each round; a round runs every function once, each round begins with another one.

    Args:
        functions: What to measure, by name.
        rounds: How often.
        warmup: Rounds before, which do not count.
        device: Where the functions compute.
        clock: On a CPU; ``time.process_time`` counts what all threads of this process took, whoever else computes.
    """
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in trange(-warmup, rounds, desc="rounds", leave=False, disable=None):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            taken = _seconds(functions[name], torch.device(device), clock)
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def _seconds(function: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    if device.type != "cuda":
        start = clock()
        function()
        return clock() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def ratio(seconds: Mapping[str, Sequence[float]], name: str, other: str) -> float:
    """How many times as long ``name`` took as ``other``: the median over the rounds of the ratio in a round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))


def summary(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """Median and quartiles of each function, and how many times as fast as the baseline it is (`ratio`)."""
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
    """First quartile, median, third quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows as text, one a line, with the names of the columns above."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [
        ["", *columns],
        *([name, *(_text(row.get(column, "")) for column in columns)] for name, row in rows.items()),
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ([cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join([line[0].strip().ljust(widths[0]), *line[1:]]) for line in padded)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def environment() -> dict[str, Any]:
    """Command, date, versions and machine."""
    name, flags = _cpu()
    allocator = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith("MALLOC_")]
    return {
        "command": shlex.join([*allocator, "python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        **versions(),
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": flags,
        "native_bfloat16": native_bfloat16(),
    }


def native_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16; others convert to float32 and back, and gain nothing."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_cpu()[1]))


def _cpu() -> tuple[str, list[str]]:
    """Its name and which of `CPU_FLAGS` it has, as far as the system says."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = entries.get("flags", entries.get("features", "")).split()
    return entries.get("model name", "unknown"), [flag for flag in CPU_FLAGS if flag in flags]


def convolution_peak(*, dtype: torch.dtype = torch.float32, channels: int = 512, side: int = 60) -> dict[str, float]:
    """GFLOP/s that this machine reaches, best of five: a 3x3 convolution and a matrix product of about the same work.

    FLOPs are counted as a multiplication and an addition each, whatever algorithm runs.
    """
    image = torch.randn(1, channels, side, side, dtype=dtype)
    kernel = torch.randn(channels, channels, 3, 3, dtype=dtype)
    rows, columns = (
        torch.randn(side * side, channels * 9, dtype=dtype),
        torch.randn(channels * 9, channels, dtype=dtype),
    )
    flops = 2 * 9 * channels**2 * side**2
    with torch.no_grad():
        seconds = interleaved(
            {"convolution": lambda: F.conv2d(image, kernel, padding=1), "matmul": lambda: rows @ columns}, rounds=5
        )
    return {name: flops / min(taken) / 1e9 for name, taken in seconds.items()}


def peak_memory(function: Callable[[], object]) -> float:
    """MiB that a fresh Python process holds at most while it calls ``function``, imports and all.

    Args:
        function: Of a module, or a ``functools.partial`` of one, so that the process can import it.
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
    if status.exists():  # getrusage would count what the process that started this one held
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        sender.send(int(line.split()[1]) / 2**10)
    else:
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # bytes on macOS


def save(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write JSON; makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
