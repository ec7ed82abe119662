"""Training: recipes, benchmarks, and a training loop that can be interrupted and resumed without any difference."""

from fewshotseg.training.benchmark import BENCHMARKS, Benchmark, DataSettings, draw_test, open_benchmark
from fewshotseg.training.loop import Trained, run
from fewshotseg.training.recipe import RECIPES, Recipe
from fewshotseg.training.stopping import Stopped, StopSignals

__all__ = [
    "BENCHMARKS",
    "RECIPES",
    "Benchmark",
    "DataSettings",
    "Recipe",
    "StopSignals",
    "Stopped",
    "Trained",
    "draw_test",
    "open_benchmark",
    "run",
]
