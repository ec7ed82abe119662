"""Draws the training and validation episodes of a run."""

from dataclasses import replace

from fewshotseg.data import EpisodeDataset
from fewshotseg.data.episodes.hard import HardSpecs
from fewshotseg.data.sources.windows import WindowSource
from fewshotseg.models import SCNet
from fewshotseg.training.benchmark import Benchmark, DataSettings, draw_test
from fewshotseg.training.recipe import Recipe


def training_episodes(
    recipe: Recipe, data: DataSettings, benchmark: Benchmark, model: SCNet, total: int
) -> EpisodeDataset:
    """Draw all training episodes of a run; those of iteration t begin at number ``t * batch``.

    Raises:
        ValueError: If a base class has too few images.
    """
    train, (base, novel) = benchmark.train, benchmark.split
    if recipe.windows:
        train = WindowSource(train, base, seed=recipe.seed)
    episodes = EpisodeDataset(
        train,
        base,
        shots=recipe.shots,
        length=total * recipe.batch,
        seed=recipe.seed,
        transform=recipe.augment(data.protocol, model),
        min_area=data.protocol.min_area,
        ignore_classes=novel if data.protocol.novel_in_training == "ignore" else (),
    )
    if recipe.hard_share:
        episodes.specs = HardSpecs(episodes.specs, train, base, share=recipe.hard_share, seed=recipe.seed)
    return episodes


def validation_episodes(
    recipe: Recipe, data: DataSettings, validation: Benchmark, model: SCNet
) -> EpisodeDataset | None:
    """Draw the validation episodes of a run; None if the last checkpoint is selected."""
    if recipe.select == "last":
        return None
    protocol = replace(data.protocol, episodes=recipe.validate_episodes, draw="number", workers=None, max_passes=None)
    return draw_test(validation, protocol, model, shots=recipe.shots, seed=recipe.seed)
