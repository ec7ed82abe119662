"""A cache for the features of a frozen backbone."""

import hashlib
import warnings
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from fewshotseg._checks import check_float_dtype
from fewshotseg.models.fast.lru import LeastRecentlyUsed
from fewshotseg.models.fast.state import State, digest
from fewshotseg.ops._precision import autocast_dtype


class FeatureMemory:
    """A cache for backbone features: in training the frozen backbone runs once for each image, not for each episode.

    Set ``model.memory = FeatureMemory(...)``; several models may share one. Features are stored under digests of the
    backbone's weights and settings, of the image's pixels and of a support's mask, so that results are those of the
    backbone up to rounding. It helps on a CPU if images come again unchanged: with resizing only or mirroring (two
    versions of an image), not with random crops. A backbone with hooks, in training mode, with norms that take their
    statistics from the batch or with layers that are quantized by their inputs' range runs each time, as does any
    backbone inside a graph (`torch.compile`, export, tracing); it warns of hooks. Not detected are writing to weights
    through ``parameter.data``, and changes inside objects that a module refers to, other than modules, tensors, lists,
    dicts and sets.

    Args:
        max_bytes: Largest size of all features; the least recently used ones are dropped first.
        dtype: Dtype to store features in, such as ``torch.float16`` for half the memory; unchanged by default.

    Raises:
        ValueError: If ``max_bytes`` is negative.
        TypeError: If ``max_bytes`` is not an integer, or ``dtype`` not a floating-point dtype.

    Example:
        >>> import fewshotseg, torch
        >>> model = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8).eval()
        >>> images = torch.rand(1, 3, 65, 65)
        >>> expected = model.encode_query(images).features
        >>> model.memory = fewshotseg.FeatureMemory(2**28)
        >>> torch.allclose(model.encode_query(images).features, expected, atol=1e-6)
        True
    """

    def __init__(self, max_bytes: int, *, dtype: torch.dtype | None = None) -> None:
        self._kept = LeastRecentlyUsed(max_bytes)
        check_float_dtype("dtype", dtype)
        self._dtype = dtype
        self._digests: WeakKeyDictionary[Any, tuple[State, bytes | None]] = WeakKeyDictionary()
        self._warned_of: WeakSet[Any] = WeakSet()

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        """Copy or pickle the settings only; the new cache is empty."""
        return partial(FeatureMemory, dtype=self._dtype), (self._kept.limit,)

    def digest_of(self, backbone: Any) -> bytes | None:
        """Return the digest of a backbone, computed anew if it has changed; None if it has no digest."""
        known = self._digests.get(backbone)
        if known is None or not known[0].holds():
            known = self._digests[backbone] = State(backbone), digest(backbone)
            if known[1] is None and backbone not in self._warned_of:
                self._warned_of.add(backbone)
                warnings.warn(
                    "memory caches nothing for this backbone, whose modules have hooks or tensors that cannot be read",
                    stacklevel=2,
                )
        return known[1]

    def __call__(self, name: Hashable, stage: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run ``stage`` on a batch image by image, with results from the cache where it has them.

        Results under autocast are stored apart.
        """

        def recall(*image: Tensor) -> tuple[Tensor, ...]:
            maps: tuple[Tensor, ...] = self._kept.get((*key, *map(_digest, image)), partial(self._run, stage, image))
            return maps

        key = name, autocast_dtype(inputs[0].device)

        return tuple(maps.to(inputs[0].dtype) for maps in image_by_image(recall, *inputs))

    def _run(self, stage: Callable[..., tuple[Tensor, ...]], image: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(features.to(self._dtype or features.dtype) for features in stage(*image))


def image_by_image(stage: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run ``stage`` on a batch, with one image of each of ``inputs`` at a time."""
    if not len(inputs[0]):
        return stage(*inputs)
    wholes: tuple[Tensor, ...] = ()
    for number, image in enumerate(zip(*inputs, strict=True)):
        parts = stage(*(each[None] for each in image))
        wholes = wholes or tuple(torch.empty_like(part.expand(len(inputs[0]), *part.shape[1:])) for part in parts)
        for whole, part in zip(wholes, parts, strict=True):
            whole[number] = part[0]  # copied at once: collecting the parts first would need twice the memory
    return wholes


def _digest(image: Tensor) -> bytes:
    pixels = image.detach().cpu().contiguous()
    return hashlib.sha256(pixels.view(torch.uint8).numpy().tobytes()).digest() + str(tuple(pixels.shape)).encode()
