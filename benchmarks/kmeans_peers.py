"""K-means of other packages with one signature: unit vectors, initial centroids -> a function that returns labels.

Unit vectors have shape ``(B, N, C)``, centroids ``(B, K, C)``. Images are clustered one by one unless a package accepts
a batch.
"""

import contextlib
import importlib
import io
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest import mock

import numpy as np
from torch import Tensor

NUM_ITERS = 10

Run = Callable[[], Any]


def scikit_learn(unit: Tensor, init: Tensor) -> Run:
    """`sklearn.cluster.KMeans`."""
    from sklearn.cluster import KMeans

    settings = {"n_clusters": init.shape[1], "n_init": 1, "max_iter": NUM_ITERS, "tol": 0, "algorithm": "lloyd"}
    images = list(zip(unit.numpy(), init.numpy(), strict=True))
    return lambda: [KMeans(init=start, **settings).fit(points).labels_ for points, start in images]


def faiss_cpu(unit: Tensor, init: Tensor) -> Run:
    """`faiss.Kmeans`, spherical, on all points."""
    import faiss

    settings = {"spherical": True, "min_points_per_centroid": 1, "max_points_per_centroid": unit.shape[1]}
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
    """`kmeans_pytorch.kmeans`, cosine, from the given centroids; its output is suppressed."""
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
    """Return the packages that run on a device, by their name for pip, and the names of those not installed."""
    found, missing = {}, []
    for peer, make in PEERS.items():
        if device == "cpu" or peer in ON_CUDA:
            try:
                version(peer)
                found[peer] = make
            except PackageNotFoundError:
                missing.append(peer)
    return found, missing
