"""A working folder with an example and queries, and a predictor whose answers are known."""

import pytest

import fewshotseg as fs
from _segmenting import Reddest, labels, photo
from fewshotseg.images import write_mask


@pytest.fixture
def reddest(monkeypatch):
    predictor = Reddest()

    def from_pretrained(name, *, size, device):
        predictor.opened = name, size, device
        return predictor

    monkeypatch.setattr(fs.FewShotPredictor, "from_pretrained", from_pretrained)
    return predictor


@pytest.fixture
def files(tmp_path, monkeypatch, reddest):
    """The working folder: a support and its mask, and two queries in a folder."""
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "support.png")
    write_mask(tmp_path / "mask.png", labels())
    photo(tmp_path / "queries" / "first.png", seed=1)
    photo(tmp_path / "queries" / "second.png", 50, 70, seed=2)
    return tmp_path
