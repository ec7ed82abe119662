"""Running a model for its answers, whatever mode the caller left it in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, no gradient. Afterwards the model's mode is what it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def example_weight(model: nn.Module) -> Tensor:
    """A tensor with the device and the dtype that the model's images should have."""
    return next(model.parameters(), torch.zeros(()))
