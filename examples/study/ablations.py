"""The paper's ablations, Tables 3 to 6, and its Figures 2 and 5, on any benchmark: one command each.

    python examples/ablations.py table3 synthetic --seeds 0 1 2        # n, the number of background prototypes
    python examples/ablations.py table4 synthetic --folds 0 1          # prototypes from the support or the query
    python examples/ablations.py table5 folders --data photographs/    # lambda
    python examples/ablations.py table6 pascal --data VOC2012/ --backbone-weights IMAGENET1K_V1 --paper # regions
    python examples/ablations.py silent synthetic --values baseline zeros/query shared/query   # what is left open
    python examples/ablations.py fig2 pascal --data VOC2012/           # novel objects hidden in training images
    python examples/ablations.py fig5 synthetic --checkpoints baseline/last.pth scnet/last.pth

Every cell of a table is a model trained by train.py and measured with one and with five supports. All cells of a seed
and a fold see the same episodes from the same initial weights; only the setting differs. A run is known by all of its
settings, so that tables share the runs that they have in common, such as the baseline; finished runs are read, not
repeated, and killed ones go on where they were. Several commands may share --out as long as no two of them train the
same run at once. For each table --out gets Markdown, JSON and a picture; the runs, with a result file for each number
of supports, are in --out/runs. Other options are those of train.py.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch.distributed as dist
from torch import nn

import evaluate
from fewshotseg.training import loop as train
from ablation_tables import ABLATIONS, BASELINE, plot, plot_shares, report
from fewshotseg.training.benchmark import (
    BENCHMARKS,
    DataSettings,
    add_data_arguments,
    data_settings,
    draw_test,
    open_benchmark,
    open_folder,
    quarter,
)
from fewshotseg import SCNetConfig
from fewshotseg.data import ConcatSource, SegmentationSource, hidden_novel_share
from fewshotseg.results import EvaluationResult
from overlays import draw_episodes
from fewshotseg.training.processes import Place, joined_processes
from fewshotseg.training.recipe import RECIPES, Recipe, add_recipe_arguments, recipe_from

SHOTS = (1, 5)


def run_name(recipe: Recipe, data: DataSettings) -> str:
    """The folder of a run: one for all that have equal settings and folders of data, and for no others."""
    settings = {"recipe": asdict(recipe), **asdict(data), "data": [str(Path(root).resolve()) for root in data.data]}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"fold{data.fold}-seed{recipe.seed}-{digest[:12]}"


def describe(model: SCNetConfig) -> str:
    """In what a model differs from SCNet as the package defines it."""
    plain = SCNetConfig()
    values = {each.name: getattr(model, each.name) for each in fields(model)}
    return f"SCNet({', '.join(f'{name}={value!r}' for name, value in values.items() if value != getattr(plain, name))})"


def trained(recipe: Recipe, data: DataSettings, runs: Path, **options: Any) -> Path:
    """The checkpoint of a run, which is trained to the end unless it already was."""
    checkpoint = train.run(recipe, data, runs / run_name(recipe, data), resume=True, **options).checkpoint
    if dist.is_initialized():
        dist.barrier()  # one process writes what all will read
    return checkpoint


def measured(recipe: Recipe, data: DataSettings, runs: Path, place: Place, **options: Any) -> dict[int, float]:
    """The mIoU of a run for each number of shots, from its result files, or else by training and testing it."""
    files = {shots: runs / run_name(recipe, data) / f"result-{shots}shot.json" for shots in SHOTS}
    results = {shots: EvaluationResult.load(file) for shots, file in files.items() if file.exists()}
    missing = [shots for shots in SHOTS if shots not in results]
    if missing:
        # Images that cannot make the episodes are an error now, not after the training.
        draw_test(open_benchmark(data), data.protocol, nn.Identity(), shots=max(SHOTS), seed=data.protocol.seeds[0])
        model, saved = train.load_model(trained(recipe, data, runs, **options))
        origin = {key: saved[key] for key in ("recipe", "iteration", "versions")}
        for shots in missing:
            (results[shots],) = evaluate.run(
                model, data, method=describe(recipe.model), origin=origin, shots=[shots], device=options.get("device")
            )
            if place.rank == 0:
                results[shots].save(files[shots])
    return {shots: fmean(results[shots].mious) for shots in SHOTS}


def run_table(
    name: str,
    rows: Sequence[str],
    recipes: Sequence[Recipe],
    folds: Sequence[DataSettings],
    out: Path,
    place: Place,
    *,
    paper: bool = False,
    **options: Any,
) -> None:
    """Measure every row for every recipe, which differ by their seed, and fold; print and write the table."""
    ablation = ABLATIONS[name]
    scores: dict[int, dict[str, dict[tuple[int, int], float]]] = {shots: {row: {} for row in rows} for shots in SHOTS}
    cells = []
    for recipe in recipes:
        for data in folds:
            for row in rows:
                if place.rank == 0:
                    print(f"\n{name}: {ablation.title} {row}, fold {data.fold}, seed {recipe.seed}", flush=True)
                its = replace(recipe, model=replace(recipe.model, **ablation.rows[row]))
                mious = measured(its, data, out / "runs", place, **options)
                for shots, miou in mious.items():
                    scores[shots][row][recipe.seed, data.fold] = miou
                cell = {"row": row, "seed": recipe.seed, "fold": data.fold, "run": run_name(its, data)}
                cells.append({**cell, **{f"{shots}-shot": miou for shots, miou in mious.items()}})
    if place.rank == 0:
        protocol = folds[0].protocol
        text = report(f"{name}, {protocol.name} ({protocol.hash()})", ablation, scores, paper=paper)
        write(out / name, text, {"table": name, "protocol_hash": protocol.hash(), "cells": cells})
        plot(out / f"{name}.png", ablation, scores)


def run_fig2(folds: Sequence[DataSettings], out: Path) -> None:
    """Print, write and draw the share of novel-class objects in training images, before a protocol leaves any out."""
    shares = {}
    images: SegmentationSource
    for data in folds:
        if data.benchmark == "folders":
            sources = [open_folder(Path(root), progress=True) for root in data.data]
            images, split = ConcatSource(*sources), quarter(sources[0].class_names, data.fold)
        else:
            protocol = replace(data.protocol, novel_in_training="background")
            images, _, split = open_benchmark(replace(data, protocol=protocol), progress=True)
        shares[f"Fold-{data.fold}"] = hidden_novel_share(images, split)
    lines = [f"- {fold}: {100 * share:.1f} % of the objects are of novel classes" for fold, share in shares.items()]
    write(out / "fig2", "\n".join([f"# fig2, {folds[0].benchmark}", "", *lines]), shares)
    plot_shares(out / "fig2.png", shares)


def run_fig5(checkpoints: Sequence[str | Path], data: DataSettings, out: Path) -> None:
    """Draw the first test episodes, with what the baseline and SCNet make of them."""
    models = {}
    for name, checkpoint in zip(("baseline", "SCNet"), checkpoints, strict=True):
        models[name], saved = train.load_model(checkpoint)
        origin = (saved["data"]["benchmark"], saved["data"]["fold"])
        if origin != (data.benchmark, data.fold):
            raise ValueError(
                f"checkpoints must be of {data.benchmark}, fold {data.fold}, whose novel classes are drawn, "
                f"got one of {origin[0]}, fold {origin[1]}"
            )
    protocol, backbone = data.protocol, models["SCNet"].backbone
    episodes = draw_test(open_benchmark(data, progress=True), protocol, backbone, shots=1, seed=protocol.seeds[0])
    draw_episodes(out / "fig5.png", models, episodes, size=protocol.test_size)
    print(f"saved {out / 'fig5.png'}")


def write(path: Path, text: str, content: Mapping[str, Any]) -> None:
    """Print a text, and write it as Markdown beside its numbers as JSON."""
    print(f"\n{text}\n\nsaved {path}.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(f"{text}\n", encoding="utf-8")
    path.with_suffix(".json").write_text(f"{json.dumps(content, indent=1)}\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="ablations.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        conflict_handler="resolve",  # the options for one fold and one seed become those for several
    )
    add = parser.add_argument
    add("what", choices=(*ABLATIONS, "fig2", "fig5"), help="a table or a figure of the paper")
    add("benchmark", choices=BENCHMARKS, help="decides on data, protocol and recipe; options change single settings")
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    add("--folds", "--fold", type=int, nargs="+", choices=range(4), default=[0, 1, 2, 3], help="(default: all four)")
    add("--seeds", "--seed", type=int, nargs="+", default=[321], help="of training, a run each (default: 321)")
    add("--values", nargs="+", default=None, help="rows of the table, in this order (default: all)")
    add("--paper", action="store_true", default=False, help="show what the paper prints beside what is measured")
    add(
        "--checkpoints",
        nargs=2,
        default=None,
        metavar=("BASELINE", "SCNET"),
        help="fig5: of train.py (default: the runs of the first fold and seed, trained if need be)",
    )
    add("--out", default=None, help="folder of tables, pictures and runs (default: outputs/ablations-BENCHMARK)")
    add("--workers", type=int, help="processes that load episodes, for each process that trains (default: 0)")
    add("--device", help="such as cpu or cuda:1 (default: CUDA where there is any)")
    add("--save-every", type=int, help="iterations from one checkpoint to the next (default: 500)")
    options = vars(parser.parse_args(arguments))
    try:
        what, benchmark, folds, seeds, rows, paper, checkpoints, out = (
            options.pop(name)
            for name in ("what", "benchmark", "folds", "seeds", "values", "paper", "checkpoints", "out")
        )
        out = Path(out or f"outputs/ablations-{benchmark}")
        data = data_settings(options, {"benchmark": benchmark, "protocol": BENCHMARKS[benchmark]})
        recipe = recipe_from(options, RECIPES[benchmark], int(os.environ.get("WORLD_SIZE", "1")))
        splits = [replace(data, fold=fold) for fold in dict.fromkeys(folds)]
        recipes = [replace(recipe, seed=seed) for seed in dict.fromkeys(seeds)]
        rows = list(dict.fromkeys(rows or ABLATIONS[what].rows)) if what in ABLATIONS else []
        unknown = [row for row in rows if row not in ABLATIONS[what].rows]
        if unknown:
            raise ValueError(f"values must be among {', '.join(ABLATIONS[what].rows)}, got {', '.join(unknown)}")
        with joined_processes(options.get("device")) as place:
            if what in ABLATIONS:
                run_table(what, rows, recipes, splits, out, place, paper=paper, **options)
            if what == "fig5" and checkpoints is None:
                pair = [replace(recipes[0], model=replace(recipe.model, **BASELINE)), recipes[0]]
                checkpoints = [trained(each, splits[0], out / "runs", **options) for each in pair]
            if what == "fig5" and place.rank == 0:
                run_fig5(checkpoints, splits[0], out)
            if what == "fig2" and place.rank == 0:
                run_fig2(splits, out)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
