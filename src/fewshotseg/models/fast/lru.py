"""Tensors kept for later use, up to a number of bytes."""

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
"""Bytes that are put in between two times that free memory is given back to the system."""


class LeastRecentlyUsed:
    """Tuples of tensors by key; those unused for longest make room once all take more than ``max_bytes``.

    Threads may share one. A copy, or what is unpickled, starts empty: what was kept can be made again.

    Args:
        max_bytes: A whole number, 0 or more.

    Raises:
        ValueError: If ``max_bytes`` is negative.
        TypeError: If it is no integer.
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
        """Give what is kept under ``key``, or what ``make`` gives, which is kept from then on."""
        return self.get_all([key], lambda _: [make()])[0]

    def get_all(
        self, keys: Sequence[Any], make: Callable[[list[Any]], Iterable[Any]], *, at_once: int = 1
    ) -> list[Any]:
        """Do the same for several keys: ``make`` gives what belongs to the missing ones, ``at_once`` in a call."""
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
        """Keep ``value`` under ``key``, in place of what is kept there."""
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
    """Give free pages inside the heap back to the system, where the C library can (glibc).

    What is kept lies between things that come and go, whose holes would take as much memory again.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _bytes(parts: Iterable[Any]) -> int:
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


def _with_memory_of_its_own(parts: Any) -> Any:
    """Copy tensors that are views of a part of something larger, which would stay in memory with them."""
    copied = [
        part.clone() if isinstance(part, Tensor) and part.untyped_storage().nbytes() > part.nbytes else part
        for part in parts
    ]
    return in_kind(parts, copied)
