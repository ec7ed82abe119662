"""The summary of a run, printed before it starts."""

from fewshotseg.training.benchmark import Benchmark, DataSettings
from fewshotseg.training.processes import ProcessInfo
from fewshotseg.training.recipe import Recipe

CHOSEN = {
    "last": "the last, no validation",
    "held-out": "by base classes held out of training",
    "novel": "by the novel classes of the test fold: results will be optimistic",
}


def summary(
    recipe: Recipe, data: DataSettings, benchmark: Benchmark, validation: Benchmark, process: ProcessInfo, total: int
) -> str:
    """Describe the settings of a run in a few lines."""
    names = benchmark.test.class_names
    chosen = CHOSEN[recipe.select]
    if recipe.select != "last":
        chosen += f" ({', '.join(names[class_id] for class_id in validation.split.novel)})"
    weight = recipe.model.self_contrast_weight if recipe.model.num_prototypes else 0
    own = recipe.micro_batches // process.world_size
    rows = {
        "protocol": f"{data.protocol.name} ({data.protocol.hash()}), fold {data.fold}",
        "novel classes": ", ".join(names[class_id] for class_id in benchmark.split.novel) or "none",
        "training": f"{len(benchmark.train.ids)} images, {len(benchmark.split.base)} classes, {total} iterations",
        "batch": f"{recipe.batch} episodes = {process.world_size} processes x {own} accumulated x "
        f"{recipe.batch // recipe.micro_batches}, crops of {data.protocol.train_size}, on {process.device}",
        "learning rate": f"{recipe.lr:g} as {recipe.optimizer} uses it, falling to 0 with power {recipe.power:g}; a "
        "rate quoted for PFENet's code is a tenth of what that uses",
        "lambda": f"{weight:g}" + ("" if weight else ", which is PFENet"),
        "weights": chosen,
    }
    return "\n".join(f"{name:<14} {text}" for name, text in rows.items())
