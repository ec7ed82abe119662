"""What importing fewshotseg costs beside torchvision, which it needs, each in fresh interpreters.

    python benchmarks/imports.py

Seconds are those of a whole process that imports and ends, after one that filled the disk's cache. "python" imports
nothing. The extra milliseconds are the median over the rounds of the difference to torchvision.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from timing import RESULTS, environment, interleaved, ratio, save, summary, table

STATEMENTS = {
    "python": "pass",
    "torch": "import torch",
    "torchvision": "import torchvision",
    "fewshotseg": "import fewshotseg",
    "fewshotseg.data": "import fewshotseg.data",
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="fresh interpreters for each import (default: 15)")
    parser.add_argument("--quick", action="store_true", help="one round: only to see it run")
    parser.add_argument("--out", type=Path, default=RESULTS / "imports.json", help="where results go")
    options = parser.parse_args(arguments)

    processes: dict[str, Callable[[], object]] = {
        name: partial(subprocess.run, [sys.executable, "-c", statement], check=True)
        for name, statement in STATEMENTS.items()
    }
    seconds = interleaved(processes, rounds=1 if options.quick else options.rounds, warmup=0 if options.quick else 1)
    rows = summary(seconds, "torchvision")
    times = ratio(seconds, "fewshotseg", "torchvision")
    pairs = zip(seconds["fewshotseg"], seconds["torchvision"], strict=True)
    extra = 1000 * statistics.median(ours - theirs for ours, theirs in pairs)
    print(f"{table(rows)}\nfewshotseg takes {times:.3f} times as long as torchvision, {extra:.0f} ms more")
    content = {"environment": environment(), "imports": rows, "ratio": times, "extra_milliseconds": extra}
    save(options.out, content)
    return content


if __name__ == "__main__":
    main()
