"""Time the training-free model and its backbone on one photograph, with supports that are already encoded.

    python benchmarks/segmenter.py
    python benchmarks/segmenter.py --backbone resnet50 --score cosine --shots 1 5 20

Seconds are CPU time for one photograph of --size pixels. "backbone" is the whole forward pass that SCNet needs; "as far
as needed" ends at the map that is compared, and every other row is that and the comparison. The backbone is fused.
Weights are random, which does not change the time. "support MiB" is the memory of the encoded supports: points and
their weights.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import fewshotseg as fs
from cases import episode, settings
from timing import RESULTS, environment, interleaved, ratio, save, summary, table


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="backbone (default: %(default)s)")
    parser.add_argument("--score", default="density", help="density, cosine or kmeans (default: %(default)s)")
    parser.add_argument("--size", type=int, default=384, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10], help="numbers of shots (default: 1 5 10)")
    parser.add_argument("--rounds", type=int, default=15, help="calls of each function (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round: only check that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "segmenter.json", help="JSON file to write")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the frozen backbone has random weights")
        model = fs.build_prototype_segmenter(options.backbone, score=options.score).eval().fuse()
    with torch.no_grad():
        rows, times = measured(model, options)
    print(f"{table(rows)}\n" + "\n".join(f"{name}: {value:.2f} times the backbone" for name, value in times.items()))
    content = {"environment": environment(), "settings": settings(options), "rows": rows, "times_the_backbone": times}
    save(options.out, content)
    return content


def measured(model: fs.PrototypeSegmenter, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    """Measure time and memory for each number of supports, also relative to the backbone."""
    query = episode(options.size)[2]
    whole = fs.build_prototype_segmenter(model.backbone, features="high").eval().fuse()
    functions: dict[str, Callable[[], object]] = {
        "backbone": lambda: whole.encode_query(query),
        "as far as needed": lambda: model.encode_query(query),
    }
    supports = {}
    for shots in options.shots:
        support = model.encode_support(*episode(options.size, shots=shots)[:2])
        supports[f"{shots} shot{'s' * (shots > 1)}"] = support
    for name, support in supports.items():
        functions[name] = lambda support=support: model.segment(support, model.encode_query(query))
    rounds, warmup = (1, 0) if options.quick else (options.rounds, 2)
    seconds = interleaved(functions, rounds=rounds, warmup=warmup, clock=time.process_time)
    rows = summary(seconds, "backbone")
    for name, support in supports.items():
        rows[name]["support MiB"] = sum(part.nbytes for part in support if part is not None) / 2**20
    return rows, {name: ratio(seconds, name, "backbone") for name in functions if name != "backbone"}


if __name__ == "__main__":
    main()
