"""Pictures of episodes: supports, queries, truth and answers side by side (the paper's Fig. 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import fewshotseg as fs
from fewshotseg.data import EpisodeDataset

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


def draw_episodes(
    path: Path, models: Mapping[str, fs.SCNet], episodes: EpisodeDataset, *, size: int, columns: int = 6
) -> None:
    """Write the first support, the query, the truth and every model's answer for episodes with different queries.

    Args:
        path: Of the PNG.
        models: Names of rows to models.
        episodes: Images are shown at their own size, whatever the transform.
        size: Side of the square in which the models see images, as in `FewShotPredictor`.
        columns: The most episodes to draw.
    """
    predictors = {name: fs.FewShotPredictor(model, size=size) for name, model in models.items()}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("support", "query", "truth", *models)}
    titles = []
    different = {spec.query: spec for spec in episodes.specs}
    for class_id, query_id, support_ids in list(different.values())[:columns]:
        supports = [episodes.sample(support_id, class_id) for support_id in support_ids]
        query = episodes.sample(query_id, class_id)
        titles.append(episodes.source.class_names[class_id])
        rows["support"].append(overlay(*supports[0]))
        rows["query"].append(overlay(query.image, torch.ones_like(query.mask)))
        rows["truth"].append(overlay(*query))
        for name, predictor in predictors.items():
            predictor.set_support([shot.image for shot in supports], [shot.mask for shot in supports])
            rows[name].append(overlay(query.image, predictor.predict(query.image).mask))
    save_episodes(path, rows, titles)
