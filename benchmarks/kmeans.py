"""Spherical k-means on a CPU: fewshotseg's `cosine_kmeans` beside every k-means that pip installs, side by side.

    python benchmarks/kmeans.py
    python benchmarks/kmeans.py --threads 1

Ten rounds from the same start on maps of 60 x 60 points. A peer that is not installed is reported as missing, one that
fails with its error; one that takes over ``SLOW`` times as long as the quickest for one image is not timed further.

Equal for all: the points, their start where a peer takes one, the rounds, the number of threads, and that labels come
out. In the peers' favour: they get unit vectors, in one piece of memory, in the container that they want, while
`cosine_kmeans` gets feature vectors of any length and works the lengths out. All but flash-kmeans and torch-kmeans take
one image at a time. Not equal:

- faiss (spherical) and fast-pytorch-kmeans compare cosines as we do; the latter with means that are not of unit length.
- scikit-learn, torch-kmeans, fastkmeans and flash-kmeans compare Euclidean distances. On unit vectors that differs from
  the cosine by the lengths of the means, so labels differ a little and the work does not: "same" is the share of
  labels that equal ours.
- kmeans-pytorch can be given neither start nor rounds: here its start is replaced, and it goes on until its centroids
  rest. fastkmeans draws its own start.
- scikit-learn, and we, stop when no point moves; faiss, flash-kmeans and fastkmeans do all rounds.
- Empty clusters: faiss splits another, scikit-learn takes the farthest point, fastkmeans draws anew,
  fast-pytorch-kmeans and torch-kmeans give a zero vector, kmeans-pytorch NaN; flash-kmeans and we keep the centroid.

Points are rectified blends of ``PARTS`` directions with noise. A few in a hundred move in every round, as with features
of photographs; "moving" says how many did in the last one. Our labels are checked against plain rounds in float64.

With --device cuda, events time our rounds and those of the peers that take CUDA tensors. That was never run.
"""

import argparse
import contextlib
import importlib
import io
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import fewshotseg as fs
from cases import settings
from timing import RESULTS, environment, interleaved, ratio, save, summary, table

NUM_POINTS, NUM_ITERS = 3600, 10
PARTS, SHARPNESS, NOISE = 16, 2.0, 0.5
SLOW, LONG = 4, 1.0
WRONG = 1e-3
"""Share of points at most whose label may differ from float64: those that are as near to two centroids, and lead on."""

OURS, OURS_FIRST = "fewshotseg", "fewshotseg, channels first"
Run = Callable[[], Any]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8], help="images (default: 1 4 8)")
    made.add_argument("--channels", type=int, nargs="+", default=[256, 512, 2048], help="C (default: 256 512 2048)")
    made.add_argument("--clusters", type=int, nargs="+", default=[3, 5, 16], help="n (default: 3 5 16)")
    made.add_argument("--rounds", type=int, default=7, help="how often everything runs (default: 7)")
    made.add_argument("--threads", type=int, default=2, help="(default: 2)")
    made.add_argument("--device", default="cpu", help="(default: cpu)")
    made.add_argument("--quick", action="store_true", help="small shapes, two rounds: only to see it run")
    made.add_argument(
        "--out", type=Path, default=RESULTS / "kmeans.json", help="where results go (default: %(default)s)"
    )
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
            "environment": environment() | {"peers": {peer: version(peer) for peer in peers}, "missing": missing},
            "settings": settings(options),
            "shapes": shapes,
        }
    print(table({name_of(shape): shape["ratios"] for shape in shapes}))
    save(options.out, content)
    return content


def measure(batch: int, channels: int, clusters: int, peers: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """One shape: everything that runs, in turns."""
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
    """Points ``(B, N, C)`` of various lengths, none negative, and the first of them to start from."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(batch, PARTS, channels, generator=generator)
    shares = (SHARPNESS * torch.randn(batch, NUM_POINTS, PARTS, generator=generator)).softmax(dim=2)
    points = shares @ directions + NOISE * torch.randn(batch, NUM_POINTS, channels, generator=generator)
    points = points.relu() * (0.5 + torch.rand(batch, NUM_POINTS, 1, generator=generator))
    return points, points[:, :clusters].clone()


def double_precision(points: Tensor, init: Tensor) -> tuple[Tensor, float]:
    """Labels ``(B, N)`` by plain rounds in float64, and the share of points that moved in the last of them."""
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
    """Seconds for one image and its labels, or no seconds and the error."""
    try:
        run = make(unit, init)
        for _ in range(2):  # the first time is not the usual one
            start = time.perf_counter()
            labels = run()
            seconds = time.perf_counter() - start
            if seconds > LONG:
                break
        return seconds, torch.as_tensor(np.asarray(torch.as_tensor(labels[0]).cpu())).long()
    except Exception as error:  # whatever a peer raises is its result
        return None, f"{type(error).__name__}: {error}"


# Peers: unit vectors (B, N, C) and start (B, K, C) -> a function that gives labels, image by image


def scikit_learn(unit: Tensor, init: Tensor) -> Run:
    """`sklearn.cluster.KMeans`."""
    from sklearn.cluster import KMeans

    settings = {"n_clusters": init.shape[1], "n_init": 1, "max_iter": NUM_ITERS, "tol": 0, "algorithm": "lloyd"}
    images = list(zip(unit.numpy(), init.numpy(), strict=True))
    return lambda: [KMeans(init=start, **settings).fit(points).labels_ for points, start in images]


def faiss_cpu(unit: Tensor, init: Tensor) -> Run:
    """`faiss.Kmeans`, spherical, on all points."""
    import faiss

    settings = {"spherical": True, "min_points_per_centroid": 1, "max_points_per_centroid": NUM_POINTS}
    images = list(zip(unit.numpy(), init.numpy(), strict=True))

    def labels(points: np.ndarray, start: np.ndarray) -> np.ndarray:
        kmeans = faiss.Kmeans(points.shape[1], len(start), niter=NUM_ITERS, **settings)
        kmeans.train(points, init_centroids=start)
        return kmeans.assign(points)[1]

    return lambda: [labels(*image) for image in images]


def fast_pytorch_kmeans(unit: Tensor, init: Tensor) -> Run:
    """`fast_pytorch_kmeans.KMeans`, cosine."""
    from fast_pytorch_kmeans import KMeans

    def labels(points: Tensor, start: Tensor) -> Tensor:
        kmeans = KMeans(len(start), max_iter=NUM_ITERS, tol=0, mode="cosine")
        kmeans.fit_predict(points, centroids=start)
        return kmeans.predict(points)

    return lambda: [labels(*image) for image in zip(unit, init, strict=True)]


def kmeans_pytorch(unit: Tensor, init: Tensor) -> Run:
    """`kmeans_pytorch.kmeans`, cosine, from our start; it prints."""
    module = importlib.import_module("kmeans_pytorch")

    def labels(points: Tensor, start: Tensor) -> Tensor:
        with mock.patch.object(module, "initialize", return_value=start.clone()):
            return module.kmeans(points, len(start), distance="cosine", device=points.device)[0]

    def run() -> list[Tensor]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return [labels(*image) for image in zip(unit, init, strict=True)]

    return run


def torch_kmeans(unit: Tensor, init: Tensor) -> Run:
    """`torch_kmeans.KMeans`."""
    from torch_kmeans import KMeans

    kmeans = KMeans(num_init=1, max_iter=NUM_ITERS, tol=0, n_clusters=init.shape[1], verbose=False)
    return lambda: kmeans(unit, centers=init).labels


def fastkmeans(unit: Tensor, init: Tensor) -> Run:
    """`fastkmeans.FastKMeans`, from its own start."""
    from fastkmeans import FastKMeans

    settings = {"niter": NUM_ITERS, "tol": 0, "gpu": False, "max_points_per_centroid": None, "use_triton": False}
    images, (_, clusters, channels) = list(unit.numpy()), init.shape
    return lambda: [FastKMeans(channels, clusters, **settings).fit_predict(points) for points in images]


def flash_kmeans(unit: Tensor, init: Tensor) -> Run:
    """`flash_kmeans`: its fallback in PyTorch on a CPU, its cosine kernel on CUDA."""
    if unit.is_cuda:
        from flash_kmeans import batch_kmeans_Cosine as kmeans
    else:
        from flash_kmeans.torch_fallback import batch_kmeans_Euclid_torch_native as kmeans
    return lambda: kmeans(unit, init.shape[1], max_iters=NUM_ITERS, tol=0.0, init_centroids=init)[0]


PEERS = {
    "scikit-learn": scikit_learn,
    "faiss-cpu": faiss_cpu,
    "fast-pytorch-kmeans": fast_pytorch_kmeans,
    "kmeans-pytorch": kmeans_pytorch,
    "torch-kmeans": torch_kmeans,
    "fastkmeans": fastkmeans,
    "flash-kmeans": flash_kmeans,
}
ON_CUDA = ("fast-pytorch-kmeans", "kmeans-pytorch", "torch-kmeans", "flash-kmeans")


def installed(device: str) -> tuple[dict[str, Any], list[str]]:
    """The peers for a device by the name that pip knows them by, and the names of those that are not installed."""
    found, missing = {}, []
    for peer, make in PEERS.items():
        if device == "cpu" or peer in ON_CUDA:
            try:
                version(peer)
                found[peer] = make
            except PackageNotFoundError:
                missing.append(peer)
    return found, missing


@contextlib.contextmanager
def threads(number: int) -> Any:
    """That many threads for PyTorch and for the pools of all peers; their warnings stay silent."""
    torch.set_num_threads(number)
    pools: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_limits

        for module in ("sklearn.cluster", "faiss"):  # their pools must be there to be limited
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        pools = threadpool_limits(number)
    with pools, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def name_of(shape: Mapping[str, Any]) -> str:
    """Such as ``B4 C2048 n3``."""
    return f"B{shape['batch']} C{shape['channels']} n{shape['clusters']}"


def print_shape(shape: Mapping[str, Any]) -> None:
    """All rows of one shape."""
    rows = {name: row | {"same": shape["same"].get(name, "")} for name, row in shape["rows"].items()}
    print(
        f"{name_of(shape)}, moving {shape['moving']:.2%}, {shape['wrong_labels']} labels unlike float64\n{table(rows)}"
    )
    for peer, state in shape["states"].items():
        print(f"{peer}: {state}")
    print(flush=True)


if __name__ == "__main__":
    main()
