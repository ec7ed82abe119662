"""Pictures of episodes: supports, queries, truth and answers side by side (the paper's Fig. 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

mpl.use("Agg")


def overlay(image: Tensor, mask: Tensor) -> np.ndarray:
    """Show a mask on an image: the foreground in its own colours, everything else grey and dark.

    Args:
        image: ``(3, H, W)``, floating point from 0 to 1 or uint8.
        mask: ``(H, W)``, 1 foreground.
    """
    pixels = (image.float() / 255 if image.dtype == torch.uint8 else image).permute(1, 2, 0).clamp(0, 1).numpy()
    grey = pixels.mean(axis=2, keepdims=True)
    return np.where((mask == 1).numpy()[..., None], pixels, 0.1 + 0.35 * grey)


def save_episodes(path: Path, rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]) -> None:
    """Write a grid of pictures, a row a name, a column an episode.

    Args:
        path: Of the PNG.
        rows: Row names to their pictures, ``(H, W, 3)`` from 0 to 1.
        titles: Of the columns.
    """
    figure = Figure(figsize=(1.9 * len(titles) + 0.6, 1.9 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
