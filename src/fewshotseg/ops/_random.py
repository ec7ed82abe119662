"""Random numbers for any device from one generator."""

import torch
from torch import Tensor


def uniform(shape: tuple[int, int], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), drawn on the generator's own device: one seed gives the same ones for every device."""
    if generator is None:
        return torch.rand(shape, device=device)
    return torch.rand(shape, generator=generator, device=generator.device).to(device)
