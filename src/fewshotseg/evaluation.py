"""Measuring a model over episodes: every image is encoded once, however many episodes it stands in."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from fewshotseg._checks import check_choice
from fewshotseg._inference import example_weight, inference
from fewshotseg._lru import LeastRecentlyUsed
from fewshotseg.data.episodes import EpisodeDataset
from fewshotseg.data.geometry import restore_size
from fewshotseg.metrics import FewShotIoU, IoUReport


class StagedModel(Protocol):
    """What `evaluate` asks of a model, an ``nn.Module``: `SCNet` is one.

    Encodings are named tuples or tuples of tensors.
    """

    def encode_support(self, images: Tensor, masks: Tensor) -> Any:
        """``(1, S, 3, H, W)`` images and ``(1, S, H, W)`` label masks to whatever the model needs of them."""
        ...

    def merge_shots(self, shots: Sequence[Any]) -> Any:
        """Encodings of one shot each to an encoding of all."""
        ...

    def encode_query(self, images: Tensor) -> Any:
        """``(1, 3, H, W)`` images to whatever the model needs of them."""
        ...

    def segment(self, support: Any, query: Any) -> Tensor:
        """Both to ``(1, 2, H, W)`` logits, channel 1 foreground."""
        ...


def evaluate(
    model: StagedModel,
    episodes: EpisodeDataset,
    metric: FewShotIoU,
    *,
    scoring: Literal["resized", "original"] = "resized",
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
        device: Where to compute; where the model is by default.
        cache_bytes: Memory for encodings that later episodes can use; 0 encodes anew for every episode. The report
            is the same.
        progress: Wraps the episodes' numbers, such as ``tqdm.tqdm``.

    Returns:
        The metric's report.

    Raises:
        ValueError: If ``scoring`` is unknown or an episode's class is not among the metric's.

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
    module: Any = model
    if device is not None:
        module.to(device)
    weight = example_weight(module)
    cache = LeastRecentlyUsed(cache_bytes)

    def encode_query(image: Tensor) -> Any:
        return model.encode_query(image[None].to(weight))

    def encode_support(image_id: str, class_id: int) -> Any:
        image, mask = episodes.transform(*episodes.sample(image_id, class_id))
        return model.encode_support(image[None, None].to(weight), mask[None, None].to(weight.device))

    metric.reset()
    numbers: Iterable[int] = range(_rank(), len(episodes), _processes())
    with inference(module):
        for number in numbers if progress is None else progress(numbers):
            class_id, query_id, support_ids = episodes.spec(number)
            sample = episodes.sample(query_id, class_id)
            image, mask = episodes.transform(*sample)
            query = cache.get(query_id, partial(encode_query, image))
            shots = [cache.get((name, class_id), partial(encode_support, name, class_id)) for name in support_ids]
            logits = model.segment(model.merge_shots(shots), query)
            if scoring == "original":
                mask = sample.mask
                logits = restore_size(logits.float(), (mask.shape[0], mask.shape[1]))
            metric.update(logits, mask[None].as_subclass(Tensor).to(weight.device), class_id)
    metric.sync()
    return metric.compute()


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
