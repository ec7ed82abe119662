"""The training loop, with logging, validation and checkpoints; an interrupted run can be resumed exactly."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from fewshotseg._checks import check_at_least
from fewshotseg._io import progress_bar
from fewshotseg.data import EpisodeDataset
from fewshotseg.models import FeatureMemory, SCNet
from fewshotseg.results import versions
from fewshotseg.training.benchmark import Benchmark, DataSettings, hold_out, open_benchmark
from fewshotseg.training.episodes import training_episodes, validation_episodes
from fewshotseg.training.folds import check_base
from fewshotseg.training.processes import ProcessInfo, process_group
from fewshotseg.training.recipe import Recipe
from fewshotseg.training.run_folder import BEST, LAST, RunFolder, plain
from fewshotseg.training.score import AMP
from fewshotseg.training.seeds import draw_seed, micro_batches
from fewshotseg.training.session import Session
from fewshotseg.training.state import State, initial_state
from fewshotseg.training.stopping import StopSignals, ignore_stop_signals
from fewshotseg.training.summary import summary


class Trained(NamedTuple):
    """The result of a run.

    Attributes:
        checkpoint: The file of the selected checkpoint; `fewshotseg.load_model` reads it.
        miou: The validation mIoU that it was selected by; None for the last checkpoint.
    """

    checkpoint: Path
    miou: float | None


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
    memory: FeatureMemory | None = None,
    watch: Callable[[SCNet], Mapping[str, float]] | None = None,
    watch_every: int | None = None,
    stop: StopSignals | None = None,
) -> Trained:
    """Train a model, from the start or from the last checkpoint in ``out``.

    A run that is killed at any moment and resumed ends with bit-identical weights. Random numbers depend only on the
    seed, the iteration and the part of the batch: several processes draw the same as one with gradient accumulation.

    Args:
        recipe: The training settings.
        data: The data to train on.
        out: Folder for the log and the checkpoints.
        resume: Continue from the last checkpoint in ``out``, if there is one.
        workers: Processes that load episodes, for each training process.
        device: Device to train on, such as ``"cpu"`` or ``"cuda:1"``; by default CUDA if there is a GPU.
        log_every: Iterations between lines of the log.
        save_every: Iterations between checkpoints.
        tensorboard: Write the log for TensorBoard too.
        benchmark: The data of ``data``, if it is already open.
        memory: A feature cache that several runs share, instead of the recipe's own.
        watch: Function that measures the model during training; its numbers are only logged.
        watch_every: Iterations between calls of ``watch``.
        stop: Signals that stop the run after the current iteration, with a checkpoint.

    Returns:
        The selected checkpoint.

    Raises:
        ValueError: If settings and data do not fit, ``out`` holds another run, or the loss is not finite.
        OSError: If data is missing or ``out`` cannot be written to.
        Stopped: If ``stop`` received a signal.

    Example:
        >>> import tempfile
        >>> from dataclasses import replace
        >>> from fewshotseg.training import BENCHMARKS, RECIPES, DataSettings, run
        >>> data = DataSettings(benchmark="synthetic", protocol=replace(BENCHMARKS["synthetic"], train_size=49))
        >>> recipe = replace(RECIPES["synthetic"], iterations=2, pretrain=1)
        >>> trained = run(recipe, replace(data, images=60), tempfile.mkdtemp(), device="cpu")  # doctest: +ELLIPSIS
        protocol ...
        >>> trained.checkpoint.name
        'last.pth'
    """
    check_at_least("workers", workers, 0)
    check_at_least("log_every", log_every, 1)
    check_at_least("save_every", save_every, 1)
    stop = stop or StopSignals()
    facts = facts_of(recipe, data)
    with (
        process_group(device) as process,
        RunFolder(Path(out), writes=process.rank == 0, resume=resume) as folder,
    ):
        if recipe.micro_batches % process.world_size:
            raise ValueError(f"micro_batches must be a multiple of {process.world_size}, got {recipe.micro_batches}")
        folder.check_same_run(facts)
        benchmark = validation = benchmark or open_benchmark(data, progress=process.shows_progress)
        check_base(benchmark.split, data.fold)
        if recipe.select == "held-out":
            benchmark, validation = hold_out(benchmark)
        epoch = max(benchmark.listed(data.protocol.min_area) // recipe.batch, 1)
        total = recipe.iterations or recipe.epochs * epoch
        state = initial_state(recipe, data, benchmark, folder.last, process.device)
        if state.iteration > total:
            raise ValueError(f"iteration of {LAST} must be at most {total}, where this run ends, got {state.iteration}")
        state.model.fuse().memory = memory or state.model.memory
        episodes = training_episodes(recipe, data, benchmark, state.model, total)
        session = Session(
            facts=facts,
            state=state,
            folder=folder,
            process=process,
            stop=stop,
            protocol=data.protocol,
            tests=validation_episodes(recipe, data, validation, state.model),
            class_ids=validation.split.novel,
            total=total,
            epoch=epoch,
            log_every=log_every,
            save_every=save_every,
            validate_every=recipe.validate_every or epoch,
            watch=watch,
            watch_every=watch_every,
        )
        folder.start(tensorboard=tensorboard)
        folder.log(iteration=state.iteration, event="start", processes=process.world_size, **facts)
        if process.rank == 0:
            print(summary(recipe, data, benchmark, validation, process, total))
        with stop.deferred(patient=process.world_size > 1):
            session.catch_up()
            steps = iterations(recipe, state, episodes, process, total=total, workers=workers)
            show, start = process.shows_progress, state.iteration
            bar = progress_bar(steps, "training", show=show, total=total, initial=start)
            for rate, losses in bar:
                loss = session.after_iteration(rate, losses)
                if loss is not None and hasattr(bar, "set_postfix"):
                    bar.set_postfix(loss=f"{loss:.3f}")
        return Trained(folder.path / (LAST if recipe.select == "last" else BEST), state.best)


def facts_of(recipe: Recipe, data: DataSettings) -> dict[str, Any]:
    """Collect the settings and versions that checkpoints and the log record, as plain values."""
    return plain(
        {
            "recipe": asdict(recipe),
            "data": asdict(data),
            "protocol": data.protocol.name,
            "protocol_hash": data.protocol.hash(),
            "versions": versions(),
        }
    )


def iterations(
    recipe: Recipe, state: State, episodes: EpisodeDataset, process: ProcessInfo, *, total: int, workers: int
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Train up to iteration ``total``; after each yield its learning rate and this process's part of its losses."""
    forward: nn.Module = state.model
    forward.train()
    if recipe.compile:
        forward.compile()
    together = None
    if process.world_size > 1:
        forward = together = _data_parallel(
            state.model, sync_buffers=recipe.model.norm_stats == "batch" or recipe.model.learned_points
        )
    batches = DataLoader(
        episodes,
        batch_sampler=micro_batches(recipe, process, state.iteration, total),
        num_workers=workers,
        pin_memory=process.device.type == "cuda",
        worker_init_fn=ignore_stop_signals,
    )
    own = recipe.micro_batches // process.world_size
    losses: dict[str, Tensor] = {}
    for number, batch in enumerate(batches, start=own * state.iteration):
        part = number % own
        # Gradients are summed over processes once in each iteration, in the backward pass of its last part.
        sums_up = together is None or part == own - 1
        torch.manual_seed(draw_seed(recipe.seed, state.iteration, process.rank + part * process.world_size))
        *images, query_masks = (tensor.to(process.device, non_blocking=True) for tensor in batch[:4])
        query_masks = query_masks[:, :: recipe.loss_stride, :: recipe.loss_stride]
        with nullcontext() if together is None or sums_up else together.no_sync():
            with torch.autocast(process.device.type, AMP[recipe.amp], enabled=recipe.amp != "none"):
                output = forward(*images, query_masks)
            state.scaler.scale(output.loss / own).backward()
        for name, loss in {"loss": output.loss, **output.losses}.items():
            losses[name] = losses.get(name, 0) + loss.detach() / own
        if part == own - 1:
            rate = recipe.learning_rate_at(state.iteration + 1, total)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.scaler.step(state.optimizer)
            state.scaler.update()
            state.optimizer.zero_grad()
            state.iteration += 1
            yield rate, losses
            losses = {}


def _data_parallel(model: SCNet, *, sync_buffers: bool) -> DistributedDataParallel:
    """Wrap a model so that processes share gradients, and with ``sync_buffers`` also buffers before each pass."""
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before PyTorch 2.13
    options: dict[str, Any] = {name: sync_buffers}
    return DistributedDataParallel(model, **options)
