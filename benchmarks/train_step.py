"""Time a training step of PFENet in plain code, and of PFENet and SCNet with fewshotseg, with the same weights.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --compile
    python benchmarks/train_step.py --device cuda

A step is forward, backward and SGD with momentum and weight decay. All train the comparison head on the same batch of
one-shot episodes, with dropout and deep supervision.

- "plain, batch norms" is PFENet's official step: norms of the frozen backbone in training mode.
- "plain, frozen norms" computes the same as fewshotseg's PFENet; the program fails if their losses without dropout
  differ by more than 1e-5 (1e-4 on CUDA). Compare with this one: frozen norms alone make a step cheaper.
- "PFENet" and "SCNet" are fewshotseg's, without and with the class-agnostic branch; their ratio is the branch's cost.

GFLOP counts the operations of convolutions and matrix products, forward and backward. "Share of peak" is their speed
relative to that of one large 3x3 convolution, which is measured first on the same device.

--compile adds `torch.compile` of SCNet's step and of its inference, with the seconds to compile and the number of graph
breaks. --bfloat16 adds steps under autocast, which are faster on devices with bfloat16 instructions.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import fewshotseg as fs
from cases import episode, make_plain, make_scnet, parse, parser, settings, tolerance
from plain_pfenet import PlainPFENet
from timing import (
    RESULTS,
    convolution_peak,
    count_gflop,
    environment,
    interleaved,
    ratio,
    save,
    seconds_of,
    summary,
    table,
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = parser(__doc__, RESULTS / "train_step.json", rounds=5)
    made.add_argument("--batch", type=int, default=4, help="episodes in a step (default: 4, as for PFENet)")
    made.add_argument(
        "--area", type=float, default=0.15, help="share of an image that the object covers (default: .15)"
    )
    made.add_argument("--bfloat16", action="store_true", help="add steps under autocast to bfloat16")
    made.add_argument("--compile", action="store_true", help="add torch.compile")
    options = parse(made, arguments)
    made_on_cpu = episode(options.size, batch=options.batch, area=options.area)
    tensors = [tensor.to(options.device) for tensor in made_on_cpu]
    plain = make_plain(options.hidden).to(options.device)
    steps = make_steps(plain, tensors)
    losses = check_losses(plain, tensors, tolerance(options.device))
    peak = convolution_peak(device=options.device, channels=64 if options.quick else 512)["convolution"]
    gflop = {name: count_gflop(step) for name, step in steps.items()}
    extra: dict[str, Any] = {}
    if options.bfloat16:
        half = make_steps(plain, tensors, amp=True)
        steps |= {f"{name}, bfloat16": half[name] for name in half if name != "plain, batch norms"}
    if options.compile:
        if options.out == RESULTS / "train_step.json":
            options.out = RESULTS / "train_step-compiled.json"
        compiled = make_scnet(plain)
        steps["SCNet, compiled"] = step_of(compiled, lambda: compiled(*tensors).loss)
        extra["compiling"] = {"step": compile_first(compiled, steps["SCNet, compiled"], options.device)}
        extra["compiled_forward"] = compiled_forward(plain, tensors, extra["compiling"], options)

    seconds = interleaved(steps, rounds=options.rounds, warmup=options.warmup, device=options.device)
    rows = summary(seconds, "plain, frozen norms")
    for name, row in rows.items():
        row["times_as_fast_as_official"] = ratio(seconds, "plain, batch norms", name)
        if name in gflop:
            row |= {"gflop": gflop[name], "share_of_peak": gflop[name] / row["seconds"] / peak}
    overhead = ratio(seconds, "SCNet", "PFENet")
    print(f"{table(rows)}\nSCNet takes {overhead:.3f} times as long as PFENet")
    content = {
        "environment": environment(options.device),
        "settings": settings(options),
        "peak_gflops": peak,
        "steps": rows,
        "branch_overhead": overhead,
        "losses": losses,
        **extra,
    }
    save(options.out, content)
    return content


def make_steps(plain: PlainPFENet, tensors: Sequence[Tensor], *, amp: bool = False) -> dict[str, Callable[[], float]]:
    """Return the steps to compare, by name, each with its own optimizer and copy of the weights."""
    official, frozen = (copy.deepcopy(plain).train() for _ in range(2))
    frozen.backbone.eval()
    pfenet, scnet = make_scnet(plain, self_contrast_weight=0.0), make_scnet(plain)
    return {
        "plain, batch norms": step_of(official, lambda: sum(official(*tensors)[1:]), amp=amp),
        "plain, frozen norms": step_of(frozen, lambda: sum(frozen(*tensors)[1:]), amp=amp),
        "PFENet": step_of(pfenet, lambda: pfenet(*tensors).loss, amp=amp),
        "SCNet": step_of(scnet, lambda: scnet(*tensors).loss, amp=amp),
    }


def step_of(model: nn.Module, loss_of: Callable[[], Any], *, amp: bool = False) -> Callable[[], float]:
    """Return a function that trains a model for one step with PFENet's SGD and returns the loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = trained[0].device.type
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=amp):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def check_losses(plain: PlainPFENet, tensors: Sequence[Tensor], limit: float) -> dict[str, float]:
    """Return the losses of the plain transcription in evaluation mode; raise if fewshotseg's differ by more."""
    plain = copy.deepcopy(plain).eval()
    ours = make_scnet(plain, self_contrast_weight=0.0).eval()
    with torch.no_grad():
        _, main_loss, aux_loss = plain(*tensors)
        found = ours(*tensors).losses
    expected = {"main": float(main_loss), "aux": float(aux_loss)}
    for name, value in expected.items():
        assert abs(float(found[name]) - value) < limit * value, f"{name} loss: {float(found[name])}, not {value}"
    return expected


def compile_first(model: fs.SCNet, call: Callable[[], object], device: str) -> dict[str, float]:
    """Compile a model, and return the seconds of its first call and the number of graph breaks."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.compile()
    seconds = seconds_of(call, device)
    return {"first_call_seconds": seconds, "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values())}


def compiled_forward(
    plain: PlainPFENet, tensors: Sequence[Tensor], compiling: dict[str, Any], options: Any
) -> dict[str, Any]:
    """Time inference with and without `torch.compile`."""
    eager, compiled = (make_scnet(plain).eval() for _ in range(2))
    inputs = [tensor[:1] for tensor in tensors[:3]]
    with torch.no_grad():
        compiling["forward"] = compile_first(compiled, lambda: compiled(*inputs), options.device)
        ways = {"eager": lambda: eager(*inputs), "compiled": lambda: compiled(*inputs)}
        rows = summary(interleaved(ways, rounds=options.rounds, device=options.device), "eager")
    print(f"{table(compiling)}\n\nforward, batch 1\n{table(rows)}\n")
    return rows


if __name__ == "__main__":
    main()
