"""A least-recently-used cache for tensors, limited by their size in bytes."""

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any

from torch import Tensor
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg.models.encodings import in_kind

TRIM_EVERY = 2**24
"""After this many bytes of new entries, free memory is returned to the system."""


class LeastRecentlyUsed:
    """A cache of tuples of tensors; the least recently used ones are dropped if all take more than ``max_bytes``.

    It is thread-safe. Copies and unpickled caches are empty.

    Args:
        max_bytes: Largest size of all tensors together, 0 or more.

    Raises:
        ValueError: If ``max_bytes`` is negative.
        TypeError: If it is not an integer.
    """

    def __init__(self, max_bytes: int) -> None:
        self.limit = check_at_least("max_bytes", max_bytes, 0)
        self._size = self._since_trim = 0
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = RLock()

    @override
    def __reduce__(self) -> tuple[type["LeastRecentlyUsed"], tuple[int]]:
        return type(self), (self.limit,)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the entry of ``key``; if there is none, make and store it."""
        return self.get_all([key], lambda _: [make()])[0]

    def get_all(
        self, keys: Sequence[Any], make: Callable[[list[Any]], Iterable[Any]], *, at_once: int = 1
    ) -> list[Any]:
        """Return the entries of several keys; ``make`` makes the missing ones, at most ``at_once`` in a call."""
        found = {}
        with self._lock:
            for key in dict.fromkeys(keys):
                if key in self._kept:
                    self._kept.move_to_end(key)
                    found[key] = self._kept[key]
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            for key, value in zip(some, make(some), strict=True):
                found[key] = value
                self.put(key, value)
        return [found[key] for key in keys]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def put(self, key: Hashable, value: Any) -> None:
        """Store ``value`` under ``key``, replacing an earlier entry."""
        value = _with_memory_of_its_own(value)
        with self._lock:
            if key in self._kept:
                self._size -= _bytes(self._kept.pop(key))
            self._kept[key] = value
            self._size += _bytes(value)
            self._since_trim += _bytes(value)
            while self._size > self.limit:
                _, oldest = self._kept.popitem(last=False)
                self._size -= _bytes(oldest)
            if self._since_trim > TRIM_EVERY:
                self._since_trim = 0
                _give_back_free_memory()


def _give_back_free_memory() -> None:
    """Return free pages inside the heap to the system, if the C library supports it (glibc).

    Cached tensors lie between short-lived ones, whose gaps would take as much memory again.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _bytes(parts: Iterable[Any]) -> int:
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


def _with_memory_of_its_own(parts: Any) -> Any:
    """Copy tensors that are views of a larger storage, as they would keep all of it in memory."""
    copied = [
        part.clone() if isinstance(part, Tensor) and part.untyped_storage().nbytes() > part.nbytes else part
        for part in parts
    ]
    return in_kind(parts, copied)
