"""A study in which every number has a file: several rows, folds and seeds, on equal episodes, one training each.

    python examples/study.py folders --data voc12_val voc12_trainaug_part           # everything, in the order below
    python examples/study.py folders --data voc12_val voc12_trainaug_part --rows scnet --folds 0 --seeds 1
    python examples/study.py pascal --data VOC2012 --rows pfenet scnet --backbone-weights IMAGENET1K_V1

All rows of a fold are tested on the same episodes, with one and with five supports; all rows of a fold and a seed see
the same training episodes from the same initial weights. Only the row's setting differs, so rows can be subtracted.
A result is a JSON file in --out with its command, settings, versions, counts, losses and what was seen meanwhile. What
has a file is not run again; a killed run goes on where it was. All runs of the process share features of the frozen
backbone. docs/make_results.py turns the files into tables and pictures. Other options are those of train.py.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fewshotseg as fs
from fewshotseg.training import loop as train
from ablation_tables import ABLATIONS, BASELINE
from ablations import run_name
from fewshotseg.training.benchmark import (
    BENCHMARKS,
    Benchmark,
    DataSettings,
    KeptSource,
    add_data_arguments,
    data_settings,
    draw_test,
    open_benchmark,
    open_folder,
)
from fewshotseg._io import write_atomically
from fewshotseg.data import EpisodeDataset, SegmentationSource, episodes_hash
from fewshotseg.results import versions
from prototypes import NearestPrototype
from fewshotseg.training.recipe import RECIPES, Recipe, add_recipe_arguments, recipe_from

SHOTS = (1, 5)
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Probabilities from which on a pixel could count as foreground; results are of one half, as everybody's."""
WATCHED_EPISODES = 100
FORMAT = "fewshotseg study 1"


class Row(NamedTuple):
    """What is compared.

    Attributes:
        model: Fields of `SCNetConfig`; None: nothing is trained.
        novel: What novel objects in training images become, if not what the protocol says.
    """

    model: Mapping[str, Any] | None
    novel: str | None = None


ROWS = {
    "prototypes": Row(None),
    "pfenet": Row(BASELINE),
    "scnet": Row({}),
    **{f"lambda{weight}": Row(ABLATIONS["table5"].rows[weight]) for weight in ("0.1", "0.3", "0.7", "0.9")},
    **{f"n{n}": Row(ABLATIONS["table3"].rows[n]) for n in ("1", "2", "4", "5")},
    "support": Row(ABLATIONS["table4"].rows["support"]),
    **{f"grid{bins}": Row({"grid_bins": bins}) for bins in (2, 3, 4, 5)},
    **{f"prior-{prior}": Row({"background_prior": prior}) for prior in ("shared", "complement")},
    "reducer-support": Row({"background_reducer": "support"}),
    **{f"{name}-hidden": Row(model, "background") for name, model in (("pfenet", BASELINE), ("scnet", {}))},
    **{f"{name}-void": Row(model, "ignore") for name, model in (("pfenet", BASELINE), ("scnet", {}))},
}
"""All rows by name; a name is part of a file's name. "hidden" and "void" train on the same images."""

ORDER = (
    (("prototypes", "pfenet", "scnet"), (0, 1, 2, 3)),
    (("pfenet-hidden", "scnet-hidden"), (2,)),
    (("pfenet-void", "scnet-void"), (2,)),
    (("lambda0.1", "lambda0.3", "lambda0.7", "n1", "n2", "n5"), (2, 0)),
    (("support", "grid3", "prior-shared", "reducer-support"), (2, 0)),
)
"""Rows and folds in the order in which time is spent; each line for all seeds."""


class Cell(NamedTuple):
    """One result."""

    row: str
    fold: int
    seed: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.row}-fold{self.fold}-seed{self.seed}.json"


def cells(rows: Sequence[str] | None, folds: Sequence[int] | None, seeds: Sequence[int]) -> list[Cell]:
    """What to run, in which order: that of `ORDER` for what is in it, or rows and folds as they are given."""
    order = ORDER if rows is None else ((tuple(rows), (0, 1, 2, 3)),)
    found = [
        Cell(row, fold, seed)
        for names, own_folds in order
        for seed in seeds
        for fold in (own_folds if folds is None else folds)
        for row in names
    ]
    # Nothing is drawn without training: one seed stands for all.
    return list(dict.fromkeys(c._replace(seed=seeds[0]) if ROWS[c.row].model is None else c for c in found))


class Counted(fs.FewShotIoU):
    """Keeps what it counted of each episode, how sure the surest pixel was, and what other thresholds would give.

    Attributes:
        episodes: Class, and pixels that are foreground in answer and target, in either, and in the target; in the order
            in which `fewshotseg.evaluate` comes to them.
        top: The largest probability of foreground.
        at: A metric for each of `THRESHOLDS`.
    """

    def reset(self) -> None:
        """Forget all episodes."""
        super().reset()
        self.episodes: list[tuple[int, ...]] = []
        self.top = 0.0
        self.at = {threshold: fs.FewShotIoU(self.class_ids) for threshold in THRESHOLDS}

    def update(self, prediction: Tensor, target: Tensor, class_ids: int | Sequence[int] | Tensor) -> None:
        """Count an episode, of a batch of one."""
        super().update(prediction, target, class_ids)
        scored = target != self.ignore_index
        foreground, truth = (prediction[:, 1] > prediction[:, 0]) & scored, target == 1
        counts = (part.sum() for part in (foreground & truth, foreground | truth, truth))
        self.episodes.append((int(torch.as_tensor(class_ids)), *map(int, counts)))
        margin = prediction[:, 1] - prediction[:, 0]
        self.top = max(self.top, float(margin.max().sigmoid()))
        for threshold, metric in self.at.items():
            metric.update(margin > math.log(threshold / (1 - threshold)), target, class_ids)


class QueryMemory(fs.FeatureMemory):
    """Keeps no features of masked supports: there is one set for each class, and they are cheap to make."""

    def __call__(self, name: str, stage: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """From memory where it can."""
        return stage(*inputs) if name == "masked" else super().__call__(name, stage, *inputs)


class Laboratory:
    """What all runs of a process share: decoded images, and features of the frozen backbone.

    Args:
        memory_gb: For features.
    """

    def __init__(self, memory_gb: float) -> None:
        self.memory = QueryMemory(int(memory_gb * 2**30), dtype=torch.float16) if memory_gb else None
        self.open = cache(self._open)

    def benchmark(self, data: DataSettings) -> Benchmark:
        """The images of a fold, each decoded once."""
        return open_benchmark(data, progress=True, opener=lambda path, **_: self.open(path))

    @staticmethod
    def _open(path: Path) -> SegmentationSource:
        return KeptSource(open_folder(path, progress=True))


def run(
    cell: Cell,
    recipe: Recipe,
    data: DataSettings,
    laboratory: Laboratory,
    runs: Path,
    *,
    looks: int,
    device: str | None = None,
) -> dict[str, Any]:
    """Train and test one cell.

    Args:
        cell: Which.
        recipe: Of training; the row and the seed are put in.
        data: What to train and test on; the fold and what the row does with novel objects are put in.
        laboratory: What runs share.
        runs: Where trainings leave their folders.
        looks: How often to look at the model while it trains.
        device: By default CUDA where there is any, else the CPU.

    Returns:
        The content of the cell's file, but for its command.
    """
    row = ROWS[cell.row]
    protocol = replace(data.protocol, novel_in_training=row.novel or data.protocol.novel_in_training)
    data = replace(data, fold=cell.fold, protocol=protocol)
    recipe = replace(recipe, seed=cell.seed, model=replace(recipe.model, **(row.model or {})))
    benchmark = laboratory.benchmark(data)
    started = time.monotonic()
    curves: dict[str, Any] = {}
    if row.model is None:
        place = torch.device("cpu")
        backbone = train.initial_state(recipe, data, benchmark, None, place).model.backbone
        model: Any = NearestPrototype(backbone, laboratory.memory).eval()
    else:
        total = recipe.iterations or recipe.epochs * max(benchmark.listed(data.protocol.min_area) // recipe.batch, 1)
        folder = runs / run_name(recipe, data)
        trained = train.run(
            recipe,
            data,
            folder,
            resume=True,
            device=device,
            log_every=1,
            benchmark=benchmark,
            memory=laboratory.memory,
            watch=lambda model: look(model, benchmark, data),
            watch_every=max(total // looks, 1),
        )
        model, _ = train.load_model(trained.checkpoint)
        model.memory = laboratory.memory
        curves = read_curves(folder / "log.jsonl", parts=5 * looks)
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    trained_at = time.monotonic()
    tests = {
        shots: draw_test(benchmark, protocol, model.backbone, shots=shots, seed=protocol.seeds[0]) for shots in SHOTS
    }
    results = {f"{shots}-shot": measure(model, episodes, benchmark, data) for shots, episodes in tests.items()}
    return {
        "format": FORMAT,
        **cell._asdict(),
        "recipe": asdict(recipe) if row.model is not None else {"backbone": recipe.backbone},
        "data": {**asdict(data), "data": [Path(path).name for path in data.data]},
        "training_images": len(benchmark.train.ids) if row.model is not None else 0,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {"training": round(trained_at - started), "testing": round(time.monotonic() - trained_at)},
        "results": results,
        **curves,
    }


def measure(model: Any, episodes: EpisodeDataset, benchmark: Benchmark, data: DataSettings) -> dict[str, Any]:
    """Test on all episodes; what `IoUReport` has, and what `Counted` keeps."""
    names = benchmark.test.class_names
    metric = Counted(
        benchmark.split.novel, class_names={class_id: names[class_id] for class_id in benchmark.split.novel}
    )
    report = fs.evaluate(model, episodes, metric, scoring=data.protocol.scoring, cache_bytes=2**28)
    return {
        **report.to_dict(),
        "top": round(metric.top, 4),
        "at": {str(threshold): metric.compute().miou for threshold, metric in metric.at.items()},
        "episodes_hash": episodes_hash(episodes.specs),
        "counts": metric.episodes,
    }


def look(model: fs.SCNet, benchmark: Benchmark, data: DataSettings) -> dict[str, float]:
    """What the curve shows: mIoU on the first test episodes with one support, and the largest probability."""
    protocol = replace(data.protocol, episodes=min(WATCHED_EPISODES, data.protocol.episodes))
    episodes = draw_test(benchmark, protocol, model.backbone, shots=1, seed=protocol.seeds[0])
    found = measure(model, episodes, benchmark, data)
    return {"miou": found["miou"], "top": found["top"]}


def read_curves(log: Path, *, parts: int) -> dict[str, Any]:
    """From a run's log: what was watched, and each loss as means over so many parts of the training."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    watched = [{"iteration": line["iteration"], **line["watched"]} for line in lines if "watched" in line]
    steps = [line for line in lines if "loss" in line]
    size = max(len(steps) // parts, 1)
    names = [name for name in steps[0] if name not in {"iteration", "epoch", "lr", "loss"}]
    chunks = [steps[start : start + size] for start in range(0, len(steps), size)]
    losses = [
        {"iteration": part[-1]["iteration"], **{name: round(fmean(step[name] for step in part), 4) for name in names}}
        for part in chunks
    ]
    return {"watched": watched, "losses": losses}


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result, whole or not at all, an entry a line."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def command(cell: Cell, given: Sequence[str], data: Sequence[str]) -> str:
    """What runs one cell again; folders of data by their names, other options as they were given."""
    where = ["--data", *(Path(path).name for path in data)] if data else []
    only = ["--rows", cell.row, "--folds", str(cell.fold), "--seeds", str(cell.seed)]
    return " ".join(["python examples/study.py", *given, *where, *only, "--out again --runs again/runs"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has no file yet; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="study.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        conflict_handler="resolve",  # the options for one fold and one seed become those for several
    )
    add = parser.add_argument
    add("benchmark", choices=BENCHMARKS, help="decides on data, protocol and recipe; options change single settings")
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    add("--rows", nargs="+", choices=ROWS, default=None, help="(default: those of the study, in its order)")
    add("--folds", "--fold", type=int, nargs="+", choices=range(4), default=None, help="(default: as the study has it)")
    add("--seeds", "--seed", type=int, nargs="+", default=[0, 1, 2], help="of training (default: 0 1 2)")
    add("--out", default="outputs/study", help="folder of the results (default: outputs/study)")
    add("--runs", default="outputs/study-runs", help="folder of the trainings (default: outputs/study-runs)")
    add("--looks", type=int, default=5, help="points of a training's curve (default: 5)")
    add("--device", default=None, help="such as cpu or cuda:1 (default: CUDA where there is any)")
    add("--threads", type=int, default=1, help="on which the last digits depend (default: 1)")
    options = vars(parser.parse_args(arguments))
    try:
        benchmark, rows, folds, seeds, out, runs = (
            options.pop(name) for name in ("benchmark", "rows", "folds", "seeds", "out", "runs")
        )
        looks, device, threads = (options.pop(name) for name in ("looks", "device", "threads"))
        torch.set_num_threads(threads)
        given = given_again(benchmark, options)
        data = data_settings(options, {"benchmark": benchmark, "protocol": BENCHMARKS[benchmark]})
        recipe = recipe_from(options, RECIPES[benchmark], 1)
        # The tiny backbone is another one for every seed.
        laboratory = Laboratory(0 if recipe.backbone == "tiny" else recipe.memory_gb)
        for cell in cells(rows, folds, list(dict.fromkeys(seeds))):
            path = Path(out) / cell.file
            if path.exists():
                continue
            result = run(cell, recipe, data, laboratory, Path(runs), looks=looks, device=device)
            save(path, {"command": command(cell, given, data.data), **result})
            mious = ", ".join(f"{name} {100 * its['miou']:.1f}" for name, its in result["results"].items())
            print(f"{datetime.now(UTC):%H:%M:%S} {cell.file}: {mious}, {result['seconds']}", flush=True)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def given_again(benchmark: str, options: Mapping[str, Any]) -> list[str]:
    """The command line of options that were given, without data."""
    words = [benchmark]
    for name, value in options.items():
        if name == "data" or value == [] or (name, value) == ("accumulate", 1):
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *([] if value is True else map(str, values))]
    return [word for word in words if word != "False"]


if __name__ == "__main__":
    main()
