"""A study in which every number has a file: rows, folds and seeds, on equal episodes, one training each.

    python examples/study/study.py folders --data voc12_val voc12_trainaug_part     # all, in the order of rows.py
    python examples/study/study.py folders --data voc12_val voc12_trainaug_part --rows scnet --folds 0 --seeds 1
    python examples/study/study.py synthetic --rows table3 --seeds 0 1 2            # all rows of the paper's Table 3
    python examples/study/study.py pascal --data VOC2012 --rows table5 --backbone-weights IMAGENET1K_V1
    python examples/study/tables.py outputs/study                                   # tables of the files

All rows of a fold are tested on the same episodes, with one and with five supports; all rows of a fold and a seed see
the same training episodes from the same initial weights. Only the row's setting differs, so rows can be subtracted.
A result is a JSON file in --out with its command, settings, versions, counts, losses and what was seen meanwhile. What
has a file is not run again; a killed run goes on where it was. All runs share the features of the frozen backbone.
Other options are those of `fewshotseg train`; under torchrun, processes share every run.
"""

import argparse
import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import fewshotseg as fs
from fewshotseg.cli.settings import add_data_arguments, add_recipe_arguments, data_settings, recipe_from
from fewshotseg.data import EpisodeDataset, SegmentationSource
from fewshotseg.results import versions
from fewshotseg.training import loop
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings, KeptSource, draw_test, open_benchmark, open_folder
from fewshotseg.training.processes import ProcessInfo, process_group
from fewshotseg.training.recipe import RECIPES, Recipe
from fewshotseg.training.state import initial_state
from measuring import look, measure
from rows import ROWS, SCNET, SHOTS, TABLES, Cell, cells

FORMAT = "fewshotseg study 1"


class QueryMemory(fs.FeatureMemory):
    """Keeps no features of masked supports: there is one set for each class, and they are cheap to make."""

    def __call__(self, name: Any, stage: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """From memory where it can."""
        return stage(*inputs) if len(inputs) > 1 else super().__call__(name, stage, *inputs)


def run(
    cell: Cell,
    recipe: Recipe,
    data: DataSettings,
    runs: Path,
    process: ProcessInfo,
    *,
    opener: Callable[..., SegmentationSource] | None = None,
    memory: fs.FeatureMemory | None = None,
    looks: int = 5,
    **options: Any,
) -> dict[str, Any]:
    """Train and test one cell.

    Args:
        cell: Which.
        recipe: Of training; the row and the seed are put in.
        data: What to train and test on; the fold and what the row does with novel objects are put in.
        runs: Where trainings leave their folders.
        process: This one of all.
        opener: Opens folders, in place of `open_folder`.
        memory: Features that runs share.
        looks: How often to look at the model while it trains.
        **options: Of `loop.run`.

    Returns:
        The content of the cell's file, but for its command.
    """
    recipe, data = settings_of(cell, recipe, data)
    protocol, trains = data.protocol, ROWS[cell.row].model is not None
    benchmark = open_benchmark(data, progress=process.rank == 0, opener=opener)
    # Images that cannot make the episodes are an error now, not after the training.
    EpisodeDataset(benchmark.test, benchmark.split.novel, shots=max(SHOTS), length=1, min_area=protocol.min_area)
    started = time.monotonic()
    curves: dict[str, Any] = {}
    if trains:
        total = recipe.iterations or recipe.epochs * max(benchmark.listed(protocol.min_area) // recipe.batch, 1)
        folder = runs / run_name(cell, recipe, data)
        trained = loop.run(
            recipe,
            data,
            folder,
            resume=True,
            log_every=1,
            benchmark=benchmark,
            memory=memory,
            watch=lambda model: look(model, benchmark, data),
            watch_every=max(total // looks, 1),
            **options,
        )
        if dist.is_initialized():
            dist.barrier()  # one process writes what all will read
        model: Any = fs.load_model(trained.checkpoint)
        model.memory = memory
        curves = read_curves(folder / "log.jsonl", parts=5 * looks)
    else:
        backbone = initial_state(recipe, data, benchmark, None, torch.device("cpu")).model.backbone
        model = fs.build_prototype_segmenter(backbone, **(ROWS[cell.row].segmenter or {})).eval()
        model.memory = memory
    model.to(process.device)
    trained_at = time.monotonic()
    results = {}
    for shots in SHOTS:
        episodes = draw_test(benchmark, protocol, model, shots=shots, seed=protocol.seeds[0])
        results[f"{shots}-shot"] = measure(model, episodes, benchmark, data)
    return {
        "format": FORMAT,
        **cell._asdict(),
        **settings_for_file(cell, recipe, data),
        "training_images": len(benchmark.train.ids) if trains else 0,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {"training": round(trained_at - started), "testing": round(time.monotonic() - trained_at)},
        "results": results,
        **curves,
    }


def settings_of(cell: Cell, recipe: Recipe, data: DataSettings) -> tuple[Recipe, DataSettings]:
    """How a cell is trained and tested, where these are the settings of the study."""
    row = ROWS[cell.row]
    protocol = replace(data.protocol, novel_in_training=row.novel or data.protocol.novel_in_training)
    model = replace(recipe.model, **(row.model or {}))
    return replace(recipe, seed=cell.seed, model=model), replace(data, fold=cell.fold, protocol=protocol)


def run_name(cell: Cell, recipe: Recipe, data: DataSettings) -> str:
    """The folder of a run: one for each cell and all settings and folders of data."""
    settings = {"recipe": asdict(recipe), **asdict(data), "data": [str(Path(root).resolve()) for root in data.data]}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"{Path(cell.file).stem}-{digest[:8]}"


def settings_for_file(cell: Cell, recipe: Recipe, data: DataSettings) -> dict[str, Any]:
    """What a file says about how its numbers came about, as JSON gives it back."""
    trains = ROWS[cell.row].model is not None
    settings = {
        "recipe": asdict(recipe) if trains else {"backbone": recipe.model.backbone, **segmenter_of(cell)},
        "data": {**asdict(data), "data": [Path(path).name for path in data.data]},
    }
    return json.loads(json.dumps(settings))


def segmenter_of(cell: Cell) -> dict[str, Any]:
    """What a file says about a model that needs no training."""
    return {"segmenter": fs.PrototypeConfig(**(ROWS[cell.row].segmenter or {})).to_dict()}


def is_done(path: Path, cell: Cell, recipe: Recipe, data: DataSettings) -> bool:
    """Whether a cell has its file.

    Raises:
        ValueError: If the file is of other settings.
    """
    if not path.exists():
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    for part, settings in settings_for_file(cell, *settings_of(cell, recipe, data)).items():
        differing = [name for name, value in settings.items() if content[part].get(name) != value]
        if differing:
            raise ValueError(f"out must be the folder of one study, but {path} was made with another {differing[0]}")
    return True


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
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    part.replace(path)


def command(cell: Cell, given: Mapping[str, Any], data: Sequence[str]) -> str:
    """What runs one cell again; folders of data by their names, other options as they were given."""
    words = ["python", "examples/study/study.py", given["benchmark"]]
    for name, value in given.items():
        if name == "benchmark" or value == [] or value is False or (name, value) == ("accumulate", 1):
            continue  # what they are by default
        values = [Path(path).name for path in data] if name == "data" else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *([] if value is True else map(str, values))]
    only = ["--rows", cell.row, "--folds", str(cell.fold), "--seeds", str(cell.seed)]
    return shlex.join([*words, *only, "--out", "again", "--runs", "again/runs"])


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
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
    rows = f"rows, or tables for all of their rows: {', '.join([*TABLES, *ROWS])} (default: ORDER of rows.py)"
    add("--rows", nargs="+", choices=[*TABLES, *ROWS], default=None, metavar="ROW", help=rows)
    add("--folds", "--fold", type=int, nargs="+", choices=range(4), default=None, help="(default: as the study has it)")
    add("--seeds", "--seed", type=int, nargs="+", default=[0, 1, 2], help="of training (default: 0 1 2)")
    add("--out", default="outputs/study", help="folder of the results (default: outputs/study)")
    add("--runs", default="outputs/study-runs", help="folder of the trainings (default: outputs/study-runs)")
    add("--looks", type=int, default=5, help="points of a training's curve (default: 5)")
    add("--device", default=None, help="such as cpu or cuda:1 (default: CUDA where there is any)")
    add("--threads", type=int, default=1, help="on which the last digits depend (default: 1)")
    add("--workers", type=int, default=0, help="processes that load episodes, for each that trains (default: 0)")
    add("--save-every", type=int, default=500, help="iterations from one checkpoint to the next (default: 500)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has no file yet; what cannot be done ends the program with one sentence."""
    parser = make_parser()
    options = vars(parser.parse_args(arguments))
    try:
        names, folds, seeds, out, runs = (options.pop(name) for name in ("rows", "folds", "seeds", "out", "runs"))
        how = {name: options.pop(name) for name in ("looks", "device", "workers", "save_every")}
        torch.set_num_threads(options.pop("threads"))
        given, benchmark = dict(options), options.pop("benchmark")
        fixed = [change for change in options["model"] if change.partition("=")[0] in SCNET]
        if fixed:
            raise ValueError(f"model must not set what the rows of rows.py set, got {' '.join(fixed)}")
        data = data_settings(options, {"benchmark": benchmark, "protocol": BENCHMARKS[benchmark]})
        recipe = recipe_from(options, RECIPES[benchmark], int(os.environ.get("WORLD_SIZE", "1")))
        opener = cache(lambda path, progress: KeptSource(open_folder(path, progress=progress)))
        # The tiny backbone is another one for every seed.
        bytes_ = 0 if recipe.model.backbone == "tiny" else int(recipe.memory_gb * 2**30)
        memory = QueryMemory(bytes_, dtype=torch.float16) if bytes_ else None
        with process_group(how["device"]) as process:
            for cell in cells(names, folds, list(dict.fromkeys(seeds))):
                path = Path(out) / cell.file
                if is_done(path, cell, recipe, data):
                    continue
                result = run(cell, recipe, data, Path(runs), process, opener=opener, memory=memory, **how)
                if process.rank == 0:
                    save(path, {"command": command(cell, given, data.data), **result})
                    mious = ", ".join(f"{name} {100 * its['miou']:.1f}" for name, its in result["results"].items())
                    print(f"{datetime.now(UTC):%H:%M:%S} {cell.file}: {mious}, {result['seconds']}", flush=True)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
