"""Measuring a model over episodes: every image is encoded once, however many episodes it stands in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from fewshotseg._checks import check_at_least, check_choice
from fewshotseg._inference import example_weight, inference
from fewshotseg._lru import LeastRecentlyUsed
from fewshotseg.data.episodes import EpisodeDataset
from fewshotseg.data.geometry import restore_size
from fewshotseg.metrics import FewShotIoU, IoUReport


class StagedModel(Protocol):
    """What `evaluate` asks of a model, an ``nn.Module``: `SCNet` is one.

    Encodings are named tuples or tuples; their tensors have the batch as first axis, whatever else they hold is the
    same for all images of a size.
    """

    def encode_support(self, images: Tensor, masks: Tensor) -> Any:
        """``(B, S, 3, H, W)`` images and ``(B, S, H, W)`` label masks to whatever the model needs of them."""
        ...

    def merge_shots(self, shots: Sequence[Any]) -> Any:
        """Encodings of one shot each to an encoding of all."""
        ...

    def encode_query(self, images: Tensor) -> Any:
        """``(B, 3, H, W)`` images to whatever the model needs of them."""
        ...

    def segment(self, support: Any, query: Any) -> Tensor:
        """Both to ``(B, 2, H, W)`` logits, channel 1 foreground."""
        ...


def evaluate(
    model: StagedModel,
    episodes: EpisodeDataset,
    metric: FewShotIoU,
    *,
    scoring: Literal["resized", "original"] = "resized",
    batch_size: int = 1,
    device: torch.device | str | None = None,
    cache_bytes: int = 4 * 2**30,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> IoUReport:
    """Segment the query of every episode and count.

    Under `torch.distributed` every process takes its share of the episodes, none twice, and all get the same report.

    Args:
        model: Is put into evaluation mode meanwhile.
        episodes: With a transform that draws nothing.
        metric: Is reset first.
        scoring: Count on the transformed query, ``"resized"``, or at the size of the stored mask, ``"original"``,
            to which logits are brought as PFENet does (see `restore_size`; for square transforms that pad).
        batch_size: How many episodes, and images to encode, go through the model at once; their transform has to give
            one size. Changes numbers by rounding only; more than 1 pays on an accelerator.
        device: Where to compute; where the model is by default.
        cache_bytes: Memory for encodings that later episodes can use; 0 keeps none. The report is the same.
        progress: Wraps the episodes' numbers, such as ``tqdm.tqdm``.

    Returns:
        The metric's report.

    Raises:
        ValueError: If ``scoring`` is unknown, ``batch_size`` below 1 or an episode's class is not among the metric's.

    Example:
        >>> import fewshotseg
        >>> from fewshotseg.data import EpisodeDataset, SyntheticSource, padded_eval
        >>> source = SyntheticSource(20, num_classes=4, size=64)
        >>> episodes = EpisodeDataset(source, [1, 2], length=8, transform=padded_eval(65))
        >>> model = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,))
        >>> report = evaluate(model, episodes, fewshotseg.FewShotIoU([1, 2]))
        >>> report.episodes, 0 <= report.miou <= 1
        (8, True)
    """
    check_choice("scoring", scoring, ("resized", "original"))
    check_at_least("batch_size", batch_size, 1)
    module: Any = model
    if device is not None:
        module.to(device)
    weight = example_weight(module)
    cache = LeastRecentlyUsed(cache_bytes)

    pixels: dict[str, Tensor] = {}  # of the queries of a batch

    def encode_queries(keys: Sequence[str]) -> Iterator[Any]:
        return _rows(model.encode_query(torch.stack([pixels[key] for key in keys]).to(weight)), len(keys))

    def encode_supports(keys: Sequence[tuple[str, int]]) -> Iterator[Any]:
        images, masks = zip(*(episodes.transform(*episodes.sample(*key)) for key in keys), strict=True)
        shots = torch.stack(images)[:, None].to(weight), torch.stack(masks)[:, None].to(weight.device)
        return _rows(model.encode_support(*shots), len(keys))

    metric.reset()
    numbers: Iterable[int] = range(_rank(), len(episodes), _processes())
    with inference(module):
        for batch in _batches(numbers if progress is None else progress(numbers), batch_size):
            specs = [episodes.spec(number) for number in batch]
            samples = [episodes.sample(spec.query, spec.class_id) for spec in specs]
            images, masks = zip(*(episodes.transform(*sample) for sample in samples), strict=True)
            pixels = {spec.query: image for spec, image in zip(specs, images, strict=True)}
            queries = cache.get_all([spec.query for spec in specs], encode_queries, at_once=batch_size)
            shots = cache.get_all(
                [(name, spec.class_id) for spec in specs for name in spec.supports],
                encode_supports,
                at_once=batch_size,
            )
            count = len(shots) // len(specs)
            supports = [model.merge_shots(shots[count * i : count * (i + 1)]) for i in range(len(specs))]

            logits = model.segment(_joined(supports), _joined(queries))
            for i, (spec, sample) in enumerate(zip(specs, samples, strict=True)):
                answer, mask = logits[i : i + 1], masks[i]
                if scoring == "original":
                    mask = sample.mask
                    answer = restore_size(answer.float(), (mask.shape[0], mask.shape[1]))
                metric.update(answer, mask[None].as_subclass(Tensor).to(weight.device), spec.class_id)
    metric.sync()
    return metric.compute()


def _batches(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    iterator = iter(numbers)
    while batch := list(islice(iterator, size)):
        yield batch


def _rows(encoding: Any, count: int) -> Iterator[Any]:
    """The encodings of single images, each with memory of its own."""
    if count == 1:
        yield encoding
        return
    for row in range(count):
        yield _like(encoding, [part[row : row + 1].clone() if _is_tensor(part) else part for part in encoding])


def _joined(encodings: Sequence[Any]) -> Any:
    """The encoding of several images at once."""
    if len(encodings) == 1:
        return encodings[0]
    parts = zip(*encodings, strict=True)
    return _like(encodings[0], [torch.cat(part) if _is_tensor(part[0]) else part[0] for part in parts])


def _is_tensor(part: object) -> bool:
    return isinstance(part, Tensor)


def _like(encoding: Any, parts: Sequence[Any]) -> Any:
    return encoding._make(parts) if hasattr(encoding, "_make") else tuple(parts)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
