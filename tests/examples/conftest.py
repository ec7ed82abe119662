"""What the tests of the examples share."""

import pytest


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """New processes compute with one thread, as this one does: sums, and so bits, depend on their number."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
