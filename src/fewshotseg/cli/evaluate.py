"""Measure the mIoU and FB-IoU of a model on the novel classes of a fold, by a published protocol.

    fewshotseg evaluate outputs/pascal-fold0/last.pth --shots 1 5
    fewshotseg evaluate outputs/folders-fold0/last.pth --seeds 0 1 2 3 4
    fewshotseg evaluate scnet-lite0 --benchmark folders --data photographs/ --fold 3
    fewshotseg evaluate prototypes --benchmark pascal --data VOC2012/ --backbone timm/vit_small_patch14_dinov2
    fewshotseg evaluate train_epoch_183.pth --benchmark pascal --data VOC2012/ --fold 0 --backbone resnet50s
    fewshotseg evaluate outputs/pascal-fold0/last.pth --benchmark deepglobe --data Deepglobe/
    torchrun --standalone --nproc-per-node 4 -m fewshotseg evaluate outputs/pascal-fold0/last.pth
    fewshotseg evaluate --table outputs/*/last-*.json

A checkpoint of fewshotseg train is measured on the data, fold and protocol that it was trained with, unless options
choose others. Any other model needs --benchmark, --data and --fold. A file that other code wrote, such as PFENet's
official checkpoints, needs --backbone too, and --model for settings that differ from PFENet's.

"prototypes" names the training-free model instead of a file. By default it is that of prototypes-lite0; --backbone and
--backbone-weights choose another backbone, and --model other settings, such as score=kmeans.

As in the papers, a model trained with one support image can be tested with five. Each result is written to a JSON file
in --out as soon as it is complete; the file also names the protocol, the seeds and the model's settings. A file of
another model or of other data is kept: a digest is added to the new file's name.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewshotseg._checks import check_at_least
from fewshotseg.cli.settings import (
    TRAINING_FREE,
    add_data_arguments,
    add_model_argument,
    change_model,
    data_settings,
    training_free,
)
from fewshotseg.cli.talk import show
from fewshotseg.cli.values import check_folder, filled, filled_path
from fewshotseg.data import episodes_hash
from fewshotseg.models import PrototypeSegmenter, SCNet, build_scnet, read_model
from fewshotseg.models.checkpoints import make_model
from fewshotseg.models.hub import find_model
from fewshotseg.models.saved_model import digest_of
from fewshotseg.results import EvaluationResult, results_table
from fewshotseg.training.benchmark import TESTED, Benchmark, DataSettings, draw_test, open_benchmark
from fewshotseg.training.processes import ProcessInfo, process_group
from fewshotseg.training.recipe import RECIPES
from fewshotseg.training.run_folder import is_training_run
from fewshotseg.training.score import AMP, score


class Subject(NamedTuple):
    """What is measured: the model, the data to measure it on, and how the model was made."""

    model: SCNet | PrototypeSegmenter
    data: DataSettings
    origin: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command; those without a default here are absent from the parsed options if not given."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("checkpoint", nargs="?", type=filled, default=None, help="The model: a checkpoint of fewshotseg "
        "train, a file or folder of save_model, a name such as scnet-lite0, any other file that load_weights reads, or "
        "prototypes.")  # fmt: skip
    add("--benchmark", choices=TESTED, help="Data set to measure on (default: the one that the model was trained on).")
    add_data_arguments(parser)
    add("--backbone", metavar="NAME", help="Backbone of prototypes, or of a file that other code wrote: resnet50s for "
        "PFENet's checkpoints, or another name that build_scnet knows.")  # fmt: skip
    add("--backbone-weights", metavar="NAME", help="Weights for the backbone of prototypes: a file, timm (downloaded "
        "by timm), package (from an installed package), or a name of torchvision's weights.")  # fmt: skip
    add_model_argument(parser)
    add("--shots", type=int, nargs="+", default=[1], metavar="S", help="Number of support images; several numbers are "
        "measured one after the other (default: 1).")  # fmt: skip
    add("--batch", type=int, default=1, metavar="N", help="Episodes in a batch. More are faster on a GPU; results may "
        "differ in the last digits (default: 1).")  # fmt: skip
    add("--amp", choices=AMP, default="none", help="Precision of automatic mixed precision (default: none).")
    add("--threshold", type=float, default=None, metavar="P", help="Probability above which a pixel is foreground "
        "(default: the model's own).")  # fmt: skip
    add("--method", help="Name of the model in the table of results (default: SCNet; PFENet if lambda or n is 0; "
        "training-free and its score).")  # fmt: skip
    add("--out", type=filled_path, metavar="FOLDER", help="Folder for the results (default: the folder of the "
        "checkpoint).")  # fmt: skip
    add("--device", type=filled, default=None, help="Device to compute on, such as cpu or cuda:1 (default: "
        "CUDA if there is a GPU).")  # fmt: skip
    add("--table", nargs="+", action="extend", default=None, metavar="JSON", help="Only print a table of these "
        "result files.")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Measure the model, and write a file of results for each number of supports.

    Raises:
        ValueError: If an option, the model or the data cannot be used.
        OSError: If data is missing or a file cannot be written.
        ImportError: If an extra is not installed.
    """
    given = vars(options)
    path, table = given.pop("checkpoint"), given.pop("table")
    if (path is None) == (table is None):
        raise ValueError("either a checkpoint or --table must be given")
    if table is not None:
        show(results_table(EvaluationResult.load(each) for each in table))
        return 0
    out = given.pop("out", Path(path).parent if Path(path).exists() else Path())
    check_folder("out", out)
    how = {name: given.pop(name) for name in ("shots", "batch", "amp", "threshold")}
    check_at_least("batch", how["batch"], 1)
    device, method = given.pop("device"), given.pop("method", None)
    subject = open_subject(path, given)
    subject.origin["digest"] = _digest(subject)
    method = method or method_of(subject.model)
    results = []
    with process_group(device) as process:
        subject.model.to(process.device)
        benchmark = open_benchmark(subject.data, progress=process.shows_progress)
        for result in measure(subject, benchmark, process, method=method, **how):
            results.append(result)
            if process.rank == 0:
                file = place_for(result, out / f"{Path(path).stem}-{file_name(result)}.json")
                result.save(file)
                show(f"saved {file}\n")
        if process.rank == 0:
            show(results_table(results))
    return 0


def measure(
    subject: Subject,
    benchmark: Benchmark,
    process: ProcessInfo,
    *,
    method: str,
    shots: Sequence[int],
    batch: int = 1,
    amp: str = "none",
    threshold: float | None = None,
) -> Iterator[EvaluationResult]:
    """Measure a model under its protocol, once for each seed; several processes share the episodes.

    Args:
        subject: The model, on the device of this process, and its data.
        benchmark: The opened data.
        process: The rank and the device of this process.
        method: The name of the model in the results.
        shots: Numbers of supports; each gives one result.
        batch: Episodes in a batch, see `fewshotseg.evaluate`.
        amp: Precision of automatic mixed precision, a key of `AMP`.
        threshold: Probability above which a pixel is foreground; by default the model's own.

    Yields:
        Each result as soon as it is complete. All episodes are drawn before the first is measured.
    """
    model, data, origin = subject
    protocol = data.protocol
    threshold = model.config.threshold if threshold is None else threshold
    tests = {
        number: [draw_test(benchmark, protocol, model, shots=number, seed=seed) for seed in protocol.seeds]
        for number in shots
    }
    for number, drawn in tests.items():
        reports = []
        for seed, episodes in zip(protocol.seeds, drawn, strict=True):
            with torch.autocast(process.device.type, AMP[amp], enabled=amp != "none"):
                report = score(
                    model, episodes, benchmark.split.novel, protocol, process, batch=batch, threshold=threshold
                )
            if process.rank == 0:
                show(f"{number}-shot, seed {seed}\n{report}\n")
            reports.append(report.to_dict())
        yield EvaluationResult(
            method=method,
            model=origin | {"threshold": threshold, "amp": amp},
            fold=int(data.fold),
            shots=number,
            seeds=protocol.seeds,
            protocol=protocol.name,
            protocol_hash=protocol.hash(),
            episodes_hashes=[episodes_hash(episodes.specs) for episodes in drawn],
            reports=reports,
        )


def file_name(result: EvaluationResult) -> str:
    """Name a file after the protocol, the fold and the shots, and the threshold and precision if they are unusual."""
    name = f"{result.protocol_hash}-fold{result.fold}-{result.shots}shot"
    threshold, amp = result.model["threshold"], result.model["amp"]
    return name + ("" if threshold == 0.5 else f"-from{threshold:g}") + ("" if amp == "none" else f"-{amp}")


def place_for(result: EvaluationResult, path: Path) -> Path:
    """Return where to save a result: ``path``, or beside it with a digest in the name if another result is there.

    A result of the same model on the same episodes is replaced.
    """
    own = _identity(result)
    try:
        other = _identity(EvaluationResult.load(path))
    except FileNotFoundError:
        return path
    except (OSError, ValueError):  # a file of somebody else
        other = ""
    return path if own == other else path.with_name(f"{path.name.removesuffix('.json')}-{own}.json")


def _digest(subject: Subject) -> str:
    """Compute a digest of the model's settings and weights, and of the places of the data."""
    places = [str(Path(folder).resolve()) for folder in subject.data.data]
    facts = (subject.model.config.to_dict(), digest_of(subject.model.state_dict()), places)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _identity(result: EvaluationResult) -> str:
    """Compute a digest of what a result is of: the model, its name in tables, the data and the episodes."""
    facts = (result.method, result.model, result.episodes_hashes)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def open_subject(path: str, options: dict[str, Any]) -> Subject:
    """Open the model that ``path`` and the options name, and its data."""
    if path == TRAINING_FREE and not Path(path).exists():
        return without_training(options)
    if "backbone_weights" in options:
        raise ValueError(f"backbone_weights must go with the model {TRAINING_FREE}, as {path} holds its own weights")
    return from_elsewhere(path, options) if "backbone" in options else from_this_package(path, options)


def method_of(model: SCNet | PrototypeSegmenter) -> str:
    """Name a model as in a table of results."""
    if isinstance(model, PrototypeSegmenter):
        return f"training-free, {model.config.score}"
    return "PFENet" if model.self_contrast is None else "SCNet"


def without_training(options: dict[str, Any]) -> Subject:
    """Make the training-free model from the options."""
    if "benchmark" not in options:
        raise ValueError(f"benchmark must be given for {TRAINING_FREE}, which is trained on nothing")
    model = training_free(options)
    data = data_settings(options, {"protocol": TESTED[options["benchmark"]]})
    return Subject(model, data, {"model": model.config.to_dict()})


def from_this_package(path: str, options: dict[str, Any]) -> Subject:
    """Open a model that this package wrote: a checkpoint, a file of `save_model`, or a pretrained model by its name."""
    if options.pop("model"):
        raise ValueError("model must not be given without backbone, as files of this package hold their settings")
    source = find_model(path)
    try:
        saved = read_model(source)
    except ValueError as error:
        raise ValueError(
            f"{error}; a file of other code, such as PFENet's, needs --backbone and --benchmark"
        ) from error
    if is_training_run(saved.origin):
        default, origin = _as_trained(saved.origin, options)
    elif "benchmark" in options:
        default, origin = {"protocol": TESTED[options["benchmark"]]}, saved.origin
    else:
        raise ValueError(f"benchmark must be given for {path}, which does not name its training data")
    return Subject(make_model(saved, source), data_settings(options, default), origin)


def _as_trained(saved: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the default settings of the data, from the training run, and what results record about the model."""
    trained = DataSettings.from_dict(saved["data"])
    default = {**vars(trained)}
    if options.get("benchmark", trained.benchmark) != trained.benchmark:
        default = {"protocol": TESTED[options["benchmark"]]}
    elif options.get("fold", trained.fold) != trained.fold and not _is_other_data(trained, options):
        raise ValueError(
            f"fold must be {trained.fold}, as the model was trained on classes of other folds, got {options['fold']}"
        )
    origin = {key: saved[key] for key in ("recipe", "iteration", "best", "versions") if key in saved}
    origin["trained under"] = f"{saved['protocol']} ({saved['protocol_hash']}), fold {trained.fold}"
    return default, origin


def _is_other_data(trained: DataSettings, options: Mapping[str, Any]) -> bool:
    """Whether the given folders are all different from those that the model was trained on, judging by their paths."""
    folders = {Path(folder).resolve() for folder in options.get("data", ())}
    return trained.benchmark == "folders" and bool(folders) and not folders & {Path(f).resolve() for f in trained.data}


def from_elsewhere(path: str, options: dict[str, Any]) -> Subject:
    """Open a file that other code wrote, with PFENet's settings unless options change them."""
    benchmark, backbone = options.get("benchmark"), options.pop("backbone")
    if benchmark is None:
        raise ValueError("benchmark must be given for a file of other code, which does not name its training data")
    data = data_settings(options, {"protocol": TESTED[benchmark]})
    config = replace(RECIPES.get(benchmark, RECIPES["pascal"]).model, backbone=backbone, num_prototypes=0)
    config = change_model(replace(config, image_size=data.protocol.test_size), options.pop("model"))
    model = build_scnet(weights=path, **config.to_dict())
    return Subject(model, data, {"backbone": backbone, "model": config.to_dict(), "weights": Path(path).name})
