"""What each process of the metric's test runs; in a module of its own, for new processes to import."""

import json
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from _inputs import choice
from fewshotseg.metrics import BaseNovelIoU, FewShotIoU, NWayIoU

CLASSES = (3, 8, 11)


def episodes(count, seed=0, size=(5, 7)):
    """Predictions, targets with void, and classes; the first three episodes have one class each."""
    predictions = choice([0, 0, 1], count, *size, seed=seed)
    targets = choice([0, 0, 1, 255], count, *size, seed=seed + 1)
    classes = choice(CLASSES, count, seed=seed + 2)
    classes[: len(CLASSES)] = torch.tensor(CLASSES)[:count]
    return predictions, targets, classes


def count_share(rank, world, folder):
    """Rank 0 scores five episodes and rank 1 none, then rank 1 two, then rank 0 three; each time they sync twice."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    try:
        predictions, targets, classes = episodes(7)
        metric, reports = FewShotIoU(CLASSES), []
        for whose, part in [(0, slice(0, 5)), (1, slice(5, 7)), (0, slice(0, 3))]:
            if rank == whose:
                metric.update(predictions[part], targets[part], classes[part])
            for _ in range(2):
                metric.sync()
                reports.append(metric.compute().to_dict())
        metric.update(predictions[:3], targets[:3], classes[:3])
        reports.append(metric.compute().episodes)
        Path(f"{folder}/{rank}.json").write_text(json.dumps(reports), encoding="utf-8")
        try:
            FewShotIoU([rank]).sync()
        except ValueError as fault:
            Path(f"{folder}/{rank}.txt").write_text(str(fault), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def n_way_episodes(count, ways, seed=0, classes=(3, 8, 11, 20)):
    """Predictions, targets with void, and different classes for each episode."""
    predictions = choice([*range(ways + 1), 0], count, 5, 7, seed=seed)
    targets = choice([*range(ways + 1), 0, 255], count, 5, 7, seed=seed + 1)
    targets[: count // 2][targets[: count // 2] == 1] = 0  # the first way is not there
    order = choice(range(1000), count, len(classes), seed=seed + 2).argsort(dim=1)[:, :ways]
    return predictions, targets, torch.tensor(classes)[order]


def count_n_way(rank, world, folder):
    """Rank 0 scores five episodes, rank 1 two."""
    count_together(rank, world, folder, NWayIoU((3, 8, 11, 20)), n_way_episodes(7, 2))


def label_maps(count, seed=0):
    """Predictions and targets with void, of classes 1, 2, 5 and 7."""
    return choice([0, 1, 2, 5, 7], count, 5, 7, seed=seed), choice([0, 1, 2, 5, 7, 255], count, 5, 7, seed=seed + 1)


def count_base_novel(rank, world, folder):
    """Rank 0 scores five images, rank 1 two."""
    count_together(rank, world, folder, BaseNovelIoU([1, 2], [5, 7]), label_maps(7))


def count_together(rank, world, folder, metric, episodes):
    """Score a share of the episodes, add up, and write the report."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    try:
        share = slice(0, 5) if rank == 0 else slice(5, 7)
        metric.update(*(part[share] for part in episodes))
        metric.sync()
        Path(f"{folder}/{rank}.json").write_text(json.dumps(metric.compute().to_dict()), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def count_with_torchmetrics(rank, world, folder):
    """Rank 0 scores five episodes, rank 1 two; torchmetrics adds up when it computes."""
    from fewshotseg.metrics.as_torchmetrics import FewShotIoUMetric

    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    try:
        metric, share = FewShotIoUMetric(CLASSES), slice(0, 5) if rank == 0 else slice(5, 7)
        metric.update(*(part[share] for part in episodes(7)))
        torch.save(metric.compute(), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()
