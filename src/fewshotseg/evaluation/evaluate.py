"""Measuring a model over episodes: every image is encoded once, however many episodes it stands in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import torch
import torch.distributed as dist

from fewshotseg._checks import check_at_least, check_choice, check_float_dtype, checked_device
from fewshotseg._inference import example_weight, inference
from fewshotseg.data.episodes.dataset import EpisodeDataset
from fewshotseg.data.episodes.lists import EpisodeSpec
from fewshotseg.evaluation.encoded import EncodedImages, Key, joined
from fewshotseg.metrics import FewShotIoU, IoUReport
from fewshotseg.models.segmentation_model import (
    SegmentationModel,
    at_threshold,
    check_model,
    in_fast_form,
    threshold_of,
)
from fewshotseg.ops import restore_size


def evaluate(
    model: SegmentationModel,
    episodes: EpisodeDataset,
    metric: FewShotIoU,
    *,
    scoring: Literal["resized", "original"] = "resized",
    batch_size: int = 1,
    device: torch.device | str | None = None,
    cache_bytes: int = 4 * 2**30,
    cache_dtype: torch.dtype | None = None,
    cache_device: torch.device | str | None = None,
    workers: int = 0,
    threshold: float | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> IoUReport:
    """Segment the query of every episode and count.

    Episodes are taken class by class and query by query, so that what was encoded is soon used again. Under
    `torch.distributed` every process takes its share of them, none twice, and all get the same report.

    Args:
        model: Is run in evaluation mode, an `SCNet` in its faster form (see `SCNet.fuse`), and stays what it was.
        episodes: With a transform that draws nothing.
        metric: Is reset first.
        scoring: Count on the transformed query, ``"resized"``, or at the size of the stored mask, ``"original"``,
            to which logits are brought as PFENet does (see `restore_size`; for square transforms that pad).
        batch_size: How many episodes, and images to encode, go through the model at once; their transform has to give
            one size. Changes numbers by rounding only; more than 1 pays on an accelerator.
        device: Where to compute; where the model is by default.
        cache_bytes: Memory for encodings that later episodes can use; 0 keeps none. The report is the same.
        cache_device: Where this memory is: on the model's device by default, so a GPU's; ``"cpu"`` keeps encodings on
            the host, which costs their way back.
        workers: Threads that read the images of the next batch while the model runs. The report is the same.
        cache_dtype: To keep encodings in, such as ``torch.float16`` for twice as many; as they are by default. Changes
            numbers by its rounding.
        threshold: The probability from which on a pixel counts as foreground; by default the model's, else one half.
        progress: Wraps the episodes' numbers, such as ``tqdm.tqdm``.

    Returns:
        The metric's report.

    Raises:
        ValueError: If ``scoring`` is unknown, a number is out of range or an episode's class is not among the metric's.
        TypeError: If a number or dtype is of the wrong kind.

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
    check_model(model)
    if not isinstance(episodes, EpisodeDataset):
        raise TypeError(f"episodes must be an EpisodeDataset, got {type(episodes).__name__}")
    if not isinstance(metric, FewShotIoU):
        raise TypeError(f"metric must be a FewShotIoU, got {type(metric).__name__}")
    check_choice("scoring", scoring, ("resized", "original"))
    check_at_least("batch_size", batch_size, 1)
    check_at_least("cache_bytes", cache_bytes, 0)
    check_at_least("workers", workers, 0)
    check_float_dtype("cache_dtype", cache_dtype)
    threshold = threshold_of(model, threshold)
    module: Any = model
    if device is not None:
        module.to(checked_device(device))
    weight = example_weight(module)
    specs = [episodes.spec(number) for number in range(len(episodes))]
    share = _own_share(specs)
    queried, supporting = map(set, _images(specs[number] for number in share))

    metric.reset()
    with inference(module):
        fast = in_fast_form(module)
        encoded = EncodedImages(
            fast,
            episodes,
            both=queried & supporting,
            like=weight,
            at_once=batch_size,
            max_bytes=cache_bytes,
            dtype=cache_dtype,
            kept_on=None if cache_device is None else checked_device(cache_device),
            workers=workers,
        )
        ahead = _batches(share, batch_size)
        next(ahead, None)
        with encoded:
            for batch in _batches(share if progress is None else progress(share), batch_size):
                encoded.prepare(*_images(specs[number] for number in next(ahead, [])))
                _count(fast, [specs[number] for number in batch], encoded, metric, scoring, threshold)
    metric.sync()
    return metric.compute()


def _count(
    model: Any,
    specs: Sequence[EpisodeSpec],
    encoded: EncodedImages,
    metric: FewShotIoU,
    scoring: str,
    threshold: float,
) -> None:
    """Segment the queries of a batch of episodes, and let the metric count."""
    keys, supporting = _images(specs)
    queries, shots = encoded.queries(keys), encoded.supports(supporting)
    count = len(shots) // len(specs)
    supports = joined([model.merge_shots(shots[count * i : count * (i + 1)]) for i in range(len(specs))])
    logits = at_threshold(model.segment(supports, queries), threshold)  # B 2 H W
    if scoring == "original":
        for key, answer in zip(keys, torch.split(logits.float(), 1), strict=True):
            mask = encoded.mask(key, original=True)
            metric.update(restore_size(answer, (mask.shape[1], mask.shape[2])), mask, key[1])
    else:
        masks = torch.cat([encoded.mask(key, original=False) for key in keys])
        shares = torch.cat([encoded.object_share(key) for key in keys])
        metric.update(logits, masks, [class_id for _, class_id in keys], object_shares=shares)


def _images(specs: Iterable[EpisodeSpec]) -> tuple[list[Key], list[Key]]:
    """The queries of episodes, and all of their supports."""
    specs = list(specs)
    queries = [(spec.query, spec.class_id) for spec in specs]
    return queries, [(image, spec.class_id) for spec in specs for image in spec.supports]


def _own_share(specs: Sequence[EpisodeSpec]) -> list[int]:
    """The numbers of the episodes that this process takes, class by class and query by query."""
    order = sorted(range(len(specs)), key=lambda number: (specs[number].class_id, specs[number].query))
    return order[len(order) * _rank() // _processes() : len(order) * (_rank() + 1) // _processes()]


def _batches(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    iterator = iter(numbers)
    while batch := list(islice(iterator, size)):
        yield batch


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
