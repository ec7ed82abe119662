"""The work between iterations: logging, validation, checkpoints and stopping."""

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewshotseg.data import EpisodeDataset, EvaluationProtocol
from fewshotseg.models import SCNet
from fewshotseg.training.processes import ProcessInfo, max_over_processes, mean_over_processes, share_buffers
from fewshotseg.training.run_folder import LAST, RunFolder
from fewshotseg.training.score import score
from fewshotseg.training.state import State
from fewshotseg.training.stopping import Stopped, StopSignals


@dataclass(frozen=True, kw_only=True)
class Session:
    """A running training, from its start or its last checkpoint.

    Attributes:
        facts: Settings and versions that checkpoints record.
        state: Model, optimizer and counters.
        folder: The folder of the run.
        process: The rank and the device of this process.
        stop: Signals that stop the run after an iteration.
        protocol: The protocol of validations.
        tests: The validation episodes; None without validation.
        class_ids: The classes that a validation averages over.
        total: Iterations of the run.
        epoch: Iterations of an epoch.
        log_every: Iterations between lines of the log.
        save_every: Iterations between checkpoints.
        validate_every: Iterations between validations.
        watch: Function that measures the model during training; its numbers are only logged.
        watch_every: Iterations between calls of ``watch``.
    """

    facts: Mapping[str, Any]
    state: State
    folder: RunFolder
    process: ProcessInfo
    stop: StopSignals
    protocol: EvaluationProtocol
    tests: EpisodeDataset | None
    class_ids: Sequence[int]
    total: int
    epoch: int
    log_every: int
    save_every: int
    validate_every: int
    watch: Callable[[SCNet], Mapping[str, float]] | None
    watch_every: int | None

    def catch_up(self) -> None:
        """Run the validation that was skipped when the run was stopped."""
        pending = self.state.iteration > self.state.validated
        if pending and self.tests is not None and self._due(self.validate_every):
            self._validate(self.tests)
            self._save()

    def after_iteration(self, rate: float, losses: Mapping[str, Tensor]) -> float | None:
        """Log, validate and save a checkpoint if it is time to.

        Args:
            rate: The learning rate of the last iteration.
            losses: This process's part of its losses.

        Returns:
            The loss if it was computed for the log or a checkpoint, else None.

        Raises:
            ValueError: If the loss is not finite.
            Stopped: If a signal was received; a checkpoint has been written.
        """
        state, loss = self.state, None
        done, stopped_by = state.iteration, max_over_processes(self.stop.received, self.process)
        validating = self.tests is not None and self._due(self.validate_every) and not stopped_by
        saving = validating or bool(stopped_by) or self._due(self.save_every)
        if self._due(self.log_every) or saving:
            means = mean_over_processes(losses, self.process)
            loss = means["loss"]
            if not math.isfinite(loss):
                raise ValueError(f"the loss must stay finite, got {loss} at iteration {done}: lower lr")
            if self._due(self.log_every):
                self.folder.log(iteration=done, epoch=done / self.epoch, lr=rate, **means)
        if validating or self._due(self.watch_every):
            share_buffers(state.model, self.process)
        if validating and self.tests is not None:
            self._validate(self.tests)
        if self.watch is not None and self._due(self.watch_every):
            self.folder.log(iteration=done, watched=dict(self.watch(state.model)))
        if saving:
            self._save()
        if stopped_by and not self._finished():
            raise self._stopped(stopped_by)
        return loss

    def _due(self, every: int | None) -> bool:
        return every is not None and (self.state.iteration % every == 0 or self.state.iteration == self.total)

    def _finished(self) -> bool:
        return self.state.iteration == self.total and (self.tests is None or self.state.validated == self.total)

    def _validate(self, tests: EpisodeDataset) -> None:
        """Evaluate the model, and save it if it is the best so far."""
        state = self.state
        # Several processes evaluate together: one that stopped alone would leave the others waiting.
        wrap = self.stop.interruptible if self.process.world_size == 1 else iter
        try:
            report = score(state.model, tests, self.class_ids, self.protocol, self.process, wrap=wrap)
        except Stopped as stopped:
            self._save()
            raise self._stopped(stopped.signal) from None
        self.folder.log(iteration=state.iteration, validation=report.miou, validation_fb_iou=report.fb_iou)
        state.validated = state.iteration
        if state.best is None or report.miou > state.best:
            state.best = report.miou
            self.folder.save_best(state.model, self._origin())

    def _save(self) -> None:
        self.folder.save_last(self.state.model, self._origin(), self.state.to_dict())

    def _origin(self) -> dict[str, Any]:
        return {**self.facts, "iteration": self.state.iteration, "best": self.state.best}

    def _stopped(self, number: int) -> Stopped:
        done, file = self.state.iteration, self.folder.path / LAST
        return Stopped(
            number,
            f"stopped by {signal.Signals(number).name} after iteration {done} of {self.total}, saved in {file}: "
            "the same command with --resume continues from there",
        )
