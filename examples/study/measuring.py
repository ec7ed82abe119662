"""How a model is tested: counts of every episode, and what other thresholds would give."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import fewshotseg as fs
from fewshotseg.data import EpisodeDataset, episodes_hash
from fewshotseg.training.benchmark import Benchmark, DataSettings, draw_test

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Probabilities from which on a pixel could count as foreground; results are of one half, as everybody's."""
WATCHED_EPISODES = 100


class Counted(fs.FewShotIoU):
    """Keeps what it counted of each episode, how sure the surest pixel was, and what other thresholds would give.

    Attributes:
        episodes: Class, and pixels that are foreground in answer and target, in either, and in the target; in the order
            in which `fewshotseg.evaluate` comes to them.
        top: The largest probability of foreground.
        at: A metric for each of `THRESHOLDS`.
    """

    def reset(self) -> None:
        """Forget all episodes."""
        super().reset()
        self.episodes: list[tuple[int, ...]] = []
        self.top = 0.0
        self.at = {threshold: fs.FewShotIoU(self.class_ids) for threshold in THRESHOLDS}

    def update(
        self, prediction: Tensor, target: Tensor, class_ids: int | Sequence[int] | Tensor, **how: Tensor | None
    ) -> None:
        """Count an episode, of a batch of one."""
        super().update(prediction, target, class_ids, **how)
        scored = target != self.ignore_index
        foreground, truth = (prediction[:, 1] > prediction[:, 0]) & scored, target == 1
        counts = (part.sum() for part in (foreground & truth, foreground | truth, truth))
        self.episodes.append((int(torch.as_tensor(class_ids)), *map(int, counts)))
        margin = prediction[:, 1] - prediction[:, 0]
        self.top = max(self.top, float(margin.max().sigmoid()))
        for threshold, metric in self.at.items():
            metric.update(margin > math.log(threshold / (1 - threshold)), target, class_ids)

    def sync(self) -> None:
        """Take in what all processes counted."""
        super().sync()
        if dist.is_available() and dist.is_initialized():
            shares: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shares, (self.episodes, self.top))
            self.episodes = [episode for episodes, _ in shares for episode in episodes]
            self.top = max(top for _, top in shares)
        for metric in self.at.values():
            metric.sync()


def measure(model: Any, episodes: EpisodeDataset, benchmark: Benchmark, data: DataSettings) -> dict[str, Any]:
    """Test on all episodes; what `IoUReport` has, and what `Counted` keeps."""
    names = benchmark.test.class_names
    metric = Counted(
        benchmark.split.novel, class_names={class_id: names[class_id] for class_id in benchmark.split.novel}
    )
    report = fs.evaluate(model, episodes, metric, scoring=data.protocol.scoring, cache_bytes=2**28)
    return {
        **report.to_dict(),
        "top": round(metric.top, 4),
        "at": {str(threshold): metric.compute().miou for threshold, metric in metric.at.items()},
        "episodes_hash": episodes_hash(episodes.specs),
        "counts": metric.episodes,
    }


def look(model: fs.SCNet, benchmark: Benchmark, data: DataSettings) -> dict[str, float]:
    """What the curve shows: mIoU on the first test episodes with one support, and the largest probability."""
    protocol = replace(data.protocol, episodes=min(WATCHED_EPISODES, data.protocol.episodes))
    episodes = draw_test(benchmark, protocol, model, shots=1, seed=protocol.seeds[0])
    found = measure(model, episodes, benchmark, data)
    return {"miou": found["miou"], "top": found["top"]}
