"""Measure the peak memory of PFENet in plain code and of fewshotseg, each case in a new process.

    python benchmarks/memory.py
    python benchmarks/memory.py --device cuda

The peak is that of the whole process, with Python and PyTorch; with --device cuda, that of the tensors on the device.
"model" only builds the model, with random weights; "above model" is the difference to it. Every case runs twice,
because the first call may fill caches for the next. The training step is that of `train_step`: the plain one with norms
in training mode, as in PFENet's official code, fewshotseg's with the class-agnostic branch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch

from cases import build_scnet, episode, parse, parser, settings
from plain_pfenet import PlainPFENet
from timing import RESULTS, environment, peak_memory, save, table
from train_step import step_of

CASES = {
    "1 shot, batch 1": {},
    "1 shot, batch 4": {"batch": 4},
    "5 shots, batch 1": {"shots": 5},
    "training, batch 4": {"batch": 4},
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = parser(__doc__, RESULTS / "memory.json", rounds=3)
    made.add_argument(
        "--area", type=float, default=0.15, help="share of an image that the object covers (default: .15)"
    )
    options = parse(made, arguments)
    rows: dict[str, dict[str, float]] = {}
    for case in ("model", *CASES):
        row = {}
        for who in ("plain", "fewshotseg"):
            run = partial(run_case, who, case, options.size, options.hidden, options.area, options.device)
            row[who] = min(peak_memory(run) for _ in range(options.rounds))
        rows[case] = {**row, "share": row["fewshotseg"] / row["plain"]}
        for who, mib in row.items():
            rows[case][f"{who} above model"] = mib - rows["model"][who]
    print(f"MiB\n{table(rows)}")
    content = {"environment": environment(options.device), "settings": settings(options), "peak_mib": rows}
    save(options.out, content)
    return content


def run_case(who: Literal["plain", "fewshotseg"], case: str, size: int, hidden: int, area: float, device: str) -> None:
    """Run a case in this process."""
    model: Any = (PlainPFENet(hidden) if who == "plain" else build_scnet(hidden)).to(device)
    if case == "model":
        return
    tensors = [tensor.to(device) for tensor in episode(size, area=area, **CASES[case])]
    if case.startswith("training"):
        model.train()
        losses = (lambda: sum(model(*tensors)[1:])) if who == "plain" else (lambda: model(*tensors).loss)
        step = step_of(model, losses)
        step()
        step()
    else:
        model.eval()
        with torch.no_grad():
            model(*tensors[:3])
            model(*tensors[:3])


if __name__ == "__main__":
    main()
