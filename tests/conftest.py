"""Settings of the whole suite: the same examples on every run, and one thread, as small tensors like it best."""

from contextlib import suppress

import pytest
import torch

from fewshotseg.images import said

with suppress(ImportError):  # tests on a GPU run without it, too
    from hypothesis import settings

    settings.register_profile("default", derandomize=True, deadline=None, max_examples=25)
    settings.load_profile("default")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch):
    """What is warned of once in a process is warned of once in each test."""
    monkeypatch.setattr(said, "_said", set())
