"""Time spherical k-means: fewshotseg's `cosine_kmeans` and the k-means of other packages.

    python benchmarks/kmeans.py
    python benchmarks/kmeans.py --threads 1
    python benchmarks/kmeans.py --device cuda

All run ten rounds from the same initial centroids on maps of 60 x 60 points. The results name the packages
(`kmeans_peers`) that are not installed, and the errors of those that fail; a package that takes over ``SLOW`` times as
long as the fastest for one image is not timed further. On CUDA only packages that accept CUDA tensors run.

Equal for all: the points, the initial centroids if a package accepts them, the number of rounds, the number of
threads, and labels as the result. The other packages get contiguous unit vectors in the container that they need, while
`cosine_kmeans` gets feature vectors of any length and computes the lengths. All but flash-kmeans and torch-kmeans
cluster one image at a time. Different are:

- Similarity: faiss (spherical) and fast-pytorch-kmeans compare cosines as fewshotseg does; the latter with means that
  are not of unit length. scikit-learn, torch-kmeans, fastkmeans and flash-kmeans compare Euclidean distances. On unit
  vectors that differs from the cosine by the lengths of the means: the work is the same, the labels differ a little.
  "same" is the share of labels that equal those of fewshotseg.
- Start: kmeans-pytorch takes neither centroids nor a number of rounds: its start is replaced here, and it runs until
  its centroids no longer change. fastkmeans draws its own start.
- End: scikit-learn and fewshotseg stop when no label changes; faiss, flash-kmeans and fastkmeans run all rounds.
- Empty clusters: faiss splits another cluster, scikit-learn takes the farthest point, fastkmeans draws a new centroid,
  fast-pytorch-kmeans and torch-kmeans return a zero vector, kmeans-pytorch NaN; flash-kmeans and fewshotseg keep the
  centroid.

Points are rectified mixtures of ``PARTS`` directions with noise. A few per cent change their cluster in every round,
like features of photographs; "moving" is the share in the last round. The labels of fewshotseg are checked with a plain
implementation in float64.
"""

import argparse
import contextlib
import importlib
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import fewshotseg as fs
from cases import settings
from kmeans_peers import NUM_ITERS, Run, installed
from timing import RESULTS, environment, interleaved, ratio, save, seconds_of, summary, table

NUM_POINTS = 3600
PARTS, SHARPNESS, NOISE = 16, 2.0, 0.5
SLOW, LONG = 4, 1.0
WRONG = 1e-3
"""The largest share of labels that may differ from float64: those of points that are as near to two centroids."""

OURS, OURS_FIRST = "fewshotseg", "fewshotseg, channels first"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8], help="numbers of images (default: 1 4 8)")
    made.add_argument(
        "--channels", type=int, nargs="+", default=[256, 512, 2048], help="numbers of channels (default: 256 512 2048)"
    )
    made.add_argument(
        "--clusters", type=int, nargs="+", default=[3, 5, 16], help="numbers of clusters (default: 3 5 16)"
    )
    made.add_argument("--rounds", type=int, default=7, help="measurements of each function (default: 7)")
    made.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: 2)")
    made.add_argument("--device", default="cpu", help="device, such as cuda (default: cpu)")
    made.add_argument("--quick", action="store_true", help="small shapes, two rounds: only check that it runs")
    made.add_argument("--out", type=Path, default=RESULTS / "kmeans.json", help="JSON file to write")
    options = made.parse_args(arguments)
    if options.quick:
        options.batch, options.channels, options.clusters, options.rounds = [1, 2], [64], [3, 16], 2

    peers, missing = installed(options.device)
    shapes = []
    with threads(options.threads):
        for shape in product(options.batch, options.channels, options.clusters):
            shapes.append(measure(*shape, peers, options))
            print_shape(shapes[-1])
        content = {
            "environment": environment(options.device)
            | {"peers": {peer: version(peer) for peer in peers}, "missing": missing},
            "settings": settings(options),
            "shapes": shapes,
        }
    print(table({name_of(shape): shape["ratios"] for shape in shapes}))
    save(options.out, content)
    return content


def measure(batch: int, channels: int, clusters: int, peers: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Measure one shape, with fewshotseg and all packages that run in turn."""
    points, init = mixture(batch, channels, clusters)
    expected, moving = double_precision(points, init)
    points, init = points.to(options.device), init.to(options.device)
    first = points.mT.contiguous().mT
    result = fs.cosine_kmeans(points, init, num_iters=NUM_ITERS).labels.cpu()
    wrong = int((result != expected).sum())
    assert wrong <= WRONG * expected.numel(), f"{wrong} of {expected.numel()} labels differ from float64"

    unit, unit_init = F.normalize(points, dim=2), F.normalize(init, dim=2)
    states, same = {}, {}
    runs: dict[str, Run] = {
        OURS: lambda: fs.cosine_kmeans(points, init, num_iters=NUM_ITERS),
        OURS_FIRST: lambda: fs.cosine_kmeans(first, init, num_iters=NUM_ITERS),
    }
    trials = {peer: trial(make, unit[:1], unit_init[:1]) for peer, make in peers.items()}
    quickest = min((seconds for seconds, _ in trials.values() if seconds is not None), default=0.0)
    for peer, (seconds, outcome) in trials.items():
        if seconds is None:
            states[peer] = outcome
            continue
        same[peer] = float((outcome == result[0]).float().mean())
        if seconds <= SLOW * quickest:
            runs[peer] = peers[peer](unit, unit_init)
        else:
            states[peer] = f"slow: {seconds:.2g} s an image, {seconds / quickest:.0f} times the quickest peer"

    seconds = interleaved(runs, rounds=options.rounds, device=options.device)
    timed = [name for name in runs if name in peers]
    best = min(timed, key=lambda name: statistics.median(seconds[name]), default=OURS)
    return {
        "batch": batch,
        "channels": channels,
        "clusters": clusters,
        "moving": moving,
        "wrong_labels": wrong,
        "rows": summary(seconds, OURS),
        "same": same,
        "states": states,
        "best_peer": best,
        "ratios": {
            "best peer": best,
            "times as fast": ratio(seconds, best, OURS),
            "channels first": ratio(seconds, best, OURS_FIRST),
        },
    }


def mixture(batch: int, channels: int, clusters: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make non-negative points ``(B, N, C)`` of various lengths; the initial centroids are the first of them."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(batch, PARTS, channels, generator=generator)
    shares = (SHARPNESS * torch.randn(batch, NUM_POINTS, PARTS, generator=generator)).softmax(dim=2)
    points = shares @ directions + NOISE * torch.randn(batch, NUM_POINTS, channels, generator=generator)
    points = points.relu() * (0.5 + torch.rand(batch, NUM_POINTS, 1, generator=generator))
    return points, points[:, :clusters].clone()


def double_precision(points: Tensor, init: Tensor) -> tuple[Tensor, float]:
    """Compute labels ``(B, N)`` in float64, and the share of points that changed their cluster in the last round."""
    labels, moved = [], 0
    for image, start in zip(points.double(), init.double(), strict=True):
        unit, centroids = F.normalize(image, dim=1), F.normalize(start, dim=1)
        for _ in range(NUM_ITERS):
            before = (unit @ centroids.T).argmax(dim=1)
            for k in before.unique().tolist():
                centroids[k] = F.normalize(unit[before == k].sum(dim=0), dim=0)
        labels.append((unit @ centroids.T).argmax(dim=1))
        moved += int((labels[-1] != before).sum())
    return torch.stack(labels), moved / points[..., 0].numel()


def trial(make: Callable[[Tensor, Tensor], Run], unit: Tensor, init: Tensor) -> tuple[float | None, Any]:
    """Return the seconds for one image and its labels, or None and the error."""
    try:
        run, found = make(unit, init), []
        for _ in range(2):  # the first call may be slower than all others
            seconds = seconds_of(lambda: found.append(run()), unit.device)
            if seconds > LONG:
                break
        return seconds, torch.as_tensor(np.asarray(torch.as_tensor(found[-1][0]).cpu())).long()
    except Exception as error:  # the error is the result of this package
        return None, f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def threads(number: int) -> Any:
    """Set the number of threads of PyTorch and all packages, and suppress the packages' warnings."""
    torch.set_num_threads(number)
    pools: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        for module in ("sklearn.cluster", "faiss"):  # a pool of threads can be limited only after it is created
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        pools = threadpool_limits(number)
    with pools, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def name_of(shape: Mapping[str, Any]) -> str:
    """Return a short name, such as ``B4 C2048 n3``."""
    return f"B{shape['batch']} C{shape['channels']} n{shape['clusters']}"


def print_shape(shape: Mapping[str, Any]) -> None:
    """Print all rows of one shape."""
    rows = {name: row | {"same": shape["same"].get(name, "")} for name, row in shape["rows"].items()}
    print(
        f"{name_of(shape)}, moving {shape['moving']:.2%}, {shape['wrong_labels']} labels unlike float64\n{table(rows)}"
    )
    for peer, state in shape["states"].items():
        print(f"{peer}: {state}")
    print(flush=True)


if __name__ == "__main__":
    main()
