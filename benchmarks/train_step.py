"""A training step, forward, backward and SGD: PFENet plainly, PFENet and SCNet with fewshotseg, on the same weights.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --compile

All train the head on the same batch of one-shot episodes, with dropout, deep supervision, momentum and weight decay.

- "plain, batch norms" is PFENet's official step: norms of the frozen backbone in training mode.
- "plain, frozen norms" computes what our PFENet computes, losses included (to 1e-5 with dropout off, or the program
  ends). It is the fair baseline: frozen norms alone make a step cheaper, and are another choice, not an achievement.
- "PFENet" and "SCNet" are fewshotseg's, without and with the class-agnostic branch; their ratio is what it costs.

GFLOP are those of a step's convolutions and matrix products, forward and backward; their share of the peak is beside
the speed of one large 3x3 convolution on the same machine, measured first.

--compile adds `torch.compile` of SCNet's step and of its inference, with the seconds that compiling took and the number
of breaks in its graph. --bfloat16 adds steps under autocast, which pay where the CPU multiplies in bfloat16.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fewshotseg as fs
from cases import episode, make_plain, make_scnet, parse, parser, settings
from timing import RESULTS, convolution_peak, environment, interleaved, ratio, save, summary, table

TOLERANCE = 1e-5
"""Of a loss."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = parser(__doc__, RESULTS / "train_step.json", rounds=5)
    made.add_argument("--batch", type=int, default=4, help="episodes a step (default: 4, PFENet's)")
    made.add_argument("--area", type=float, default=0.15, help="share of an image that is object (default: .15)")
    made.add_argument("--bfloat16", action="store_true", help="also under autocast to bfloat16")
    made.add_argument("--compile", action="store_true", help="also with torch.compile")
    options = parse(made, arguments)
    tensors = episode(options.size, batch=options.batch, area=options.area)
    steps = make_steps(options.hidden, tensors)
    losses = check_losses(options.hidden, tensors)
    peak = convolution_peak(channels=64 if options.quick else 512)["convolution"]
    gflop = {name: count_gflop(step) for name, step in steps.items()}
    extra: dict[str, Any] = {}
    if options.bfloat16:
        names = [name for name in steps if name != "plain, batch norms"]
        steps |= {f"{name}, bfloat16": make_steps(options.hidden, tensors, amp=True)[name] for name in names}
    if options.compile:
        if options.out == RESULTS / "train_step.json":
            options.out = RESULTS / "train_step-compiled.json"
        compiled = make_scnet(make_plain(options.hidden))
        steps["SCNet, compiled"] = step_of(compiled, lambda: compiled(*tensors).loss)
        extra["compiling"] = {"step": compile_first(compiled, steps["SCNet, compiled"])}
        extra["compiled_forward"] = compiled_forward(options, tensors, extra["compiling"])

    seconds = interleaved(steps, rounds=options.rounds, warmup=options.warmup)
    rows = summary(seconds, "plain, frozen norms")
    for name, row in rows.items():
        row["times_as_fast_as_official"] = ratio(seconds, "plain, batch norms", name)
        if name in gflop:
            row |= {"gflop": gflop[name], "share_of_peak": gflop[name] / row["seconds"] / peak}
    overhead = ratio(seconds, "SCNet", "PFENet")
    print(f"{table(rows)}\nSCNet takes {overhead:.3f} times as long as PFENet")
    content = {
        "environment": environment(),
        "settings": settings(options),
        "peak_gflops": peak,
        "steps": rows,
        "branch_overhead": overhead,
        "losses": losses,
        **extra,
    }
    save(options.out, content)
    return content


def make_steps(hidden: int, tensors: Sequence[Tensor], *, amp: bool = False) -> dict[str, Callable[[], float]]:
    """What is compared: each with a model, and an optimizer, of its own."""
    plain, frozen = make_plain(hidden), make_plain(hidden)
    pfenet, scnet = make_scnet(plain, self_contrast_weight=0.0), make_scnet(plain)
    plain.train()
    frozen.train()
    frozen.backbone.eval()
    return {
        "plain, batch norms": step_of(plain, lambda: sum(plain(*tensors)[1:]), amp=amp),
        "plain, frozen norms": step_of(frozen, lambda: sum(frozen(*tensors)[1:]), amp=amp),
        "PFENet": step_of(pfenet, lambda: pfenet(*tensors).loss, amp=amp),
        "SCNet": step_of(scnet, lambda: scnet(*tensors).loss, amp=amp),
    }


def step_of(model: nn.Module, loss_of: Callable[[], Any], *, amp: bool = False) -> Callable[[], float]:
    """Forward, backward, SGD as PFENet's; gives the loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def count_gflop(step: Callable[[], object]) -> float:
    """Of the convolutions and matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def check_losses(hidden: int, tensors: Sequence[Tensor]) -> dict[str, float]:
    """Losses of the plain transcription in evaluation mode; raises where ours differ."""
    plain = make_plain(hidden).eval()
    ours = make_scnet(plain, self_contrast_weight=0.0).eval()
    with torch.no_grad():
        _, main_loss, aux_loss = plain(*tensors)
        found = ours(*tensors).losses
    expected = {"main": float(main_loss), "aux": float(aux_loss)}
    for name, value in expected.items():
        assert abs(float(found[name]) - value) < TOLERANCE * value, f"{name} loss: {float(found[name])}, not {value}"
    return expected


def compile_first(model: fs.SCNet, first: Callable[[], object]) -> dict[str, float]:
    """Compile a model; how long its first call then takes, and in how many places its graph breaks."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.compile()
    start = time.perf_counter()
    first()
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    return {"first_call_seconds": time.perf_counter() - start, "graph_breaks": breaks}


def compiled_forward(options: Any, tensors: Sequence[Tensor], compiling: dict[str, Any]) -> dict[str, Any]:
    """Inference with and without `torch.compile`."""
    eager, compiled = (make_scnet(make_plain(options.hidden)).eval() for _ in range(2))
    inputs = [tensor[:1] for tensor in tensors[:3]]
    with torch.no_grad():
        compiling["forward"] = compile_first(compiled, lambda: compiled(*inputs))
        ways = {"eager": lambda: eager(*inputs), "compiled": lambda: compiled(*inputs)}
        rows = summary(interleaved(ways, rounds=options.rounds), "eager")
    print(f"{table(compiling)}\n\nforward, batch 1\n{table(rows)}\n")
    return rows


if __name__ == "__main__":
    main()
