"""Reads images in advance by threads, so that the model does not wait for them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ReadAhead(Generic[Key, Value]):
    """Calls a function in advance by threads, and caches its last results.

    Args:
        read: The function of a key.
        workers: Number of threads; with 0 the function is called when its result is needed.
        room: Number of results to cache.
    """

    def __init__(self, read: Callable[[Key], Value], *, workers: int, room: int) -> None:
        self._read, self._room = read, room
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="read") if workers else None
        self._kept: OrderedDict[Key, Future[Value]] = OrderedDict()

    def prepare(self, keys: Iterable[Key]) -> None:
        """Start to read the values of keys that will be needed soon."""
        if self._pool is None:
            return
        soon = list(keys)
        self._room = max(self._room, 2 * len(soon))  # so that no result is dropped before it is used
        for key in soon:
            if key not in self._kept:
                self._kept[key] = self._pool.submit(self._read, key)

    def __call__(self, key: Key) -> Value:
        """Return the result for a key, or raise the error that reading it raised."""
        future = self._kept.pop(key, None)
        if future is None:
            future = Future()
            future.set_result(self._read(key))
        self._kept[key] = future
        while len(self._kept) > self._room and next(iter(self._kept.values())).done():
            self._kept.popitem(last=False)
        return future.result()

    def close(self) -> None:
        """Stop the threads, and drop all results."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()
