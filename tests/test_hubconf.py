"""The file that `torch.hub` reads."""

from pathlib import Path

import pytest
import torch

import fewshotseg as fs

ROOT = str(Path(__file__).parents[1])


@pytest.mark.filterwarnings("ignore:the frozen backbone has random weights")
def test_models_by_torch_hub():
    model = torch.hub.load(ROOT, "scnet", "mobilenet_v2", source="local", hidden_channels=8)
    assert isinstance(model, fs.SCNet)
    assert model.config.hidden_channels == 8
    segmenter = torch.hub.load(ROOT, "prototype_segmenter", "mobilenet_v2", source="local")
    assert type(segmenter).__name__ == "PrototypeSegmenter"
    assert isinstance(torch.hub.load(ROOT, "pretrained", "scnet-lite0", source="local"), fs.SCNet)
