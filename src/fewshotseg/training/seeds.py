"""Assigns episodes and seeds to iterations, independently of the number of processes."""

from collections.abc import Iterator

import numpy as np

from fewshotseg.training.processes import ProcessInfo
from fewshotseg.training.recipe import Recipe


def micro_batches(recipe: Recipe, process: ProcessInfo, start: int, total: int) -> Iterator[list[int]]:
    """Yield the numbers of the episodes of each micro-batch of this process.

    Args:
        recipe: The recipe, with the batch size and the number of micro-batches.
        process: This process, which takes every ``world_size``-th micro-batch.
        start: First iteration, from 0.
        total: Number of iterations of the run.
    """
    size = recipe.batch // recipe.micro_batches
    for iteration in range(start, total):
        for part in range(process.rank, recipe.micro_batches, process.world_size):
            first = iteration * recipe.batch + part * size
            yield list(range(first, first + size))


def draw_seed(*numbers: int) -> int:
    """Make the seed of a micro-batch; the 1 makes it differ from the seeds of episodes' transforms."""
    return int(np.random.SeedSequence((*numbers, 1)).generate_state(1, np.uint64)[0])
