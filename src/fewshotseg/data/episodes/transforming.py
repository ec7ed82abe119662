"""Applies a transform with random numbers that depend only on the episode and the position in it."""

import os
from collections.abc import Callable, Sequence
from threading import RLock

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._checks import shown

EpisodeTransform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[Tensor, Tensor]]
"""Transforms a uint8 image ``(3, H, W)`` and its episode mask ``(H, W)`` to the model's input."""

_LOCKS: dict[int, RLock] = {}
"""Process id -> lock: a lock that is held while the process forks would never be released in the child."""


def check_transform(transform: EpisodeTransform) -> None:
    """Raise `TypeError` unless ``transform`` can be called."""
    if not callable(transform):
        raise TypeError(f"transform must be a function of an image and a mask, got {type(transform).__name__}")


def transformed(
    transform: EpisodeTransform,
    image: tv_tensors.Image,
    mask: tv_tensors.Mask,
    *,
    seed: int,
    number: int,
    place: int,
) -> tuple[Tensor, Tensor]:
    """Transform an image and its mask, with the same random numbers for the same seed, episode and place.

    Args:
        transform: Draws from torch's default CPU generator; the caller's random state does not change.
        image: ``(3, H, W)`` uint8.
        mask: ``(H, W)`` int64.
        seed: The seed of the data set.
        number: The number of the episode.
        place: The position in the episode: 0 the query, 1, 2, ... the supports.

    Raises:
        TypeError: If the transform returns something else than two tensors.
    """
    # place + 1, as numpy's seed (seed, number, 0) equals (seed, number), which draws the images of the episode.
    state = np.random.SeedSequence((seed, number, place + 1)).generate_state(1, np.uint64)
    # Threads share torch's generator, so they take turns.
    with _LOCKS.setdefault(os.getpid(), RLock()), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(state[0]))
        result = transform(image, mask)
    if not isinstance(result, Sequence) or [isinstance(part, Tensor) for part in result] != [True, True]:
        raise TypeError(f"transform must return an image and a mask, two tensors, got {type(result).__name__}")
    return result[0].as_subclass(Tensor), result[1].as_subclass(Tensor)


def stacked(shots: Sequence[tuple[Tensor, Tensor]], number: int) -> tuple[Tensor, Tensor]:
    """Stack images and masks of supports; raise unless the transform gives all of them one size."""
    images, masks = zip(*shots, strict=True)
    if len({part.shape for part in images}) > 1 or len({part.shape for part in masks}) > 1:
        raise ValueError(
            f"transform must resize all supports to one size, as padded_eval does, "
            f"got {shown([tuple(image.shape) for image in images])} in episode {number}"
        )
    return torch.stack(images), torch.stack(masks)
