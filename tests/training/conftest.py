import pytest

from _training import SELECTING, trained


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """New processes compute with one thread, as this one does: sums, and so bits, depend on their number."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The folder of a run that nobody disturbed; not to be changed."""
    return trained(tmp_path_factory.mktemp("run") / "whole", *SELECTING).parent
