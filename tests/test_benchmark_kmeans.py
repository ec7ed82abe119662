"""The k-means benchmark runs whatever its peers do, and its reference is right."""

import json
import time

import pytest
import torch
from torch.testing import assert_close

import _reference as reference
import kmeans
import kmeans_peers


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Runs the benchmark on tiny maps with the given peers; gives what it says and what it saved."""
    monkeypatch.setattr(kmeans, "NUM_POINTS", 60)

    def run(**peers):
        monkeypatch.setattr(kmeans, "installed", lambda device: (peers, ["absent"]))
        monkeypatch.setattr(kmeans, "version", lambda name: "1.0")
        threads = torch.get_num_threads()
        out = tmp_path / "kmeans.json"
        content = kmeans.main(["--quick", "--threads", str(threads), "--out", str(out)])
        assert torch.get_num_threads() == threads
        assert json.loads(out.read_text(encoding="utf-8")) == content
        return content

    return run


def perfect(unit, init):
    return lambda: kmeans.double_precision(unit, init)[0]


def failing(unit, init):
    def run():
        raise OverflowError("too many points")

    return run


def sleeping(unit, init):
    def run():
        time.sleep(0.3)
        return torch.zeros(unit.shape[:2])

    return run


def test_peers_may_fail_or_take_long(small):
    content = small(perfect=perfect, failing=failing, sleeping=sleeping)
    assert content["environment"]["missing"] == ["absent"]
    assert len(content["shapes"]) == 4
    for shape in content["shapes"]:
        assert shape["wrong_labels"] == 0
        assert shape["rows"].keys() == {kmeans.OURS, kmeans.OURS_FIRST, "perfect"}
        assert shape["best_peer"] == "perfect"
        assert shape["ratios"]["times as fast"] > 0
        assert shape["same"]["perfect"] == 1
        assert shape["states"]["failing"] == "OverflowError: too many points"
        assert shape["states"]["sleeping"].startswith("slow: 0.3")


def test_without_any_peer_there_is_nothing_to_compare_with(small):
    for shape in small()["shapes"]:
        assert shape["best_peer"] == kmeans.OURS
        assert shape["ratios"]["times as fast"] == 1


def test_wrong_labels_end_it(small, monkeypatch):
    monkeypatch.setattr(kmeans, "double_precision", lambda points, init: (torch.zeros(points.shape[:2]), 0.0))
    with pytest.raises(AssertionError, match="labels differ"):
        small()


def test_reference():
    points, init = kmeans.mixture(1, 8, 3)
    points = points[:, :80]
    labels, moving = kmeans.double_precision(points, init)
    expected = reference.cosine_kmeans(reference.array(points), reference.array(init))
    assert_close(labels, torch.from_numpy(expected.labels))
    assert 0 <= moving < 0.5
    assert_close(init, points[:, :3])


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setattr(kmeans_peers, "PEERS", {"fewshotseg": perfect, "no-such-package": perfect})
    assert kmeans_peers.installed("cpu") == ({"fewshotseg": perfect}, ["no-such-package"])
