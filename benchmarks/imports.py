"""Time the import of fewshotseg and of torchvision, which it needs, each in a new process.

    python benchmarks/imports.py

Seconds are those of a process that imports and ends, after a first round that fills the cache of the disk. "python"
imports nothing, "fewshotseg" imports all its names, since `import fewshotseg` alone imports each on first use.
The extra milliseconds are the median over the rounds of the difference to torchvision. If other programs run on the
machine, use --cpu-time.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cases import settings
from timing import RESULTS, environment, interleaved, ratio, save, summary, table

STATEMENTS = {
    "python": "pass",
    "torch": "import torch",
    "torchvision": "import torchvision",
    "fewshotseg": "from fewshotseg import *",
    "fewshotseg.data": "import fewshotseg.data",
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="processes for each import (default: 15)")
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time instead of wall-clock time")
    parser.add_argument("--quick", action="store_true", help="one round: only check that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "imports.json", help="JSON file to write")
    options = parser.parse_args(arguments)

    processes: dict[str, Callable[[], object]] = {
        name: partial(subprocess.run, [sys.executable, "-c", statement], check=True)
        for name, statement in STATEMENTS.items()
    }
    rounds, warmup = (1, 0) if options.quick else (options.rounds, 1)
    clock = children_time if options.cpu_time else time.perf_counter
    seconds = interleaved(processes, rounds=rounds, warmup=warmup, clock=clock)
    rows = summary(seconds, "torchvision")
    times = ratio(seconds, "fewshotseg", "torchvision")
    pairs = zip(seconds["fewshotseg"], seconds["torchvision"], strict=True)
    extra = 1000 * statistics.median(ours - theirs for ours, theirs in pairs)
    print(f"{table(rows)}\nfewshotseg takes {times:.3f} times as long as torchvision, {extra:.0f} ms more")
    content = {
        "environment": environment(),
        "settings": settings(options),
        "imports": rows,
        "ratio": times,
        "extra_milliseconds": extra,
    }
    save(options.out, content)
    return content


def children_time() -> float:
    """Return the CPU time in seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
