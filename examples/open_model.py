"""Trained models for use, wherever they come from."""

from contextlib import suppress
from pathlib import Path

import fewshotseg as fs
from fewshotseg.models import load_pretrained
from fewshotseg.models.checkpoints import read_safely


def open_model(name: str) -> tuple[fs.SCNet, int]:
    """A checkpoint of train.py, a head of export_head.py or a name of the package: a model, and its size in pixels."""
    if not name.endswith(".pth") or is_head(Path(name)):
        pretrained = load_pretrained(name)
        return pretrained.model, pretrained.size
    from train import load_model  # needs what training needs; a head does not

    model, saved = load_model(name)
    return model, saved["data"]["protocol"]["test_size"]


def is_head(path: Path) -> bool:
    """Whether a file is one of export_head.py; why it cannot be read is for others to say."""
    with suppress(OSError, ValueError):
        content = read_safely(path)
        return isinstance(content, dict) and "head" in content
    return False
