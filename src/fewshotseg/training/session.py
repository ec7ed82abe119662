"""What happens between iterations: log lines, validations, checkpoints, and stopping when somebody asks for it."""

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewshotseg.data import EpisodeDataset, EvaluationProtocol
from fewshotseg.models import SCNet
from fewshotseg.training.processes import ProcessInfo, max_over_processes, mean_over_processes
from fewshotseg.training.run_folder import LAST, RunFolder
from fewshotseg.training.score import score
from fewshotseg.training.state import State
from fewshotseg.training.stopping import Stopped, StopSignals


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run, from its start or its last checkpoint to its end.

    Attributes:
        facts: What checkpoints say about the run.
        state: Model, optimizer and counters.
        folder: Where log lines and checkpoints go.
        process: This process among all.
        stop: Signals to end after an iteration.
        protocol: How validations count.
        tests: The episodes of a validation, if there is any.
        class_ids: The classes that a validation averages over.
        total: Iterations of the run.
        epoch: Iterations of an epoch.
        log_every: Iterations from one log line to the next.
        save_every: Iterations from one checkpoint to the next.
        validate_every: Iterations from one validation to the next.
        watch: Measures the model meanwhile; the numbers are logged and decide nothing.
        watch_every: Iterations from one call of ``watch`` to the next.
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
        """Do the validation that a stop left out."""
        pending = 0 < self.state.iteration > self.state.validated
        if pending and self.tests is not None and self._due(self.validate_every):
            self._validate(self.tests)
            self._save()

    def after_iteration(self, rate: float, losses: Mapping[str, Tensor]) -> float | None:
        """Log, validate and save as it is due.

        Args:
            rate: The learning rate of the iteration that was just done.
            losses: This process's part of its losses.

        Returns:
            The loss, where it was looked at.

        Raises:
            ValueError: If the loss is not finite.
            Stopped: If a signal came; the checkpoint is written.
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
        """Measure the model, and keep its weights if they are the best so far."""
        state = self.state
        # Several processes count together: none may leave the others alone.
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
            "the same command with --resume goes on from there",
        )
