"""Reading images before they are asked for, so that a model does not wait for them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ReadAhead(Generic[Key, Value]):
    """A function whose results are made ahead by threads, and kept for a while.

    Args:
        read: The function.
        workers: Threads; with 0 results are made when they are asked for.
        room: How many results are kept, those used last.
    """

    def __init__(self, read: Callable[[Key], Value], *, workers: int, room: int) -> None:
        self._read, self._room = read, room
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="read") if workers else None
        self._kept: OrderedDict[Key, Future[Value]] = OrderedDict()

    def prepare(self, keys: Iterable[Key]) -> None:
        """Start to read what will be asked for soon."""
        if self._pool is None:
            return
        soon = list(keys)
        self._room = max(self._room, 2 * len(soon))  # what was read ahead does not go before it was used
        for key in soon:
            if key not in self._kept:
                self._kept[key] = self._pool.submit(self._read, key)

    def __call__(self, key: Key) -> Value:
        """The result for a key; an error that reading raised is raised here."""
        future = self._kept.pop(key, None)
        if future is None:
            future = Future()
            future.set_result(self._read(key))
        self._kept[key] = future
        while len(self._kept) > self._room and next(iter(self._kept.values())).done():
            self._kept.popitem(last=False)
        return future.result()

    def close(self) -> None:
        """Stop reading, and forget."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()
