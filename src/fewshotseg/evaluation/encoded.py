"""Encodes the images of a data set, with a cache, so that each is encoded only once."""

from collections.abc import Iterable, Iterator, Sequence, Set
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from fewshotseg.data.episodes.dataset import EpisodeDataset
from fewshotseg.evaluation.reading import ReadAhead
from fewshotseg.models.encodings import in_kind
from fewshotseg.models.fast.lru import LeastRecentlyUsed

Key = tuple[str, int]
"""The id of an image, and the class of its mask."""


class EncodedImages:
    """A cache of the encodings and masks of a data set's images.

    Args:
        model: A `SegmentationModel`; its ``encode_both``, if it has one, is used for images in ``both``.
        episodes: The data set.
        both: Images that will be used as supports and as queries.
        like: A tensor with the device and dtype of the model's images.
        at_once: Largest number of images in a batch.
        max_bytes: Largest size of the cache.
        dtype: Dtype to store floating-point encodings in; unchanged by default.
        kept_on: Device to store encodings on; by default the model's.
        workers: Number of threads that read images in advance, see `prepare`.
    """

    def __init__(
        self,
        model: Any,
        episodes: EpisodeDataset,
        *,
        both: Set[Key],
        like: Tensor,
        at_once: int,
        max_bytes: int,
        dtype: torch.dtype | None,
        kept_on: torch.device | None = None,
        workers: int = 0,
    ) -> None:
        self._model = model
        self._both = both if hasattr(model, "encode_both") and max_bytes > 0 else frozenset()
        self._like = like
        self._at_once = at_once
        self._dtype = dtype
        self._kept_on = kept_on
        self._kept = LeastRecentlyUsed(max_bytes)
        # A function, not a method: a reference cycle would keep gigabytes until the garbage collector runs.
        self._load = ReadAhead(partial(_decode, episodes), workers=workers, room=2 * at_once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._load.close()

    def prepare(self, queries: Iterable[Key], supports: Iterable[Key]) -> None:
        """Start to read the images of the next batch."""
        roles = [*((key, ("query", "mask")) for key in queries), *((key, ("support",)) for key in supports)]
        self._load.prepare(key for key, names in roles if any((name, *key) not in self._kept for name in names))

    def queries(self, keys: Sequence[Key]) -> Any:
        """Encode images as queries, and join them into one batch."""
        return joined(self._all("query", keys))

    def supports(self, keys: Sequence[Key]) -> list[Any]:
        """Encode annotated images as supports of one shot each."""
        return self._all("support", keys)

    def mask(self, key: Key, *, original: bool) -> Tensor:
        """Return the ``(1, H, W)`` int64 label mask, of the transformed or the original image."""
        (mask,) = self._kept.get(("mask", *key), lambda: (self._load(key)[1 + original].to(torch.uint8),))
        return _sent(mask[None], self._like.device).long()

    def object_share(self, key: Key) -> Tensor:
        """Return the share of the original image that its class covers, ``(1,)``."""

        def measure() -> tuple[Tensor]:
            original = self._load(key)[2]
            return (torch.tensor([int((original == 1).sum()) / original.numel()], dtype=torch.float32, device="cpu"),)

        (part,) = self._kept.get(("share", *key), measure)
        return _sent(part, self._like.device)

    def _all(self, role: str, keys: Sequence[Key]) -> list[Any]:
        names = [(role, *key) for key in keys]
        kept = self._kept.get_all(names, lambda missing: self._encode(role, missing), at_once=self._at_once)
        return [_cast(encoding, self._like.dtype, self._like.device) for encoding in kept]

    def _encode(self, role: str, names: Sequence[tuple[str, str, int]]) -> list[Any]:
        other = "query" if role == "support" else "support"
        keys = [name[1:] for name in names]
        twice = [key for key in keys if key in self._both and (other, *key) not in self._kept]
        once = [key for key in keys if key not in twice]
        made: dict[Key, Any] = {}
        if once:
            images, masks = self._stacked(once)
            if role == "query":
                encoding = self._model.encode_query(images)
            else:
                encoding = self._model.encode_support(images[:, None], masks[:, None])
            made |= zip(once, self._apart(encoding, len(once)), strict=True)
        if twice:
            support, query = self._model.encode_both(*self._stacked(twice))
            asked, unasked = (query, support) if role == "query" else (support, query)
            made |= zip(twice, self._apart(asked, len(twice)), strict=True)
            for key, encoding in zip(twice, self._apart(unasked, len(twice)), strict=True):
                self._kept.put((other, *key), encoding)
        return [made[key] for key in keys]

    def _stacked(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        images, masks, _ = zip(*map(self._load, keys), strict=True)
        device = self._like.device
        return _sent(torch.stack(images), device).to(self._like.dtype), _sent(torch.stack(masks), device)

    def _apart(self, encoding: Any, count: int) -> Iterator[Any]:
        """Split the encoding of a batch into those of single images, as they are cached; each has its own memory."""
        for row in range(count):
            parts = [part[row : row + 1].clone() if count > 1 and _is_tensor(part) else part for part in encoding]
            yield _cast(in_kind(encoding, parts), self._dtype, self._kept_on)


def _decode(episodes: EpisodeDataset, key: Key) -> tuple[Tensor, Tensor, Tensor]:
    """Decode an image: returns image and mask after the transform, and the mask before it."""
    sample = episodes.sample(*key)
    return *episodes.transform(*sample), sample.mask.as_subclass(Tensor)


def joined(encodings: Sequence[Any]) -> Any:
    """Join encodings of single images into one batch."""
    if len(encodings) == 1:
        return encodings[0]
    parts = zip(*encodings, strict=True)
    return in_kind(encodings[0], [torch.cat(part) if _is_tensor(part[0]) else part[0] for part in parts])


def _cast(encoding: Any, dtype: torch.dtype | None, device: torch.device | None) -> Any:
    """Move the tensors of an encoding to a device, and floating-point ones to a dtype, if these are given."""
    return in_kind(encoding, [_moved(part, dtype, device) if _is_tensor(part) else part for part in encoding])


def _moved(part: Tensor, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
    part = part.to(dtype) if dtype is not None and part.is_floating_point() else part
    return part if device is None else _sent(part, device)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; from the host to CUDA through pinned memory, without synchronisation."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _is_tensor(part: object) -> bool:
    return isinstance(part, Tensor)
