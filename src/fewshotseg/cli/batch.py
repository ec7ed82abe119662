"""Segments photographs one by one, while other threads read the next one and write the last one."""

import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg.cli.errors import EXPECTED, is_out_of_memory, sentence
from fewshotseg.cli.exports import Row
from fewshotseg.cli.large import Scores, answer, ask, factor_for
from fewshotseg.cli.results import Results
from fewshotseg.cli.talk import bar, say, warn
from fewshotseg.images import read_image, read_reduced, reduce_image
from fewshotseg.models.segmentation_model import min_presence_of, peak_of, threshold_of

FAILURES = (*EXPECTED, RuntimeError)
"""Exceptions that fail one photograph and not the whole run."""


class Photo(NamedTuple):
    """A photograph in memory.

    Attributes:
        size: Height and width.
        small: ``(3, h, w)`` uint8, reduced for the model.
        pixels: ``(3, H, W)`` uint8 at full size, or None if no result shows the photograph itself.
    """

    size: tuple[int, int]
    small: Tensor
    pixels: Tensor | None


class Batch(NamedTuple):
    """A run over photographs: a predictor, where its results go, and the settings.

    Attributes:
        predictor: A `fewshotseg.FewShotPredictor` that has its examples.
        results: The files to write.
        threshold: As in `fewshotseg.FewShotPredictor.predict`.
        min_presence: Classes with a presence below this, 0 to 1, are left out of the mask; None uses the model's.
        overwrite: Whether to segment photographs again that already have results.
    """

    predictor: Any
    results: Results
    threshold: float | None = None
    min_presence: float | None = None
    overwrite: bool = False

    def run(self, photos: Mapping[Path, Path]) -> dict[Path, str]:
        """Segment photographs, and print for each its time, the share of its area that is the object and the presence.

        Args:
            photos: File of each photograph -> its path in the folder of results.

        Returns:
            Photographs that failed -> why. Each of them is also reported on standard error.
        """
        seconds: list[float] = []
        faults: dict[Path, str] = {}
        with bar(len(photos)) as shown:
            for number, (photo, outcome) in enumerate(self._outcomes(photos), start=1):
                if isinstance(outcome, Exception):
                    faults[photo] = reason(photo, outcome)
                    warn(faults[photo])
                elif outcome is not None:
                    seconds.append(outcome["seconds"])
                    say(f"[{number}/{len(photos)}] {photo}  {self._line(outcome)}")
                if shown is not None:
                    shown.update()
        before = len(photos) - len(seconds) - len(faults)
        median = f" in {statistics.median(seconds):.2f} s each (median)" if seconds else ""
        say(f"{len(seconds)} done{median}, {before} done before, {len(faults)} failed; results in {self.results.out}")
        return faults

    def _outcomes(self, photos: Mapping[Path, Path]) -> Iterator[tuple[Path, Row | Exception | None]]:
        """Yield for each photograph its row of the table, None if it was done before, or the exception that it raised.

        One thread reads the next photograph and one writes the last, while this one runs the model.
        """
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            saving: tuple[Path, Future[Row]] | None = None
            for photo, name, reading in _ahead(reader, self._read, photos.items()):
                outcome: Future[Row] | Exception | None
                try:
                    read = reading.result()
                    outcome = None if read is None else writer.submit(self._save, photo, name, read, *self._ask(read))
                except FAILURES as error:
                    outcome = error
                if saving is not None:
                    yield saving[0], _result(saving[1])
                    saving = None
                if isinstance(outcome, Future):
                    saving = photo, outcome
                else:
                    yield photo, outcome
            if saving is not None:
                yield saving[0], _result(saving[1])

    def _read(self, photo: Path, name: Path) -> Photo | None:
        """Read a photograph; None if it already has its results."""
        if self.results.are_done(photo, name, overwrite=self.overwrite):
            return None
        side = int(self.predictor.size)
        if not self.results.needs_pixels:
            small, size = read_reduced(photo, lambda size: factor_for(size, side))
            return Photo(size, small, None)
        pixels = read_image(photo)
        size = (pixels.shape[1], pixels.shape[2])
        return Photo(size, reduce_image(pixels, factor_for(size, side)), pixels)

    def _ask(self, photo: Photo) -> tuple[Scores, float]:
        started = time.perf_counter()
        return ask(self.predictor, photo.small), time.perf_counter() - started

    def _save(self, photo: Path, name: Path, read: Photo, scores: Scores, seconds: float) -> Row:
        started = time.perf_counter()
        model = self.predictor.model
        threshold = threshold_of(model, self.threshold)
        found = answer(
            scores,
            read.size,
            threshold,
            peak=peak_of(model, threshold),
            min_presence=min_presence_of(model, threshold) if self.min_presence is None else self.min_presence,
            probability="probability" in self.results.pictures.kinds,
        )
        row = self.results.save(photo, name, read.pixels, found, seconds + time.perf_counter() - started)
        return {**row, "found": found.found}

    def _line(self, row: Row) -> str:
        parts = []
        exports = self.results.exports
        for name, suffix, found in zip(exports.names, exports.suffixes, row["found"], strict=True):
            share = f"{100 * row[f'share{suffix}']:.1f} % {name}" if found else f"{name} not found"
            parts.append(f"{share}  presence {row[f'presence{suffix}']:.2f}")
        return f"{row['seconds']:.2f} s  {', '.join(parts)}"


def reason(path: Path, error: Exception) -> str:
    """Say in one line why a photograph failed, with its path."""
    text = sentence(MemoryError() if is_out_of_memory(error) else error)
    return text if str(path) in text else f"{path}: {text}"


@contextmanager
def threads(device: torch.device) -> Iterator[int]:
    """Leave one core to the threads that read and write while the block runs; gives the number of PyTorch's threads.

    More threads than cores make PyTorch many times slower, as its threads spin while they wait for each other. If
    ``OMP_NUM_THREADS`` is set, its number is kept.
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cpu" and not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(min(before, max(1, cores - 1)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _ahead(
    reader: ThreadPoolExecutor, read: Any, photos: Iterable[tuple[Path, Path]]
) -> Iterator[tuple[Path, Path, "Future[Photo | None]"]]:
    """Yield photographs in order, each with its future, while the next one is being read."""
    waiting: tuple[Path, Path, Future[Photo | None]] | None = None
    for photo, name in photos:
        following = photo, name, reader.submit(read, photo, name)
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


def _result(future: "Future[Row]") -> Row | Exception:
    try:
        return future.result()
    except FAILURES as error:
        return error
