"""The folder of a training run: log lines and checkpoints that are whole whenever the process dies."""

import json
from pathlib import Path
from typing import Any, Self

import torch

from fewshotseg.models.checkpoints import save_atomically


class RunFolder:
    """``log.jsonl``, ``last.pth`` and ``best.pth``. Every process opens it, one writes.

    Opening it removes what a killed process left half written. Log lines after the last checkpoint are dropped, as the
    resumed run writes them anew, and equal.

    Args:
        path: Of the folder.
        writes: Whether this process is the one that writes.
        resume: Go on from ``last.pth`` if there is one. Otherwise there must be none.
        tensorboard: Write the numbers of the log for TensorBoard too.

    Attributes:
        last: The content of ``last.pth`` as it was found, or None.

    Raises:
        ValueError: If there is a checkpoint and ``resume`` is false, or it cannot be read.
        ImportError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, writes: bool, resume: bool, tensorboard: bool = False) -> None:
        self.path, self._writes, self._board = path, writes, None
        if (path / "last.pth").exists() and not resume:
            raise ValueError(f"out must be a new folder, or one to resume with --resume, got {path} with a checkpoint")
        self.last = read_checkpoint(path / "last.pth") if (path / "last.pth").exists() else None
        iteration = self.last["iteration"] if self.last else 0
        if writes:
            path.mkdir(parents=True, exist_ok=True)
            for leftover in (*path.glob(".*.pth.*"), *path.glob(".log.jsonl.*")):
                leftover.unlink()
            self._drop_log_after(iteration)
        if writes and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError("tensorboard must be installed for --tensorboard: pip install tensorboard") from error
            self._board = SummaryWriter(path, purge_step=iteration + 1)

    def check_same_run(self, facts: dict[str, Any]) -> None:
        """Raise unless the run to go on with was started with these facts; only its folders may have moved."""
        if self.last is None:
            return
        before, now = _settings(self.last), _settings(facts)
        for name, value in now.items():
            if before.get(name) != value:
                raise ValueError(f"{name} must be {before.get(name)!r} as in the run to resume, got {value!r}")

    def log(self, **entry: Any) -> None:
        """Add a line to the log; its numbers go to TensorBoard too, over its ``iteration``."""
        if not self._writes:
            return
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._board is not None:
            for name in entry.keys() - {"iteration"}:
                if isinstance(entry[name], float):
                    self._board.add_scalar(name, entry[name], entry["iteration"])

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write a checkpoint; at any moment the file is the old one or the new one."""
        if self._writes:
            save_atomically(content, self.path / name)

    def _drop_log_after(self, iteration: int) -> None:
        log, part = self.path / "log.jsonl", self.path / ".log.jsonl.part"
        if not log.exists():
            return
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        part.write_text("".join(line for line in whole if json.loads(line)["iteration"] <= iteration), encoding="utf-8")
        part.replace(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """All that decides about the course of a run, by name."""
    protocol = f"{facts['protocol']} ({facts['protocol_hash']})"
    flat = {**facts["recipe"], **facts["recipe"]["model"], **facts["data"], "protocol": protocol}
    return {name: value for name, value in flat.items() if name not in {"model", "data"}}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What train.py saved, tensors on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or something else.
    """
    with Path(path).open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            if not {"model", "recipe", "data", "protocol", "iteration"} <= content.keys():
                raise ValueError("it lacks entries")
        except Exception as error:  # damaged files fail in many ways
            raise ValueError(f"{path} must be a checkpoint of train.py, but: {error}") from error
    return content
