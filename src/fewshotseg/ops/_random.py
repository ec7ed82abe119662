"""Random numbers for any device from one generator."""

import torch
from torch import Tensor

from fewshotseg._checks import check_generator
from fewshotseg.ops._devices import copy_to


def uniform(shape: tuple[int, int], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Draw uniform float32 numbers in [0, 1) on the generator's own device, so that a seed gives the same on every one.

    They are copied to ``device`` without host-device synchronisation, unless it is the CPU.
    """
    check_generator(generator)
    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=device)
    drawn = torch.rand(shape, dtype=torch.float32, generator=generator, device=generator.device)
    return copy_to(drawn, device)
