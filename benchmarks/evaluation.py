"""Time `fewshotseg.evaluate`, which encodes every image once, and loops that encode all images of every episode.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --data VOC2012/ --size 473 --episodes 1000 --shots 5

All of them segment the same episodes with the same weights and the same metric; the program fails if one mIoU differs
by more than 1e-4. Weights are random, so the mIoU itself has no meaning. The time includes loading, resizing and
counting.

- "cache": `evaluate` with its defaults.
- "no cache": `evaluate` with ``cache_bytes=0``.
- "loop": `SCNet.forward`, episode by episode.
- "plain loop": `plain_pfenet`, episode by episode, as PFENet's official code does it.

The cache saves more if more episodes share their images; the results contain the number of encodings with and without
it. Classes are those of the first quarter. The resolutions of the comparison head are scaled with the images: at 473
pixels they are PFENet's, and at other sizes backbone and head have the same shares of the work.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewshotseg as fs
from cases import make_plain, make_scnet, parse, parser, settings
from fewshotseg.data import (
    ConcatSource,
    Episode,
    EpisodeDataset,
    FolderSource,
    SegmentationSource,
    SyntheticSource,
    VOCSource,
    padded_eval,
)
from plain_pfenet import BINS
from timing import RESULTS, environment, interleaved, save, summary, table

WAYS = ("cache", "no cache", "loop")
TOLERANCE = 1e-4
"""The largest allowed difference of two mIoU, from 0 to 1."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and save."""
    made = parser(__doc__, RESULTS / "evaluation.json", rounds=1, size=241)
    made.add_argument("--data", nargs="+", default=[], help="folders with images/ and masks/, or VOC 2012 roots")
    made.add_argument(
        "--images", type=int, default=200, help="number of synthetic images, without --data (default: 200)"
    )
    made.add_argument("--episodes", type=int, default=200, help="number of episodes (default: 200)")
    made.add_argument("--shots", type=int, default=1, help="supports in an episode (default: 1)")
    made.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="what to time besides the plain loop (default: all)"
    )
    options = parse(made, arguments)
    if options.quick:
        options.episodes, options.images = 4, 60

    source = open_source(options.data, options)
    classes = sorted(source.class_names)[: max(len(source.class_names) // 4, 1)]
    transform = padded_eval(options.size)
    episodes = EpisodeDataset(source, classes, shots=options.shots, length=options.episodes, transform=transform)
    bins = [max(round(side * options.size / 473), 2) for side in BINS]
    plain = make_plain(options.hidden, bins).eval().to(options.device)
    model = make_scnet(plain).eval()
    for number in range(len(episodes)):
        episode = episodes[number]  # read all images once, so that all later reads come from the cache of the disk
    for warm in (plain, model):
        segment(warm, episode, options.device)
    ways = {
        "cache": partial(fs.evaluate, model, episodes),
        "no cache": partial(fs.evaluate, model, episodes, cache_bytes=0),
        "loop": partial(loop, lambda *images: model(*images).logits, episodes, options.device),
    }
    ways = {name: ways[name] for name in options.ways} | {"plain loop": partial(loop, plain, episodes, options.device)}
    reports: dict[str, fs.IoUReport] = {}
    drawn = sorted({episodes.spec(number).class_id for number in range(len(episodes))})

    def keep_report(name: str) -> None:
        reports[name] = ways[name](fs.FewShotIoU(drawn))

    turns = {name: partial(keep_report, name) for name in ways}
    rows = summary(interleaved(turns, rounds=options.rounds, warmup=0, device=options.device), "plain loop")
    for name, row in rows.items():
        row |= {"seconds_an_episode": row["seconds"] / len(episodes), "miou": reports[name].miou}
        assert abs(row["miou"] - reports["plain loop"].miou) < TOLERANCE, f"{name} has another mIoU: {reports}"
    encodings = count_encodings(episodes)
    print(f"{table(rows)}\nencodings to make: {encodings}")
    content = {"environment": environment(options.device), "settings": settings(options)}
    content |= {"ways": rows, "encodings": encodings}
    save(options.out, content)
    return content


def open_source(folders: Sequence[str], options: Any) -> SegmentationSource:
    """Open folders of photographs, or make synthetic images if there are none."""
    if not folders:
        return SyntheticSource(options.images, size=max(options.size // 8 * 8, 32))
    sources = [
        FolderSource.from_root(folder) if (folder / "images").is_dir() else VOCSource(folder, split="val")
        for folder in map(Path, folders)
    ]
    return sources[0] if len(sources) == 1 else ConcatSource(*sources)


def loop(model: Callable[..., Tensor], episodes: EpisodeDataset, device: str, metric: fs.FewShotIoU) -> fs.IoUReport:
    """Segment one episode after the other without a cache."""
    for number in range(len(episodes)):
        episode = episodes[number]
        metric.update(segment(model, episode, device).cpu(), episode.query_mask[None], episode.class_id)
    return metric.compute()


@torch.no_grad()
def segment(model: Callable[..., Tensor], episode: Episode, device: str) -> Tensor:
    """Compute the logits of one episode."""
    images = (episode.support_images, episode.support_masks, episode.query_image)
    return model(*(tensor[None].to(device) for tensor in images))


def count_encodings(episodes: EpisodeDataset) -> dict[str, int]:
    """Count the encodings of queries and of supports of a class, without a cache and with one for all of them.

    "images" counts the images; what an image needs both as query and as support is computed once.
    """
    specs = [episodes.spec(number) for number in range(len(episodes))]
    queries = [spec.query for spec in specs]
    supports = [(name, spec.class_id) for spec in specs for name in spec.supports]
    return {
        "cache": len(set(queries)) + len(set(supports)),
        "no cache": len(queries) + len(supports),
        "images": len({*queries, *(name for name, _ in supports)}),
    }


if __name__ == "__main__":
    main()
