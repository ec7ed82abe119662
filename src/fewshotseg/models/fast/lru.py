"""Tensors kept for later use, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from threading import Lock
from typing import Any

from torch import Tensor


class LeastRecentlyUsed:
    """Tuples of tensors by key; those unused for longest make room once all take more than ``limit`` bytes.

    Several threads may use one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is kept under ``key``, or what ``make`` gives, which is kept from then on."""
        return self.get_all([key], lambda _: [make()])[0]

    def get_all(
        self, keys: Sequence[Any], make: Callable[[list[Any]], Iterable[Any]], *, at_once: int = 1
    ) -> list[Any]:
        """The same for several keys: ``make`` gives what belongs to the missing ones, ``at_once`` in a call."""
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
        """Keep ``value`` under ``key``."""
        with self._lock:
            self._size += _bytes(value) - _bytes(self._kept.pop(key, ()))
            self._kept[key] = value
            while self._size > self.limit:
                _, oldest = self._kept.popitem(last=False)
                self._size -= _bytes(oldest)


def _bytes(parts: Iterable[Any]) -> int:
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))
