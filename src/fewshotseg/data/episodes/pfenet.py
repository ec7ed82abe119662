"""PFENet's test episodes, drawn with the same random numbers as its data loader."""

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
    """Draw the episodes that PFENet's released code tests on: the same queries, classes and supports.

    PFENet goes through its list of images in order, several times. An image is listed if it shows a class of the fold
    with at least ``min_area`` pixels. The class of an episode is drawn from all that the query shows, however small;
    its supports are drawn from the images that show it with at least ``min_area`` pixels. The random numbers depend on
    the number of worker processes of PFENet's loader, which is therefore a setting: 8 for PASCAL-5i, 16 for COCO-20i.
    The episodes equal PFENet's only for its label files at their original size, in the order of its list.

    Args:
        source: Images with class masks, in the order of PFENet's list.
        class_ids: The classes of the fold.
        shots: S, the number of supports.
        length: Largest number of episodes, up to 10 million; PFENet scores 5001 on PASCAL-5i and 20001 on COCO-20i.
        max_passes: Largest number of passes over the list: 20 in PFENet's test, 10 in its validation during training.
        seed: The seed of PFENet's run, 0 or more.
        workers: Number of worker processes of PFENet's loader, up to 1024; 0 for a loader without them.
        min_area: Smallest area in pixels of the stored masks.

    Returns:
        ``length`` episodes, or fewer if ``max_passes`` ends first; supports in the order in which they were drawn
        (PFENet stacks them in reverse).

    Raises:
        ValueError: If a class has fewer than ``shots + 1`` listed images, for which PFENet would search for ever (leave
            the class out of ``class_ids``), or a number is out of range.
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
    """Yield for each pass the random generators of the loader's worker processes."""
    base_seeds = torch.Generator().manual_seed(seed)
    alone = [random.Random(seed)]
    while True:
        # A torch loader draws one 64-bit number for each pass, and seeds worker w with that number plus w.
        base = int(torch.empty((), dtype=torch.int64, device="cpu").random_(generator=base_seeds))
        yield [random.Random(base + worker) for worker in range(workers)] or alone


def _draw_supports(stream: random.Random, candidates: Sequence[int], query: int, shots: int) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < shots:
        stream.randint(1, len(candidates))  # PFENet draws a number that it does not use before every support
        support = query
        while support == query or support in drawn:
            support = candidates[stream.randint(1, len(candidates)) - 1]
        drawn.append(support)
    return drawn
