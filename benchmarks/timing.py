"""What the benchmarks share: one clock, taking turns, ratios, peak speed, peak memory, and where they were measured.

The speed of a shared machine drifts, so functions that are compared take turns, and are compared within each round.
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
    """How long one call takes: by CUDA's events if it computes on CUDA, else by a clock.

    Args:
        function: What to call.
        device: Where it computes.
        clock: For everything but CUDA; ``time.process_time`` counts the time that all threads of this process compute.
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
    """Seconds of each function in each round. A round calls every function once and starts with another one each time.

    Args:
        functions: What to measure, by name.
        rounds: How often to call each.
        warmup: Rounds before these, which do not count.
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
    """Rows by name as a Markdown table, with the names of their entries as the heading."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    body = [[name, *(_text(row.get(column, "")) for column in columns)] for name, row in rows.items()]
    return markdown_table([["", *columns], *body])


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Command, date, versions and machine."""
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
    """Whether a device multiplies in bfloat16. One that does not converts to float32 and back, and gains nothing."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_cpu()[1]))


def _cpu() -> tuple[str, list[str]]:
    """The CPU's name and which of `CPU_FLAGS` it has, as far as the system says."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = entries.get("flags", entries.get("features", "")).split()
    return entries.get("model name", "unknown"), [flag for flag in CPU_FLAGS if flag in flags]


def convolution_peak(
    *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", channels: int = 512, side: int = 60
) -> dict[str, float]:
    """GFLOP/s that a device reaches, best of five: a 3x3 convolution and a matrix product of about the same work.

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
    """Counts FLOPs without the hooks on modules of `FlopCounterMode`, with which a model runs in its plain form."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def count_gflop(function: Callable[[], object]) -> float:
    """GFLOP of the convolutions and matrix products of one call, forward and backward."""
    with _FlopCounter() as counter:
        function()
    return counter.total / 1e9


def peak_memory(function: Callable[[], object]) -> float:
    """The most MiB that a fresh Python process holds while it calls a function: on CUDA if it computes there.

    Without CUDA that is all of the process, Python and its imports included; with CUDA all tensors on the device.

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
    elif status.exists():  # getrusage would count what the process that started this one held
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        sender.send(int(line.split()[1]) / 2**10)
    else:
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # bytes on macOS


def save(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write JSON and make its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
