"""Train SCNet, or PFENet (lambda = 0), as their papers do, on one fold of a benchmark.

    python examples/train.py synthetic                                  # images made by the package, no download
    python examples/train.py folders --data photographs/
    python examples/train.py folders --data photographs/ --fold all                 # a model to use: on all classes
    python examples/train.py pascal --data VOC2012/ --fold 0 --backbone-weights IMAGENET1K_V1 --workers 8
    python examples/train.py coco --data COCO2014/ --model self_contrast_weight=0
    torchrun --standalone --nproc-per-node 4 examples/train.py pascal --data VOC2012/

The run leaves last.pth, best.pth where --select asks for one, and log.jsonl in --out. Killed at any moment and started
again with --resume, it ends with the same weights. Episodes, augmentation, dropout and the draws of k-means depend on
the seed, the iteration and the part of the batch alone: processes can be traded for accumulation.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

import fewshotseg as fs
from fewshotseg.data import EpisodeDataset, EvaluationProtocol, padded_eval
from fewshotseg.data.episodes.hard import HardSpecs
from fewshotseg.models.backbones.tiny import TinyBackbone, pretrained_tiny_backbone
from fewshotseg.results import versions
from fewshotseg.training.benchmark import (
    BENCHMARKS,
    Benchmark,
    DataSettings,
    add_data_arguments,
    data_settings,
    draw_test,
    hold_out,
    open_benchmark,
)
from fewshotseg.training.processes import Place, joined_processes
from fewshotseg.training.recipe import RECIPES, Recipe, add_recipe_arguments, recipe_from
from fewshotseg.training.run_folder import RunFolder, read_checkpoint

AMP = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Trained(NamedTuple):
    """What a run leaves: the weights that count, and the mIoU that chose them unless they are the last."""

    checkpoint: Path
    miou: float | None


@dataclass
class State:
    """What changes in training, and what the next iteration depends on."""

    model: fs.SCNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    iteration: int = 0
    best: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint. Random states are there for what you may add: every micro-batch has a seed of its own."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iteration": self.iteration,
            "best": self.best,
            "rng": torch.get_rng_state(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to what a checkpoint holds."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.iteration, self.best = saved["iteration"], saved["best"]
        torch.set_rng_state(saved["rng"])


def run(
    recipe: Recipe,
    data: DataSettings,
    out: str | Path,
    *,
    resume: bool = False,
    workers: int = 0,
    device: str | None = None,
    log_every: int = 10,
    save_every: int = 500,
    tensorboard: bool = False,
    benchmark: Benchmark | None = None,
    memory: fs.FeatureMemory | None = None,
    watch: Callable[[fs.SCNet], Mapping[str, float]] | None = None,
    watch_every: int | None = None,
) -> Trained:
    """Train to the end, from the start or from where the run in ``out`` was interrupted.

    Args:
        recipe: How.
        data: On what.
        out: Folder of log and checkpoints.
        resume: Go on from the last checkpoint in ``out``, if there is one.
        workers: Processes that load episodes, for each process that trains.
        device: By default CUDA where there is any, else the CPU.
        log_every: Iterations from one log line to the next.
        save_every: Iterations from one checkpoint to the next.
        tensorboard: Log for TensorBoard too.
        benchmark: What ``data`` describes, if it is open already.
        memory: Features of the frozen backbone that several runs share, in place of the recipe's own.
        watch: Looks at the model meanwhile; what it finds is logged and decides nothing.
        watch_every: Iterations from one look to the next.

    Raises:
        ValueError: If settings and data do not fit, ``out`` holds another run, or the loss is not finite.
    """
    if min(log_every, save_every) < 1:
        raise ValueError(f"log_every and save_every must be at least 1, got {log_every} and {save_every}")
    facts = {
        "recipe": asdict(recipe),
        "data": asdict(data),
        "protocol": data.protocol.name,
        "protocol_hash": data.protocol.hash(),
        "versions": versions(),
    }
    with (
        joined_processes(device) as place,
        RunFolder(Path(out), writes=place.rank == 0, resume=resume, tensorboard=tensorboard) as folder,
    ):
        if recipe.micro_batches % place.processes:
            raise ValueError(f"micro_batches must be a multiple of {place.processes}, got {recipe.micro_batches}")
        folder.check_same_run(facts)
        benchmark = validation = benchmark or open_benchmark(data, progress=place.rank == 0)
        if recipe.select == "held-out":
            benchmark, validation = hold_out(benchmark)
        epoch = max(benchmark.listed(data.protocol.min_area) // recipe.batch, 1)
        total = recipe.iterations or recipe.epochs * epoch
        state = initial_state(recipe, data, benchmark, folder.last, place.device)
        state.model.memory = memory or state.model.memory
        episodes = training_episodes(recipe, data, benchmark, state.model.backbone, total)
        tests = validation_episodes(recipe, data, validation, state.model.backbone)
        if place.rank == 0:
            print(summary(recipe, data, benchmark, validation, place, total))
        folder.log(iteration=state.iteration, event="start", processes=place.processes, **facts)

        steps = iterations(recipe, state, episodes, place, total=total, workers=workers)
        bar = tqdm(steps, initial=state.iteration, total=total, disable=None if place.rank == 0 else True)
        for rate, losses in bar:
            done = state.iteration
            scoring = tests is not None and (done % (recipe.validate_every or epoch) == 0 or done == total)
            saving = scoring or done % save_every == 0 or done == total
            logging = done % log_every == 0 or done == total
            if logging or saving:
                means = mean_over_processes(losses, place)
                if not math.isfinite(means["loss"]):
                    raise ValueError(f"the loss must stay finite, got {means['loss']} at iteration {done}: lower lr")
                bar.set_postfix(loss=f"{means['loss']:.3f}")
            if logging:
                folder.log(iteration=done, epoch=done / epoch, lr=rate, **means)
            if scoring:
                report = score(state.model, tests, validation.split.novel, data.protocol, place)
                folder.log(iteration=done, validation=report.miou, validation_fb_iou=report.fb_iou)
                if state.best is None or report.miou > state.best:
                    state.best = report.miou
                    folder.save("best.pth", {**state.to_dict(), **facts})
            if watch is not None and watch_every and (done % watch_every == 0 or done == total):
                folder.log(iteration=done, watched=dict(watch(state.model)))
            if saving:
                folder.save("last.pth", {**state.to_dict(), **facts})
        return Trained(folder.path / ("last.pth" if recipe.select == "last" else "best.pth"), state.best)


def iterations(
    recipe: Recipe, state: State, episodes: EpisodeDataset, place: Place, *, total: int, workers: int
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Go on to iteration ``total``; after each, give its learning rate and this process's part of its losses."""
    forward: nn.Module = state.model
    forward.train()
    if recipe.compile:
        forward.compile()
    if place.processes > 1:
        forward = DistributedDataParallel(forward, broadcast_buffers=recipe.model.norm_stats == "batch")
    batches = DataLoader(
        episodes,
        batch_sampler=micro_batches(recipe, place, state.iteration, total),
        num_workers=workers,
        pin_memory=place.device.type == "cuda",
    )
    own = recipe.micro_batches // place.processes
    losses: dict[str, Tensor] = {}
    for number, batch in enumerate(batches, start=own * state.iteration):
        part = number % own
        to_sum_up = nullcontext() if part == own - 1 or place.processes == 1 else forward.no_sync()
        torch.manual_seed(draw_seed(recipe.seed, state.iteration, place.rank + part * place.processes))
        *images, query_masks = (tensor.to(place.device, non_blocking=True) for tensor in batch[:4])
        query_masks = query_masks[:, :: recipe.loss_stride, :: recipe.loss_stride]
        with to_sum_up:
            with torch.autocast(place.device.type, AMP[recipe.amp], enabled=recipe.amp != "none"):
                output = forward(*images, query_masks)
            state.scaler.scale(output.loss / own).backward()
        for name, loss in {"loss": output.loss, **output.losses}.items():
            losses[name] = losses.get(name, 0) + loss.detach() / own
        if part == own - 1:
            rate = recipe.rate(state.iteration + 1, total)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.scaler.step(state.optimizer)
            state.scaler.update()
            state.optimizer.zero_grad()
            state.iteration += 1
            yield rate, losses
            losses = {}


def micro_batches(recipe: Recipe, place: Place, start: int, total: int) -> Iterator[range]:
    """The numbers of the episodes that this process takes, one micro-batch after the other."""
    size = recipe.batch // recipe.micro_batches
    for iteration in range(start, total):
        for part in range(place.rank, recipe.micro_batches, place.processes):
            first = iteration * recipe.batch + part * size
            yield range(first, first + size)


def draw_seed(*numbers: int) -> int:
    """A seed for the draws of a micro-batch; the 1 tells it from those of an episode's transforms."""
    return int(np.random.SeedSequence((*numbers, 1)).generate_state(1, np.uint64)[0])


def mean_over_processes(losses: dict[str, Tensor], place: Place) -> dict[str, float]:
    """The losses of an iteration over its whole batch."""
    values = torch.stack([value.double() for value in losses.values()])
    if place.processes > 1:
        dist.all_reduce(values)
    return dict(zip(losses, (values / place.processes).tolist(), strict=True))


def initial_state(
    recipe: Recipe, data: DataSettings, benchmark: Benchmark, saved: dict[str, Any] | None, device: torch.device
) -> State:
    """A new model and optimizer, or those of a checkpoint."""
    torch.manual_seed(recipe.seed)
    backbone: Any = recipe.backbone
    if backbone == "tiny" and saved is None:
        size = data.protocol.train_size
        transform = v2.Compose([v2.RandomHorizontalFlip(), padded_eval(size)])
        backbone = pretrained_tiny_backbone(benchmark.train, benchmark.split.base, transform, recipe.pretrain)
    elif backbone == "tiny":
        backbone = TinyBackbone()
    weights: Any = recipe.backbone_weights
    if saved is not None:
        weights = {name: value for name, value in saved["model"].items() if name.startswith("backbone.")}
    model = fs.build_scnet(backbone, backbone_weights=weights, **asdict(recipe.model)).to(device)
    recipe.prepare(model, new=saved is None)
    if recipe.memory_gb:
        model.memory = fs.FeatureMemory(int(recipe.memory_gb * 2**30), dtype=torch.float16)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "float16")
    state = State(model, recipe.make_optimizer(model), scaler)
    if saved is not None:
        state.restore(saved)
    return state


def load_model(path: str | Path) -> tuple[fs.SCNet, dict[str, Any]]:
    """The model of a checkpoint, and what else the checkpoint holds."""
    saved = read_checkpoint(path)
    backbone = saved["recipe"]["backbone"]
    backbone = TinyBackbone() if backbone == "tiny" else backbone
    return fs.build_scnet(backbone, weights=path, **saved["recipe"]["model"]), saved


def training_episodes(
    recipe: Recipe, data: DataSettings, benchmark: Benchmark, backbone: nn.Module, total: int
) -> EpisodeDataset:
    """All episodes of a run, those of iteration t from number ``t * batch`` on."""
    train, base, seed = benchmark.train, benchmark.split.base, recipe.seed
    episodes = EpisodeDataset(
        train,
        base,
        shots=recipe.shots,
        length=total * recipe.batch,
        seed=seed,
        transform=recipe.augment(data.protocol, backbone),
        min_area=data.protocol.min_area,
        ignore_classes=benchmark.split.novel if data.protocol.novel_in_training == "ignore" else (),
    )
    if recipe.hard_share:
        episodes.specs = HardSpecs(episodes.specs, train, base, share=recipe.hard_share, seed=seed)
    return episodes


def validation_episodes(
    recipe: Recipe, data: DataSettings, validation: Benchmark, backbone: nn.Module
) -> EpisodeDataset | None:
    """What chooses among the weights of a run, if anything does."""
    if recipe.select == "last":
        return None
    own_draws = {"draw": "number", "workers": None, "max_passes": None}
    protocol = replace(data.protocol, episodes=recipe.validate_episodes, **own_draws)
    return draw_test(validation, protocol, backbone, shots=recipe.shots, seed=recipe.seed)


def score(
    model: fs.SCNet,
    episodes: EpisodeDataset,
    class_ids: Sequence[int],
    protocol: EvaluationProtocol,
    place: Place,
    *,
    batch: int = 1,
) -> fs.IoUReport:
    """Measure a model, each process on its share of the episodes."""
    names = episodes.source.class_names
    metric = fs.FewShotIoU(class_ids, class_names={class_id: names[class_id] for class_id in class_ids})
    bar = partial(tqdm, desc="testing", leave=False, disable=None if place.rank == 0 else True)
    return fs.evaluate(model, episodes, metric, scoring=protocol.scoring, batch_size=batch, progress=bar)


def summary(
    recipe: Recipe, data: DataSettings, benchmark: Benchmark, validation: Benchmark, place: Place, total: int
) -> str:
    """What is about to happen, with the numbers as they are used."""
    names = benchmark.test.class_names
    chosen = {
        "last": "the last, no validation",
        "held-out": "by base classes held out of training",
        "novel": "by the novel classes of the test fold: results will be optimistic",
    }[recipe.select]
    if recipe.select != "last":
        chosen += f" ({', '.join(names[class_id] for class_id in validation.split.novel)})"
    weights = recipe.model.self_contrast_weight if recipe.model.num_prototypes else 0
    own = recipe.micro_batches // place.processes
    rows = {
        "protocol": f"{data.protocol.name} ({data.protocol.hash()}), fold {data.fold}",
        "novel classes": ", ".join(names[class_id] for class_id in benchmark.split.novel) or "none",
        "training": f"{len(benchmark.train.ids)} images, {len(benchmark.split.base)} classes, {total} iterations",
        "batch": f"{recipe.batch} episodes = {place.processes} processes x {own} accumulated x "
        f"{recipe.batch // recipe.micro_batches}, crops of {data.protocol.train_size}, on {place.device}",
        "learning rate": f"{recipe.lr:g} as {recipe.optimizer} uses it, falling to 0 with power {recipe.power:g}; a "
        "rate quoted for PFENet's code is a tenth of what that uses",
        "lambda": f"{weights:g}" + ("" if weights else ", which is PFENet"),
        "weights": chosen,
    }
    return "\n".join(f"{name:<14} {text}" for name, text in rows.items())


def main(arguments: Sequence[str] | None = None) -> Trained:
    """Train as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("benchmark", choices=BENCHMARKS, help="decides on data, protocol and recipe; options change single settings")
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    add("--out", default=None, help="folder of log and checkpoints (default: outputs/BENCHMARK-foldN)")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out, if there is one")
    add("--workers", type=int, help="processes that load episodes, for each process that trains (default: 0)")
    add("--device", help="such as cpu or cuda:1 (default: CUDA where there is any)")
    add("--log-every", type=int, help="iterations from one log line to the next (default: 10)")
    add("--save-every", type=int, help="iterations from one checkpoint to the next (default: 500)")
    add("--tensorboard", action="store_true", help="log for TensorBoard too")
    options = vars(parser.parse_args(arguments))
    try:
        benchmark, out = options.pop("benchmark"), options.pop("out")
        data = data_settings(options, {"benchmark": benchmark, "protocol": BENCHMARKS[benchmark]})
        recipe = recipe_from(options, RECIPES[benchmark], int(os.environ.get("WORLD_SIZE", "1")))
        return run(recipe, data, out or f"outputs/{benchmark}-fold{data.fold}", **options)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
