"""Trained models for use, wherever they come from."""

import math
from contextlib import suppress
from pathlib import Path

import torch

import fewshotseg as fs
from fewshotseg.models import load_pretrained
from fewshotseg.models.checkpoints import read_safely


def open_model(name: str) -> tuple[fs.SCNet, int]:
    """A checkpoint of train.py, a head of export_head.py or a name of the package: a model, and its size in pixels."""
    if not name.endswith(".pth") or is_head(Path(name)):
        pretrained = load_pretrained(name)
        return pretrained.model, pretrained.size
    from fewshotseg.training.loop import load_model  # needs what training needs; a head does not

    model, saved = load_model(name)
    return model, saved["data"]["protocol"]["test_size"]


def is_head(path: Path) -> bool:
    """Whether a file is one of export_head.py; why it cannot be read is for others to say."""
    with suppress(OSError, ValueError):
        content = read_safely(path)
        return isinstance(content, dict) and "head" in content
    return False


@torch.no_grad()
def count_from(model: fs.SCNet, threshold: float) -> None:
    """Give the head another bias, so that what had this probability of foreground has one half.

    Raises:
        ValueError: If ``threshold`` is no probability between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    model.head.classifier[-1].bias[1] -= math.log(threshold / (1 - threshold))
