"""Run all benchmarks on one CUDA device within five minutes, and write one JSON file with their numbers.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --quick --device cpu     # only check that it runs, with tiny shapes

It needs torch, torchvision, numpy, pillow, einops and tqdm; in a checkout, set `PYTHONPATH=src` instead of installing.
The file contains the names of the GPU and the versions, then the limits of the GPU, which are measured first: bandwidth
of copies, and FLOP/s of matrix products in float32, TF32 and bfloat16. The measurements are

- forward passes: ResNet-50 with PFENet's stem, 473 pixels, batches of 1, 4 and 16, one and five shots, in float32, TF32
  and bfloat16 under autocast, compared with PFENet in plain code in the same precision;
- training steps, in float32, TF32 and bfloat16 under autocast;
- k-means and the prior, compared with the time that the limits allow: reading the input once per round for k-means,
  the matrix product for the prior;
- evaluation, in episodes per second, without and with 4 threads that load images ahead;
- `torch.compile`: inference with CUDA graphs (``mode="reduce-overhead"``) and a training step under autocast, compared
  with plain code, and the time to compile.

If a part fails, its error is recorded and the others run. After `--budget` seconds no further part starts.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import fewshotseg as fs
from cases import episode, make_plain, make_scnet
from fewshotseg.data import EpisodeDataset, SyntheticSource, padded_eval
from timing import RESULTS, environment, interleaved, save, seconds_of, summary, table
from train_step import make_steps, step_of

PRECISIONS = ("float32", "tf32", "bfloat16")
KMEANS_ROUNDS = 10


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save after every part."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda", help="device (default: cuda)")
    made.add_argument("--rounds", type=int, default=7, help="measurements of each function (default: 7)")
    made.add_argument("--budget", type=float, default=270, help="seconds after which no part starts (default: 270)")
    made.add_argument("--quick", action="store_true", help="tiny images and models, one round: only check that it runs")
    made.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="JSON file to write")
    options = made.parse_args(arguments)
    options.size, options.hidden = (33, 8) if options.quick else (473, 256)
    options.rounds = 1 if options.quick else options.rounds
    content: dict[str, Any] = {"environment": environment(options.device), "parts": {}, "errors": {}}
    if options.device != "cpu":
        content["environment"]["memory_gib"] = torch.cuda.get_device_properties(options.device).total_memory / 2**30
    started = time.monotonic()
    parts: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
        "limits": limits,
        "kmeans": kmeans,
        "prior": prior,
        "forward": forward,
        "training": training,
        "evaluation": evaluation,
        "compiled": compiled,
        "compiled_training": compiled_training,
    }
    for name, part in parts.items():
        if time.monotonic() - started > options.budget:
            content["errors"][name] = "not started: no time left"
            continue
        print(f"\n{name}", flush=True)
        try:
            content["parts"][name] = part(options, content["parts"])
        except Exception:  # the other parts still run
            content["errors"][name] = traceback.format_exc()
            print(content["errors"][name], file=sys.stderr, flush=True)
        save(options.out, content)
    return content


@contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """Compute in float32 without TF32, in float32 with TF32, or under autocast to bfloat16."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = name != "float32"
    torch.set_float32_matmul_precision("highest" if name == "float32" else "high")
    try:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=name == "bfloat16"):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def best(function: Callable[[], object], device: str, rounds: int = 5) -> float:
    """Return the smallest number of seconds of several calls."""
    function()
    return min(seconds_of(function, device) for _ in range(rounds))


def limits(options: Any, _: Mapping[str, Any]) -> dict[str, float]:
    """Measure the limits of the device: bytes per second of a copy, operations per second of a matrix product."""
    device, count, side = options.device, 2**18 if options.quick else 2**28, 128 if options.quick else 8192
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    found = {"bytes_per_second": 2 * source.nbytes / best(lambda: target.copy_(source), device)}
    for name in PRECISIONS:
        left, right = torch.randn(2, side, side, device=device)
        with precision(name, device):
            found[f"{name}_flops"] = 2 * side**3 / best(lambda left=left, right=right: left @ right, device)
    print({name: f"{value:.3g}" for name, value in found.items()})
    return found


def kmeans(options: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Time ten rounds of k-means on the high-level maps of a batch, and compute the time to read them ten times."""
    side, channels = (9, 64) if options.quick else (60, 2048)
    rows: dict[str, Any] = {}
    for batch in [1] if options.quick else [1, 4, 16]:
        for dtype in (torch.float32, torch.bfloat16):
            maps = torch.rand(batch, channels, side * side, device=options.device).to(dtype)
            points = maps.mT
            init = points[:, :3].float()
            seconds = interleaved(
                {"kmeans": lambda points=points, init=init: fs.cosine_kmeans(points, init, num_iters=KMEANS_ROUNDS)},
                rounds=options.rounds,
                device=options.device,
            )
            row = summary(seconds, "kmeans")["kmeans"]
            floor = (KMEANS_ROUNDS + 1) * maps.float().nbytes / parts["limits"]["bytes_per_second"]
            rows[f"batch {batch}, {dtype}"] = row | {
                "reading_once_a_round": floor,
                "times_that": row["seconds"] / floor,
            }
    print(table(rows))
    return rows


def prior(options: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Time the prior of one shot, and compare it with matrix products in the same precision."""
    side, channels = (9, 64) if options.quick else (60, 2048)
    rows: dict[str, Any] = {}
    for batch in [1] if options.quick else [1, 4]:
        masks = torch.zeros(batch, 1, side, side, dtype=torch.long, device=options.device)
        masks[..., side // 4 : side // 2, side // 4 : side // 2] = 1
        for name in PRECISIONS:
            dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
            query = torch.rand(batch, channels, side, side, device=options.device).to(dtype)
            support = torch.rand(batch, 1, channels, side, side, device=options.device).to(dtype)
            if options.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            with precision("tf32" if name == "tf32" else "float32", options.device):
                call = lambda query=query, support=support, masks=masks: fs.prior_mask(query, support, masks)  # noqa: E731
                row = summary(interleaved({"": call}, rounds=options.rounds, device=options.device), "")[""]
            flops = 2 * batch * side**4 * channels / row["seconds"]
            row |= {"flops": flops, "share_of_peak": flops / parts["limits"][f"{name}_flops"]}
            if options.device != "cpu":
                row["peak_mib"] = (torch.cuda.max_memory_allocated() - held) / 2**20
            rows[f"batch {batch}, {name}"] = row
    print(table(rows))
    return rows


def forward(options: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Time plain PFENet and SCNet in the same precision, SCNet also with supports that are already encoded."""
    plain = make_plain(options.hidden).eval().to(options.device)
    ours = make_scnet(plain).eval()
    cases = {}
    for batch, shots in [(1, 2)] if options.quick else [(1, 1), (4, 1), (16, 1), (1, 5), (4, 5)]:
        tensors = [part.to(options.device) for part in episode(options.size, batch=batch, shots=shots)[:3]]
        for name in PRECISIONS:
            with precision(name, options.device), torch.no_grad():
                known = ours.encode_support(*tensors[:2])
                ways: dict[str, Callable[[], object]] = {
                    "plain": lambda tensors=tensors: plain(*tensors),
                    "fewshotseg": lambda tensors=tensors: ours(*tensors),
                    "known support": lambda known=known, query=tensors[2]: ours.segment(
                        known, ours.encode_query(query)
                    ),
                }
                seconds = interleaved(ways, rounds=options.rounds, device=options.device)
            cases[f"batch {batch}, {shots} shots, {name}"] = summary(seconds, "plain")
            print(f"batch {batch}, {shots} shots, {name}\n{table(summary(seconds, 'plain'))}", flush=True)
    return cases


def training(options: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Time training steps of four episodes: PFENet in plain code, and SCNet without and with its second branch."""
    plain = make_plain(options.hidden).to(options.device)
    tensors = [part.to(options.device) for part in episode(options.size, batch=1 if options.quick else 4)]
    rows = {}
    for name in PRECISIONS:
        with precision("tf32" if name == "bfloat16" else name, options.device):
            steps = make_steps(plain, tensors, amp=name == "bfloat16")
            seconds = interleaved(steps, rounds=options.rounds, device=options.device)
        rows[name] = summary(seconds, "plain, batch norms")
        print(f"{name}\n{table(rows[name])}", flush=True)
    return rows


def evaluation(options: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Measure episodes per second; the time includes drawing the images, which is as slow as decoding photographs."""
    model = make_scnet(make_plain(options.hidden)).eval().to(options.device)
    source = SyntheticSource(40, num_classes=4, size=options.size)
    episodes = EpisodeDataset(source, [1, 2], length=8 if options.quick else 100, transform=padded_eval(options.size))
    rows = {}
    for workers in (0, 4):
        seconds = seconds_of(
            lambda workers=workers: fs.evaluate(
                model, episodes, fs.FewShotIoU([1, 2]), batch_size=4, workers=workers, cache_bytes=0
            ),
            options.device,
        )
        rows[f"{workers} threads"] = {"seconds": seconds, "episodes_per_second": len(episodes) / seconds}
    print(table(rows))
    return rows


def compiled(options: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Time forward passes in TF32: plain code, and SCNet as it is and compiled as a whole with CUDA graphs."""
    plain = make_plain(options.hidden).eval().to(options.device)
    ours = make_scnet(plain).eval()
    settings = {"backend": "eager"} if options.quick else {"mode": "reduce-overhead"}  # --quick compiles nothing
    cases: dict[str, Any] = {}
    for batch in [1] if options.quick else [1, 4]:
        tensors = [part.to(options.device) for part in episode(options.size, batch=batch)[:3]]
        torch._dynamo.reset()
        run = torch.compile(lambda *images: ours(*images).logits, fullgraph=True, **settings)
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda tensors=tensors: plain(*tensors),
            "fewshotseg": lambda tensors=tensors: ours(*tensors).logits,
            "compiled": lambda tensors=tensors, run=run: run(*tensors),
        }
        with precision("tf32", options.device), torch.no_grad():
            first = seconds_of(ways["compiled"], options.device)
            rows = summary(interleaved(ways, rounds=options.rounds, warmup=3, device=options.device), "plain")
        cases[f"batch {batch}"] = rows | {"first_call_seconds": first}
        print(f"batch {batch}, first call {first:.0f} s\n{table(rows)}", flush=True)
    return cases


def compiled_training(options: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Time training steps of four episodes under autocast: plain code, and SCNet as it is and compiled."""
    plain = make_plain(options.hidden).to(options.device)
    tensors = [part.to(options.device) for part in episode(options.size, batch=1 if options.quick else 4)]
    torch._dynamo.reset()
    ours = make_scnet(plain)
    ours.compile(backend="eager" if options.quick else "inductor")
    with precision("tf32", options.device):
        known = make_steps(plain, tensors, amp=True)
        steps = {name: known[name] for name in ("plain, batch norms", "SCNet")}
        steps["SCNet, compiled"] = step_of(ours, lambda: ours(*tensors).loss, amp=True)
        first = seconds_of(steps["SCNet, compiled"], options.device)
        rows = summary(interleaved(steps, rounds=options.rounds, warmup=3, device=options.device), "plain, batch norms")
    print(table(rows))
    return rows | {"first_call_seconds": first}


if __name__ == "__main__":
    main()
