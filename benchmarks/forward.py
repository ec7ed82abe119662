"""Time inference of SCNet and of a plain transcription of PFENet (`plain_pfenet`) with the same weights.

    python benchmarks/forward.py
    python benchmarks/forward.py --scaling
    python benchmarks/forward.py --device cuda

Both have the same ResNet-50 with the deep stem and compute in float32 without gradients, from images and masks in
memory. The program fails if their logits differ by more than 1e-5 of the largest (1e-4 on CUDA). `plain_pfenet` lists
the differences between the two. "Known support" segments another query with a support that is already encoded; the
plain code always encodes the support again. Some savings depend on the share of a support that its object covers: most
rows use the first --area, the other areas are measured with one support each. bfloat16 (both models converted) is
measured only on devices with bfloat16 instructions; other CPUs take a hundred times as long as with float32.

GFLOP counts the operations of convolutions and matrix products. "Share of peak" is their speed relative to that of one
large 3x3 convolution, which is measured first on the same device.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

import fewshotseg as fs
from cases import difference, episode, make_plain, make_scnet, parse, parser, settings, tolerance
from plain_pfenet import PlainPFENet
from timing import (
    RESULTS,
    convolution_peak,
    count_gflop,
    environment,
    interleaved,
    native_bfloat16,
    quartiles,
    ratio,
    save,
    summary,
    table,
)

SCALING = {"size": (241, 337, 473, 641), "shots": (1, 2, 5, 10), "batch": (1, 2, 4)}
QUICK_SCALING = {"size": (33, 65), "shots": (1, 2), "batch": (1, 2)}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = parser(__doc__, RESULTS / "forward.json", rounds=7)
    made.add_argument(
        "--area",
        type=float,
        nargs="+",
        default=[0.15, 0.05, 0.4],
        help="shares of the support's pixels in the object (default: .15 .05 .4)",
    )
    made.add_argument("--bfloat16", action="store_true", help="measure bfloat16 on any device")
    made.add_argument(
        "--scaling", action="store_true", help="only measure how time grows with image size, shots and batch"
    )
    options = parse(made, arguments)
    plain = make_plain(options.hidden).eval().to(options.device)
    ours = make_scnet(plain).eval()
    with torch.no_grad():
        if options.scaling:
            content = {"scaling": scaling(plain, ours, options)}
            if options.out == RESULTS / "forward.json":
                options.out = RESULTS / "forward-scaling.json"
        else:
            content = measured(plain, ours, options)
    content = {"environment": environment(options.device), "settings": settings(options), **content}
    save(options.out, content)
    return content


def measured(plain: PlainPFENet, ours: fs.SCNet, options: Any) -> dict[str, Any]:
    """Measure all cases, and the speed of a convolution on this device."""
    models = {"float32": (plain, ours)}
    if options.bfloat16 or native_bfloat16(options.device):
        half = make_plain(options.hidden).eval().to(options.device, torch.bfloat16)
        models["bfloat16"] = half, make_scnet(plain).eval().to(torch.bfloat16)
    work = {"device": options.device, "channels": 64 if options.quick else 512}
    peaks = {dtype: convolution_peak(dtype=getattr(torch, dtype), **work) for dtype in models}
    area, *others = options.area
    batch, shots = (2, 2) if options.quick else (4, 5)
    cases = {
        f"1 shot, batch 1, area {area:g}": {"area": area},
        f"1 shot, batch {batch}, area {area:g}": {"area": area, "batch": batch},
        f"{shots} shots, batch 1, area {area:g}": {"area": area, "shots": shots},
        **{f"1 shot, batch 1, area {other:g}": {"area": other} for other in others},
    }
    rows = {}
    for case, numbers in cases.items():
        rows[case] = measure(models, numbers, peaks, options)
        print(f"\n{case}\n{table(rows[case])}", flush=True)
    return {"peak_gflops": peaks, "cases": rows}


def measure(models: dict[str, Any], numbers: dict[str, Any], peaks: Any, options: Any) -> dict[str, Any]:
    """Measure one case: time, operations and deviation of each function."""
    tensors = [tensor.to(options.device) for tensor in episode(options.size, **numbers)]
    functions: dict[str, Callable[[], torch.Tensor]] = {}
    for dtype, pair in models.items():
        functions |= ways(*pair, tensors, dtype)
    reference = functions["plain float32"]()
    seconds = interleaved(functions, rounds=options.rounds, warmup=options.warmup, device=options.device)
    rows = summary(seconds, "plain float32")
    limit = tolerance(options.device)
    for name, function in functions.items():
        dtype = name.rpartition(" ")[2]
        gflop = count_gflop(function)
        deviation = difference(function(), reference)
        assert dtype != "float32" or deviation["difference"] < limit, f"{name} differs: {deviation}"
        peak = peaks[dtype]["convolution"]
        rows[name] |= {"gflop": gflop, "share_of_peak": gflop / rows[name]["seconds"] / peak, **deviation}
    return rows


def ways(plain: PlainPFENet, ours: fs.SCNet, tensors: Sequence[torch.Tensor], dtype: str) -> dict[str, Any]:
    """Return the functions to measure, each of which computes logits, by name."""
    support, masks, query, _ = (x.to(getattr(torch, dtype)) if x.is_floating_point() else x for x in tensors)
    known = ours.encode_support(support, masks)
    return {
        f"plain {dtype}": lambda: plain(support, masks, query),
        f"fewshotseg {dtype}": lambda: ours(support, masks, query).logits,
        f"known support {dtype}": lambda: ours.segment(known, ours.encode_query(query)),
    }


def scaling(plain: PlainPFENet, ours: fs.SCNet, options: Any) -> dict[str, Any]:
    """Measure the seconds for several values of one setting at a time, and fit the exponent of a power law."""
    result: dict[str, Any] = {}
    for name, values in (QUICK_SCALING if options.quick else SCALING).items():
        rows: dict[str, dict[str, Any]] = {}
        for value in values:
            numbers = {"size": options.size, "area": options.area[0], name: value}
            tensors = episode(numbers.pop("size"), **numbers)
            support, masks, query = (tensor.to(options.device) for tensor in tensors[:3])
            seconds = interleaved(
                {"plain": lambda: plain(support, masks, query), "fewshotseg": lambda: ours(support, masks, query)},  # noqa: B023 (called in this turn)
                rounds=options.rounds,
                warmup=options.warmup,
                device=options.device,
            )
            rows[str(value)] = {way: quartiles(taken)[1] for way, taken in seconds.items()}
            rows[str(value)]["times_as_fast"] = ratio(seconds, "plain", "fewshotseg")
        powers = {}
        for way in ("plain", "fewshotseg"):
            logs = [math.log(row[way]) for row in rows.values()]
            powers[way] = statistics.linear_regression([math.log(value) for value in values], logs).slope
        result[name] = {"seconds": rows, "power": powers}
        growth = ", ".join(f"{power:.2f} ({way})" for way, power in powers.items())
        print(f"\n{name}\n{table(rows)}\nseconds grow with {name} to the power of {growth}", flush=True)
    return result


if __name__ == "__main__":
    main()
