"""The two ways that operations take: with a look at values, as on a CPU, and without, as on an accelerator."""

import pytest

MODULES = ("_values", "kmeans", "pooling", "prior")


@pytest.fixture(params=["eager CPU", "accelerator"])
def way(request, monkeypatch):
    if request.param == "accelerator":
        for module in MODULES:
            monkeypatch.setattr(f"fewshotseg.ops.{module}.is_eager_cpu", lambda *tensors: False)
    return request.param
