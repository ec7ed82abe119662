"""PFENet's own validation episodes, drawn as its loader draws them, but without its worker processes."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from fewshotseg._checks import check_at_least
from fewshotseg.data.episodes.lists import EpisodeSpec
from fewshotseg.data.episodes.sampling import MAX_SEED, images_by_class
from fewshotseg.data.sources.source import SegmentationSource


def pfenet_episodes(
    source: SegmentationSource,
    class_ids: Iterable[int],
    *,
    shots: int = 1,
    length: int = 5001,
    max_passes: int = 20,
    seed: int = 321,
    workers: int = 8,
    min_area: int = 2048,
) -> list[EpisodeSpec]:
    """Draw the episodes that PFENet's released code is scored on: the same queries, classes and supports.

    PFENet goes through the images of its list in order, again and again. An image is in the list if it holds a class
    with at least ``min_area`` pixels. Its class is drawn from all that it shows, however small; supports come from
    the images that hold the class with ``min_area`` pixels. Draws depend on the number of worker processes of the
    original loader, which is therefore a setting: 8 for PASCAL-5i, 16 for COCO-20i. Equal to the original only for its
    label files at their resolution, in the order of its list.

    Args:
        source: Images with class masks, in the order of PFENet's list.
        class_ids: The classes of the fold.
        shots: S, the number of supports.
        length: Episodes at most, up to 10 million; PFENet scores 5001 on PASCAL-5i and 20001 on COCO-20i.
        max_passes: Passes over the list at most: 20 in PFENet's test, 10 in its validation while training.
        seed: Of PFENet's run, 0 or more.
        workers: Of PFENet's loader, up to 1024; 0 for a loader without worker processes.
        min_area: In pixels of the stored masks.

    Returns:
        ``length`` episodes, or fewer where the passes end; supports in the order in which they were drawn (PFENet
        stacks them in reverse).

    Raises:
        ValueError: If a class has fewer than ``shots + 1`` images in the list, where PFENet would search forever, or
            if one shows only in other classes' images; leave it out of ``class_ids`` then. If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(20, num_classes=4, size=128)
        >>> episodes = pfenet_episodes(source, [1, 2], min_area=100, max_passes=2)
        >>> episodes[0].query in source.ids, episodes[0].query != episodes[0].supports[0]
        (True, True)
    """
    length = check_at_least("length", length, 1, 10**7)
    max_passes = check_at_least("max_passes", max_passes, 1, 10**7)
    seed = check_at_least("seed", seed, 0, MAX_SEED)
    workers = check_at_least("workers", workers, 0, 1024)
    images = images_by_class(source, class_ids, shots=shots, min_area=min_area)
    ids = source.ids
    queries = sorted(set().union(*images.values()))
    shown = [[c for c in images if source.class_areas[query].get(c, 0)] for query in queries]

    def draw() -> Iterator[EpisodeSpec]:
        for streams in islice(_worker_streams(seed, workers), max_passes):
            for number, (query, classes) in enumerate(zip(queries, shown, strict=True)):
                stream = streams[number % len(streams)]
                class_id = classes[stream.randint(1, len(classes)) - 1]
                supports = _draw_supports(stream, images[class_id], query, shots)
                yield EpisodeSpec(class_id, ids[query], tuple(ids[support] for support in supports))

    return list(islice(draw(), length))


def _worker_streams(seed: int, workers: int) -> Iterator[Sequence[random.Random]]:
    """Python's generators as the worker processes of each pass have them."""
    base_seeds = torch.Generator().manual_seed(seed)
    alone = [random.Random(seed)]
    while True:
        # A torch loader draws one 64-bit number a pass and seeds worker w with it plus w.
        base = int(torch.empty((), dtype=torch.int64, device="cpu").random_(generator=base_seeds))
        yield [random.Random(base + worker) for worker in range(workers)] or alone


def _draw_supports(stream: random.Random, candidates: Sequence[int], query: int, shots: int) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < shots:
        stream.randint(1, len(candidates))  # PFENet draws once for nothing before every support
        support = query
        while support == query or support in drawn:
            support = candidates[stream.randint(1, len(candidates)) - 1]
        drawn.append(support)
    return drawn
