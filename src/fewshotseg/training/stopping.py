"""Stops a run on Ctrl+C or SIGTERM, after a checkpoint was written."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")


class Stopped(Exception):
    """Raised when a run is stopped by a signal.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(number).name} at once, without a new checkpoint")
        self.signal = number


class StopSignals:
    """A context manager that handles SIGINT (Ctrl+C) and SIGTERM, in the main thread.

    A signal raises `Stopped` at once. Inside `deferred` it is only stored in ``received``, so that the code there can
    stop at a suitable moment.

    Attributes:
        received: Number of the stored signal, 0 for none.

    Example:
        >>> with StopSignals() as stop, stop.deferred():
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.received == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.received = 0
        self._defers = self._patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self, *, patient: bool = False) -> Iterator[None]:
        """Only store signals while the block runs.

        Args:
            patient: Store a second Ctrl+C too, as launchers send it again; otherwise it raises at once.
        """
        self._defers, self._patient = True, patient
        try:
            yield
        finally:
            self._defers = False

    def interruptible(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items until a signal is stored, then raise `Stopped`."""
        for item in items:
            if self.received:
                raise Stopped(self.received)
            yield item

    def _handle(self, number: int, _: FrameType | None) -> None:
        again = self.received and number == signal.SIGINT and not self._patient
        if not self._defers or again:
            raise Stopped(number)
        self.received = self.received or number


def ignore_stop_signals(_: int = 0) -> None:
    """Ignore SIGINT and SIGTERM, in processes that load data, as the main process handles them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
