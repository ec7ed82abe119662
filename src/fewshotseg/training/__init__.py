"""Training: recipes, benchmarks, and the loop that ends with the same bits whenever it is interrupted."""

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
