"""Train SCNet, or PFENet (lambda = 0), on one fold of a benchmark or on your own photographs.

    fewshotseg train synthetic                                    # images drawn by the package, no download
    fewshotseg train folders --data photographs/ --fold all       # on all classes: a model to use
    fewshotseg train folders --data photographs/                  # keeps a quarter of the classes for evaluation
    fewshotseg train pascal --data VOC2012/ --fold 0 --backbone-weights IMAGENET1K_V1 --workers 8
    fewshotseg train coco --data COCO2014/ --model self_contrast_weight=0
    torchrun --standalone --nproc-per-node 4 -m fewshotseg train pascal --data VOC2012/

The defaults for pascal and coco are those of the papers.

--out receives the checkpoints last.pth and previous.pth (the one before), best.pth if --select chooses by validation,
and the log, log.jsonl. Ctrl+C and SIGTERM finish the current iteration, write a checkpoint and stop. An interrupted run
that is continued with --resume ends with the same weights as one that was never interrupted. Random numbers depend only
on the seed, the iteration and the part of the batch: 4 processes draw the same as 1 process with --accumulate 4.
"""

import argparse
import os
import sys

from fewshotseg.cli.settings import add_data_arguments, add_recipe_arguments, data_settings, recipe_from
from fewshotseg.cli.values import check_folder, filled, filled_path
from fewshotseg.training.benchmark import BENCHMARKS
from fewshotseg.training.loop import run as train
from fewshotseg.training.recipe import RECIPES
from fewshotseg.training.stopping import Stopped, StopSignals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command; those without a default here are absent from the parsed options if not given."""
    parser.add_argument("benchmark", choices=BENCHMARKS, help="Data set to train on. It sets the protocol and the "
                        "defaults of the recipe.")  # fmt: skip
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    add = parser.add_argument_group("run", argument_default=argparse.SUPPRESS).add_argument
    add(
        "--out",
        type=filled_path,
        default=None,
        metavar="FOLDER",
        help="Folder for the log and the checkpoints (default: outputs/BENCHMARK-foldN).",
    )
    add("--resume", action="store_true", help="Continue from the last checkpoint in --out, if there is one.")
    add("--workers", type=int, metavar="N", help="Processes that load episodes, for each training process (default: "
        "0, which loads them in the training process).")  # fmt: skip
    add("--device", type=filled, help="Device to train on, such as cpu or cuda:1 (default: CUDA if there is a GPU).")
    add("--log-every", type=int, metavar="N", help="Iterations between lines of the log (default: 10).")
    add("--save-every", type=int, metavar="N", help="Iterations between checkpoints (default: 500).")
    add("--tensorboard", action="store_true", help="Write the log for TensorBoard too.")


def run(options: argparse.Namespace) -> int:
    """Train a model with the given options.

    Returns:
        0, or 128 plus the number of the signal that stopped the run.

    Raises:
        ValueError: If an option or the data cannot be used.
        OSError: If data is missing or a file cannot be written.
        ImportError: If an extra is not installed.
    """
    given = vars(options)
    benchmark, out = given.pop("benchmark"), given.pop("out")
    if out is not None:
        check_folder("out", out)
    data = data_settings(given, {"benchmark": benchmark, "protocol": BENCHMARKS[benchmark]})
    recipe = recipe_from(given, RECIPES[benchmark], int(os.environ.get("WORLD_SIZE", "1")))
    try:
        with StopSignals() as stop:
            trained = train(recipe, data, out or f"outputs/{benchmark}-fold{data.fold}", stop=stop, **given)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"fewshotseg train: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    if os.environ.get("RANK", "0") == "0":
        score = "" if trained.miou is None else f", mIoU {100 * trained.miou:.1f} on the validation classes"
        print(f"trained: {trained.checkpoint}{score}")
    return 0
