"""Measure a model on the novel classes of a fold, in a way that has a name, and keep the numbers with what they mean.

    python examples/evaluate.py outputs/pascal-fold0/last.pth --shots 1 5
    python examples/evaluate.py outputs/folders-fold0/last.pth --seeds 0 1 2 3 4
    python examples/evaluate.py train_epoch_183.pth --benchmark pascal --data VOC2012/ --fold 0 --backbone resnet50s
    torchrun --standalone --nproc-per-node 4 examples/evaluate.py outputs/pascal-fold0/last.pth
    python examples/evaluate.py --table outputs/*/last-*.json

For a checkpoint of train.py, data, fold and protocol are those of its training unless options say otherwise. Any other
file that `fewshotseg.load_weights` reads, such as PFENet's official ones, needs --benchmark, --data, --fold and
--backbone, and --model where it differs from PFENet. As in the papers, a model trained with one support may get five.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import fewshotseg as fs
from fewshotseg.data import EvaluationProtocol, episodes_hash
from fewshotseg.results import EvaluationResult, results_table
from fewshotseg.training.benchmark import (
    BENCHMARKS,
    DataSettings,
    add_data_arguments,
    data_settings,
    draw_test,
    open_benchmark,
)
from fewshotseg.training.loop import AMP, load_model, score
from fewshotseg.training.processes import joined_processes
from fewshotseg.training.recipe import RECIPES, add_model_argument, change_model
from open_model import count_from


def run(
    model: fs.SCNet,
    data: DataSettings,
    *,
    method: str,
    origin: dict[str, Any],
    shots: Sequence[int] = (1,),
    batch: int = 1,
    amp: str = "none",
    device: str | None = None,
) -> list[EvaluationResult]:
    """Measure a model under a protocol, with all of its seeds, together with all other processes.

    Args:
        model: What to measure; it is moved to the device.
        data: Images, fold and protocol.
        method: The name that the results carry.
        origin: What the results should say about the model.
        shots: Numbers of supports, one result for each.
        batch: Episodes at once, see `fewshotseg.evaluate`.
        amp: Precision of the model's matrix products, a key of `AMP`.
        device: By default CUDA where there is any, else the CPU.
    """
    protocol = data.protocol
    results = []
    with joined_processes(device) as place:
        model.to(place.device)
        benchmark = open_benchmark(data, progress=place.rank == 0)
        for each in shots:
            reports, hashes = [], []
            for seed in protocol.seeds:
                episodes = draw_test(benchmark, protocol, model.backbone, shots=each, seed=seed)
                with torch.autocast(place.device.type, AMP[amp], enabled=amp != "none"):
                    report = score(model, episodes, benchmark.split.novel, protocol, place, batch=batch)
                if place.rank == 0:
                    print(f"{each}-shot, seed {seed}\n{report}\n")
                reports.append(report.to_dict())
                hashes.append(episodes_hash(episodes.specs))
            result = EvaluationResult(
                method=method,
                model=origin,
                fold=data.fold,
                shots=each,
                seeds=protocol.seeds,
                protocol=protocol.name,
                protocol_hash=protocol.hash(),
                episodes_hashes=hashes,
                reports=reports,
            )
            results.append(result)
    return results


def trained_here(path: str, options: dict[str, Any]) -> tuple[fs.SCNet, DataSettings, dict[str, Any]]:
    """The model of a checkpoint of train.py, where to measure it, and how it came about."""
    if options.pop("model"):
        raise ValueError("model and backbone must not be given for checkpoints of train.py, which hold them, got model")
    model, saved = load_model(path)
    default = {**saved["data"], "protocol": EvaluationProtocol(**saved["data"]["protocol"])}
    if options.get("benchmark", default["benchmark"]) == default["benchmark"]:
        if options.get("fold", default["fold"]) != default["fold"]:
            raise ValueError(
                f"fold must be {default['fold']}, as the model was trained on classes of other folds, "
                f"got {options['fold']}"
            )
    else:
        default = {"protocol": BENCHMARKS[options["benchmark"]]}
    origin = {key: saved[key] for key in ("recipe", "iteration", "best", "versions")}
    origin["trained under"] = f"{saved['protocol']} ({saved['protocol_hash']}), fold {saved['data']['fold']}"
    return model, data_settings(options, default), origin


def trained_elsewhere(path: str, options: dict[str, Any]) -> tuple[fs.SCNet, DataSettings, dict[str, Any]]:
    """The model of another file, PFENet unless options say otherwise."""
    benchmark, backbone = options.get("benchmark"), options.pop("backbone")
    if benchmark is None:
        raise ValueError("benchmark must be given for a checkpoint that is not of train.py, as it does not say it")
    config = change_model(replace(RECIPES[benchmark].model, num_prototypes=0), options.pop("model"))
    data = data_settings(options, {"protocol": BENCHMARKS[benchmark]})
    model = fs.build_scnet(backbone, weights=path, **asdict(config))
    return model, data, {"backbone": backbone, "model": asdict(config), "weights": Path(path).name}


def main(arguments: Sequence[str] | None = None) -> list[EvaluationResult]:
    """Measure as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("checkpoint", nargs="?", default=None, help="of train.py, or any file that load_weights reads")
    add("--benchmark", choices=BENCHMARKS, help="what to measure on (default: what the model was trained on)")
    add_data_arguments(parser)
    add(
        "--backbone",
        help="for files that are not of train.py: resnet50s for PFENet's, or another that build_scnet knows",
    )
    add_model_argument(parser)
    add("--shots", type=int, nargs="+", default=[1], help="numbers of supports (default: 1)")
    add("--batch", type=int, default=1, help="episodes at once, for an accelerator; changes rounding (default: 1)")
    add("--amp", choices=AMP, default="none", help="mixed precision (default: none)")
    add("--threshold", type=float, default=0.5, help="foreground is from this probability on (default: 0.5)")
    add("--method", help="the row of the table (default: SCNet, or PFENet where lambda or n is 0)")
    add("--out", help="folder of the results (default: that of the checkpoint)")
    add("--device", default=None, help="such as cpu or cuda:1 (default: CUDA where there is any)")
    add("--table", nargs="+", default=None, metavar="JSON", help="measure nothing, put results together in a table")
    options = vars(parser.parse_args(arguments))
    path, table, threshold = (options.pop(name) for name in ("checkpoint", "table", "threshold"))
    how = {name: options.pop(name) for name in ("shots", "batch", "amp", "device")}
    if (path is None) == (table is None):
        parser.error("either a checkpoint or --table must be given")
    try:
        if table is not None:
            results = [EvaluationResult.load(each) for each in table]
            print(results_table(results))
            return results
        folder = Path(options.pop("out", Path(path).parent))
        method = options.pop("method", None)
        if "backbone" in options:
            model, data, origin = trained_elsewhere(path, options)
        else:
            model, data, origin = trained_here(path, options)
        count_from(model, threshold)
        origin |= {"threshold": threshold, "amp": how["amp"]}
        if method is None:
            method = "SCNet" if model.partition is not None and model.self_contrast_weight else "PFENet"
        with joined_processes(how["device"]) as place:
            results = run(model, data, method=method, origin=origin, **how)
            if place.rank == 0:
                print(results_table(results))
                for result in results:
                    name = f"{Path(path).stem}-{result.protocol_hash}-fold{result.fold}-{result.shots}shot"
                    name += "" if threshold == 0.5 else f"-from{threshold:g}"
                    name += "" if how["amp"] == "none" else f"-{how['amp']}"
                    result.save(folder / f"{name}.json")
                    print(f"saved {folder / name}.json")
        return results
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
