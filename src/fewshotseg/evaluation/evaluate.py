"""Evaluates a model on episodes; each image is encoded once, however many episodes use it."""

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
    """Segment the query of every episode, and compute the scores of a metric.

    Episodes are processed class by class and query by query, so that cached encodings are soon used again. Under
    `torch.distributed` each process takes its share of the episodes, and all return the same report.

    Args:
        model: The model; it runs in evaluation mode, with a frozen backbone in its faster form (see `SCNet.fuse`), and
            its modes are restored.
        episodes: The episodes, whose transform must not be random.
        metric: The metric; it is reset first.
        scoring: Where pixels are counted: ``"resized"``, on the transformed query, or ``"original"``, at the size of
            the stored mask, with logits resized as in PFENet (see `restore_size`; for square transforms that pad).
        batch_size: Episodes, and images to encode, in a batch; the transform must give all one size. It changes scores
            only by rounding; more than 1 is faster on an accelerator.
        device: Device to compute on, to which the model is moved; by default the model's.
        cache_bytes: Size of the cache for encodings that later episodes use; 0 for none. It does not change the report.
        cache_dtype: Dtype to cache encodings in, such as ``torch.float16`` for twice as many; unchanged by default. It
            changes scores by its rounding.
        cache_device: Device of the cache; by default the model's. ``"cpu"`` caches on the host, and copies back.
        workers: Threads that read the images of the next batch while the model runs. They do not change the report.
        threshold: Probability above which a pixel is foreground; by default the model's, or 0.5. It is applied alone:
            the settings ``example_window``, ``peak_threshold`` and ``min_presence``, which `FewShotPredictor` uses,
            have no effect here.
        progress: Wraps the numbers of the episodes, for example ``tqdm.tqdm``.

    Returns:
        The metric's report.

    Raises:
        ValueError: If ``scoring`` is unknown, a number is out of range or an episode's class is not among the metric's.
        TypeError: If the model, the episodes, the metric, a number or a dtype is of the wrong kind.

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
    """Segment the queries of a batch of episodes, and update the metric."""
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
    """Return the queries of episodes, and all of their supports."""
    specs = list(specs)
    queries = [(spec.query, spec.class_id) for spec in specs]
    return queries, [(image, spec.class_id) for spec in specs for image in spec.supports]


def _own_share(specs: Sequence[EpisodeSpec]) -> list[int]:
    """Return the numbers of the episodes of this process, class by class and query by query."""
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
