"""Train SCNet, or PFENet (lambda = 0), as their papers do, on one fold of a benchmark or on your own photographs.

    fewshotseg train synthetic                                    # images made by the package, no download
    fewshotseg train folders --data photographs/ --fold all       # a model to use: on all classes
    fewshotseg train folders --data photographs/                  # a quarter of the classes is kept for evaluation
    fewshotseg train pascal --data VOC2012/ --fold 0 --backbone-weights IMAGENET1K_V1 --workers 8
    fewshotseg train coco --data COCO2014/ --model self_contrast_weight=0
    torchrun --standalone --nproc-per-node 4 -m fewshotseg train pascal --data VOC2012/

The run leaves last.pth (and previous.pth, the one before it), best.pth where --select asks for one, and log.jsonl in
--out. Ctrl-C and SIGTERM end it after the iteration at hand, with a checkpoint. Interrupted in whatever way and started
again with --resume, it ends with the same weights. Episodes, augmentation, dropout and the draws of k-means depend on
the seed, the iteration and the part of the batch alone: processes can be traded for accumulation.
"""

import argparse
import os
import sys

from fewshotseg.cli.settings import add_data_arguments, add_recipe_arguments, data_settings, recipe_from
from fewshotseg.training.benchmark import BENCHMARKS
from fewshotseg.training.loop import run as train
from fewshotseg.training.recipe import RECIPES
from fewshotseg.training.stopping import Stopped, StopSignals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command; those not given and without a default here are absent from what is parsed."""
    parser.add_argument("benchmark", choices=BENCHMARKS, help="What to train on: decides about data, protocol and "
                        "recipe, of which options change single settings.")  # fmt: skip
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    add = parser.add_argument_group("run", argument_default=argparse.SUPPRESS).add_argument
    add(
        "--out",
        default=None,
        metavar="FOLDER",
        help="Folder of log and checkpoints (default: outputs/BENCHMARK-foldN).",
    )
    add("--resume", action="store_true", help="Go on from the last checkpoint in --out, if there is one.")
    add("--workers", type=int, metavar="N", help="Processes that load episodes, for each process that trains (default: "
        "0, the training process itself).")  # fmt: skip
    add("--device", help="Where to train, such as cpu or cuda:1 (default: CUDA where there is any).")
    add("--log-every", type=int, metavar="N", help="Iterations from one log line to the next (default: 10).")
    add("--save-every", type=int, metavar="N", help="Iterations from one checkpoint to the next (default: 500).")
    add("--tensorboard", action="store_true", help="Write the numbers of the log for TensorBoard too.")


def run(options: argparse.Namespace) -> int:
    """Train as the options say.

    Returns:
        0, or 128 and the number of the signal that ended it.

    Raises:
        ValueError: If something cannot be done.
        OSError: If data is missing or files cannot be written.
        ImportError: If an extra is not installed.
    """
    given = vars(options)
    benchmark, out = given.pop("benchmark"), given.pop("out")
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
        score = "" if trained.miou is None else f", mIoU {100 * trained.miou:.1f} on the classes of validation"
        print(f"trained: {trained.checkpoint}{score}")
    return 0
