"""The store of tensors keeps its bound whatever comes, says no to what is no bound, and can be copied."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fewshotseg.models.fast.feature_memory import FeatureMemory
from fewshotseg.models.fast.lru import LeastRecentlyUsed

FLOAT = 4


def held(cache):
    """What it really keeps in memory, in bytes: whole storages, each once."""
    parts = [part for kept in cache._kept.values() for part in kept if isinstance(part, torch.Tensor)]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    return sum(storages.values())


@pytest.mark.parametrize(
    ("max_bytes", "error"),
    [
        (-1, ValueError),
        (None, TypeError),
        ("1GB", TypeError),
        (math.nan, TypeError),
        (1e9, TypeError),
        (True, TypeError),
    ],
)
@pytest.mark.parametrize("make", [LeastRecentlyUsed, FeatureMemory])
def test_what_is_no_number_of_bytes_is_refused(make, max_bytes, error):
    with pytest.raises(error, match="max_bytes must be"):
        make(max_bytes)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn, "float16", float])
def test_features_are_kept_in_floating_point_only(dtype):
    with pytest.raises(TypeError, match="dtype must be a floating-point dtype"):
        FeatureMemory(1, dtype=dtype)


def test_numpy_numbers_and_nothing_to_keep_with():
    for bound in (0, np.int64(FLOAT)):
        cache = LeastRecentlyUsed(bound)
        cache.put("a", (torch.zeros(2),))
        assert "a" not in cache
        assert cache.get("a", lambda: (torch.ones(1),))[0] == 1


def test_a_key_that_is_put_twice_counts_once():
    cache = LeastRecentlyUsed(3 * FLOAT)
    for _ in range(5):
        cache.put("a", (torch.zeros(1),))
    cache.put("b", (torch.zeros(1),))
    assert "a" in cache
    assert "b" in cache
    cache.put("a", (torch.zeros(3),))
    assert "b" not in cache
    assert held(cache) == 3 * FLOAT


def test_a_part_of_something_large_does_not_keep_it():
    cache = LeastRecentlyUsed(4 * FLOAT)
    batch = torch.arange(1000.0)
    cache.put("a", (batch[10:12], "kept as it is"))
    assert held(cache) == 2 * FLOAT
    assert cache._kept["a"][0].tolist() == [10.0, 11.0]
    assert cache._kept["a"][1] == "kept as it is"


def test_threads_keep_the_bound():
    cache = LeastRecentlyUsed(5 * FLOAT)

    def use(number):
        for step in range(200):
            key = (number * step) % 7
            assert cache.get(key, lambda key=key: (torch.full((1,), float(key)),))[0] == key

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(1, 9)))
    assert held(cache) <= 5 * FLOAT
    assert cache._size == held(cache)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copy_starts_empty_with_the_same_bound(copied):
    cache = LeastRecentlyUsed(2 * FLOAT)
    cache.put("a", (torch.zeros(2),))
    other = copied(cache)
    assert "a" in cache
    assert "a" not in other
    other.put("b", (torch.zeros(3),))
    assert "b" not in other
    other.put("c", (torch.zeros(2),))
    assert "c" in other
