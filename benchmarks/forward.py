"""Inference: SCNet against PFENet as its official code goes about it (`plain_pfenet`), on the same weights.

    python benchmarks/forward.py
    python benchmarks/forward.py --scaling

Both get the same ResNet-50 with the deep stem, float32, images and masks in memory, no gradient. Logits are the same to
1e-5 of the largest, or the program ends. What differs is what `plain_pfenet` lists. "Known support" is one more query
for a support that was encoded before; the plain code has no such state and does all of it again. Some savings depend on
how much of a support its object covers: the first --area holds for all rows, the others are measured with one support.
bfloat16 (both models converted) only runs by itself where the CPU multiplies in it; elsewhere it is a hundred times
slower than float32.

GFLOP are what each one does, counted in convolutions and matrix products. Their share of the peak is beside the speed
of one large 3x3 convolution on the same machine, measured first.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import fewshotseg as fs
from cases import difference, episode, make_plain, make_scnet, parse, parser, settings
from plain_pfenet import PlainPFENet
from timing import (
    RESULTS,
    convolution_peak,
    environment,
    interleaved,
    native_bfloat16,
    quartiles,
    ratio,
    save,
    summary,
    table,
)

TOLERANCE = 1e-5
"""Of the largest logit."""

SCALING = {"size": (241, 337, 473, 641), "shots": (1, 2, 5, 10), "batch": (1, 2, 4)}
QUICK_SCALING = {"size": (33, 65), "shots": (1, 2), "batch": (1, 2)}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = parser(__doc__, RESULTS / "forward.json", rounds=7)
    made.add_argument("--area", type=float, nargs="+", default=[0.15, 0.05, 0.4], help="shares (default: .15 .05 .4)")
    made.add_argument("--bfloat16", action="store_true", help="also where this CPU has no instructions for it")
    made.add_argument("--scaling", action="store_true", help="cost against image size, shots and batch instead")
    options = parse(made, arguments)
    plain = make_plain(options.hidden).eval()
    ours = make_scnet(plain).eval()
    with torch.no_grad():
        if options.scaling:
            content = {"scaling": scaling(plain, ours, options)}
            if options.out == RESULTS / "forward.json":
                options.out = RESULTS / "forward-scaling.json"
        else:
            content = measured(plain, ours, options)
    content = {"environment": environment(), "settings": settings(options), **content}
    save(options.out, content)
    return content


def measured(plain: PlainPFENet, ours: fs.SCNet, options: Any) -> dict[str, Any]:
    """All cases, and the speed that a convolution has here."""
    dtypes = [torch.float32, torch.bfloat16] if options.bfloat16 or native_bfloat16() else [torch.float32]
    channels = 64 if options.quick else 512
    peaks = {str(dtype).removeprefix("torch."): convolution_peak(dtype=dtype, channels=channels) for dtype in dtypes}
    area, *others = options.area
    batch, shots = (2, 2) if options.quick else (4, 5)
    cases = {
        f"1 shot, batch 1, area {area:g}": {"area": area},
        f"1 shot, batch {batch}, area {area:g}": {"area": area, "batch": batch},
        f"{shots} shots, batch 1, area {area:g}": {"area": area, "shots": shots},
        **{f"1 shot, batch 1, area {other:g}": {"area": other} for other in others},
    }
    half = None
    if torch.bfloat16 in dtypes:
        half = make_plain(options.hidden).eval(), make_scnet(plain).eval()
        half = tuple(model.to(torch.bfloat16) for model in half)
    rows = {}
    for case, numbers in cases.items():
        rows[case] = measure(plain, ours, half, numbers, peaks, options)
        print(f"\n{case}\n{table(rows[case])}", flush=True)
    return {"peak_gflops": peaks, "cases": rows}


def measure(plain: Any, ours: Any, half: Any, numbers: dict[str, Any], peaks: Any, options: Any) -> dict[str, Any]:
    """One case: time, work and deviation of every way to compute it."""
    functions: dict[str, Callable[[], torch.Tensor]] = {}
    for dtype, models in (("float32", (plain, ours)), ("bfloat16", half)):
        if models is not None:
            functions |= ways(*models, episode(options.size, **numbers), dtype)
    reference = functions["plain float32"]()
    rows = summary(interleaved(functions, rounds=options.rounds, warmup=options.warmup), "plain float32")
    for name, function in functions.items():
        dtype = name.rpartition(" ")[2]
        with FlopCounterMode(display=False) as counter:
            logits = function()
        gflop = counter.get_total_flops() / 1e9
        deviation = difference(logits, reference)
        assert dtype != "float32" or deviation["difference"] < TOLERANCE, f"{name} differs: {deviation}"
        peak = peaks[dtype]["convolution"]
        rows[name] |= {"gflop": gflop, "share_of_peak": gflop / rows[name]["seconds"] / peak, **deviation}
    return rows


def ways(plain: PlainPFENet, ours: fs.SCNet, tensors: Sequence[torch.Tensor], dtype: str) -> dict[str, Any]:
    """Functions to logits, by name."""
    support, masks, query, _ = (x.to(getattr(torch, dtype)) if x.is_floating_point() else x for x in tensors)
    known = ours.encode_support(support, masks)
    return {
        f"plain {dtype}": lambda: plain(support, masks, query),
        f"fewshotseg {dtype}": lambda: ours(support, masks, query).logits,
        f"known support {dtype}": lambda: ours.segment(known, ours.encode_query(query)),
    }


def scaling(plain: PlainPFENet, ours: fs.SCNet, options: Any) -> dict[str, Any]:
    """Seconds against one number at a time, and the power of it that they grow with."""
    result: dict[str, Any] = {}
    for name, values in (QUICK_SCALING if options.quick else SCALING).items():
        rows: dict[str, dict[str, Any]] = {}
        for value in values:
            numbers = {"size": options.size, "area": options.area[0], name: value}
            support, masks, query, _ = episode(numbers.pop("size"), **numbers)
            seconds = interleaved(
                {"plain": lambda: plain(support, masks, query), "fewshotseg": lambda: ours(support, masks, query)},  # noqa: B023 (called in this turn)
                rounds=options.rounds,
                warmup=options.warmup,
            )
            rows[str(value)] = {way: quartiles(taken)[1] for way, taken in seconds.items()}
            rows[str(value)]["times_as_fast"] = ratio(seconds, "plain", "fewshotseg")
        powers = {}
        for way in ("plain", "fewshotseg"):
            logs = [math.log(row[way]) for row in rows.values()]
            powers[way] = statistics.linear_regression([math.log(value) for value in values], logs).slope
        result[name] = {"seconds": rows, "power": powers}
        print(f"\n{name}\n{table(rows)}\nseconds grow with {name} to the power of {table({'': powers})}", flush=True)
    return result


if __name__ == "__main__":
    main()
