"""Which episodes and which random numbers belong to an iteration: the same however many processes share it."""

from collections.abc import Iterator

import numpy as np

from fewshotseg.training.processes import ProcessInfo
from fewshotseg.training.recipe import Recipe


def micro_batches(recipe: Recipe, process: ProcessInfo, start: int, total: int) -> Iterator[list[int]]:
    """Give the numbers of the episodes that this process takes, one micro-batch after the other.

    Args:
        recipe: How large an iteration is, and in how many parts it goes through the model.
        process: Takes every ``world_size``-th part.
        start: First iteration, from 0.
        total: Where iterations end.
    """
    size = recipe.batch // recipe.micro_batches
    for iteration in range(start, total):
        for part in range(process.rank, recipe.micro_batches, process.world_size):
            first = iteration * recipe.batch + part * size
            yield list(range(first, first + size))


def draw_seed(*numbers: int) -> int:
    """Make a seed for the draws of a micro-batch; the 1 keeps it apart from those of an episode's transforms."""
    return int(np.random.SeedSequence((*numbers, 1)).generate_state(1, np.uint64)[0])
