"""Random inputs that are the same on every machine."""

from collections.abc import Sequence

import torch


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Drawn in float64, so that every dtype holds the same numbers, rounded."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def choice(values: Sequence[int], *shape: int, seed: int = 0) -> torch.Tensor:
    """Each value as often as it stands in ``values``, int64."""
    return torch.tensor(values)[torch.randint(len(values), shape, generator=generator(seed))]


def label_masks(*shape: int, seed: int = 0) -> torch.Tensor:
    """Foreground, background and some void."""
    return choice([0, 0, 0, 1, 1, 255], *shape, seed=seed)


def subset(*shape: int, seed: int = 0) -> torch.Tensor:
    """A bool mask, true for two thirds."""
    return choice([0, 1, 1], *shape, seed=seed).bool()
