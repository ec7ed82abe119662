"""The folder of a training run: its log and its checkpoints, which are complete even if the process is killed."""

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fewshotseg.models import SCNet, load_model, save_model
from fewshotseg.models.checkpoints import read_model

LAST, PREVIOUS, BEST, LOG = "last.pth", "previous.pth", "best.pth", "log.jsonl"
NEXT = ".next.pth"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run.

    Attributes:
        path: The file; `fewshotseg.load_model` reads it.
        origin: Recipe, data, protocol and versions of the run, the iteration and the best mIoU, as plain values.
        training: The result of `State.to_dict`.
    """

    path: Path
    origin: Mapping[str, Any]
    training: Mapping[str, Any]

    def load_model(self) -> SCNet:
        """Load the model.

        Raises:
            ValueError: If the file holds a training-free model.
        """
        model = load_model(self.path)
        if not isinstance(model, SCNet):
            raise ValueError(f"{self.path} must hold an SCNet to continue with, got a {type(model).__name__}")
        return model

    @property
    def iteration(self) -> Any:
        """The number of completed iterations."""
        return self.training.get("iteration")


class RunFolder:
    """The folder of a run, with ``log.jsonl``, ``last.pth``, ``previous.pth`` (the one before) and ``best.pth``.

    Every process opens it; one of them writes, and calls `start` first. Checkpoints are replaced atomically. Log lines
    after the last checkpoint are removed, as the resumed run writes the same lines again.

    Args:
        path: The folder.
        writes: Whether this process is the one that writes.
        resume: Continue from ``last.pth`` if there is one, or from ``previous.pth`` if it is damaged. If False, the
            folder must not have checkpoints.

    Attributes:
        last: The checkpoint to continue from, or None.

    Raises:
        ValueError: If there is a checkpoint and ``resume`` is false, or none of them can be read.
    """

    def __init__(self, path: Path, *, writes: bool, resume: bool) -> None:
        self.path, self._writes = path, writes
        self._board: Any = None
        found = [path / name for name in (LAST, PREVIOUS) if (path / name).exists()]
        if found and not resume:
            raise ValueError(f"out must be a new folder, or one to resume with --resume, got {path} with a checkpoint")
        self.last = self._first_whole(found)

    def check_same_run(self, facts: Mapping[str, Any]) -> None:
        """Raise unless the run to resume has the same settings; only the folders of its data may differ."""
        if self.last is None:
            return
        before, now = _settings(self.last.origin), _settings(facts)
        for name, value in now.items():
            if before.get(name) != value:
                raise ValueError(f"{name} must be {before.get(name)!r} as in the run to resume, got {value!r}")

    def start(self, *, tensorboard: bool = False) -> None:
        """Create the folder, and remove half-written files of a killed process.

        Args:
            tensorboard: Write the log for TensorBoard too.

        Raises:
            ImportError: If TensorBoard is asked for and not installed.
            OSError: If the folder cannot be written to.
        """
        if not self._writes:
            return
        iteration = 0 if self.last is None else self.last.iteration
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in (*self.path.glob(".*.pth*"), *self.path.glob(".log.jsonl.*")):
            leftover.unlink()
        self._drop_log_after(iteration)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError('TensorBoard must be installed: pip install "fewshotseg[train]"') from error
            self._board = SummaryWriter(self.path, purge_step=iteration + 1)

    def log(self, **entry: Any) -> None:
        """Add a line to the log; floating-point numbers also go to TensorBoard, by ``iteration``."""
        if not self._writes:
            return
        with _naming(self.path / LOG), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._board is not None:
            for name in entry.keys() - {"iteration"}:
                if isinstance(entry[name], float):
                    self._board.add_scalar(name, entry[name], entry["iteration"])

    def save_last(self, model: SCNet, origin: Mapping[str, Any], training: Mapping[str, Any]) -> None:
        """Write the checkpoint to resume from; the one before becomes ``previous.pth``."""
        if not self._writes:
            return
        last, new = self.path / LAST, self.path / NEXT
        with _naming(last):
            save_model(model, new, origin=origin, training=training)
            if last.exists():
                _copy(last, self.path / PREVIOUS)
            new.replace(last)

    def save_best(self, model: SCNet, origin: Mapping[str, Any]) -> None:
        """Write the best model so far."""
        if self._writes:
            with _naming(self.path / BEST):
                save_model(model, self.path / BEST, origin=origin)

    def _first_whole(self, paths: list[Path]) -> Checkpoint | None:
        faults = []
        for path in paths:
            try:
                checkpoint = read_checkpoint(path)
            except ValueError as error:
                faults.append(str(error))
                continue
            if faults and self._writes:
                print(f"{faults[0]}; continuing from {path} at iteration {checkpoint.iteration}", file=sys.stderr)
            return checkpoint
        if faults:
            raise ValueError(f"{faults[0]}: start again in a new folder")
        return None

    def _drop_log_after(self, iteration: int) -> None:
        log, part = self.path / LOG, self.path / f".{LOG}.part"
        if not log.exists():
            return
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and _iteration_of(line) <= iteration]
        part.write_text("".join(kept), encoding="utf-8")
        part.replace(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()


def is_training_run(origin: Mapping[str, Any]) -> bool:
    """Whether the record of a model's origin is the one that ``fewshotseg train`` writes."""
    settings = (origin.get("data"), origin.get("recipe"))
    return all(isinstance(each, Mapping) for each in settings) and {"protocol", "protocol_hash"} <= origin.keys()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of a run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or not a checkpoint of a run.
    """
    content = read_model(path)
    if not content.training or not is_training_run(content.origin):
        raise ValueError(f"{path} must be a checkpoint of a training run, but it is another model")
    return Checkpoint(Path(path), content.origin, content.training)


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to those that JSON returns: tuples to lists, keys to strings."""
    values: dict[str, Any] = json.loads(json.dumps(facts))
    return values


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn an error of writing into one sentence with the file and the reason."""
    try:
        yield
    except OSError as error:
        reason = "no space left on the device" if error.errno == errno.ENOSPC else error.strerror or str(error)
        kept = "; the previous checkpoint is kept" if path.exists() and path.suffix == ".pth" else ""
        raise OSError(f"{path} could not be written: {reason}{kept}") from error


def _copy(file: Path, copy: Path) -> None:
    """Link a file under a second name, atomically; copy it if links are not possible."""
    part = copy.with_name(f".{copy.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(file, part)
    except OSError:
        shutil.copyfile(file, part)
    part.replace(copy)


def _iteration_of(line: str) -> float:
    """Read the iteration of a log line; infinity for a broken line, so that it is removed."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings that affect the result of a run, by name."""
    protocol = f"{facts['protocol']} ({facts['protocol_hash']})"
    flat = {**facts["recipe"], **facts["recipe"]["model"], **facts["data"], "protocol": protocol}
    return {name: value for name, value in flat.items() if name not in {"model", "data"}}
