"""Tensors kept for later use, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from torch import Tensor


class LeastRecentlyUsed:
    """Tuples of tensors by key; those unused for longest make room once all take more than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is kept under ``key``, or what ``make`` gives, which is kept from then on."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = make()
        self._kept[key] = value
        self._size += _bytes(value)
        while self._size > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._size -= _bytes(oldest)
        return value


def _bytes(parts: Iterable[Any]) -> int:
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))
