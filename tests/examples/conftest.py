"""The examples are scripts beside each other, as for whoever runs one of them."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """New processes compute with one thread, as this one does: sums, and so bits, depend on their number."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
