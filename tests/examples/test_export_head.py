"""From a training run to a predictor: the exported head answers as the checkpoint does."""

import math
import re

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import export_head
import fewshotseg as fs
from fewshotseg.training import loop as train
from _lite import install
from _training import training
from fewshotseg.models import load_pretrained

NOTES = ["--data", "images that the package makes", "--command", "train.py synthetic"]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path)
    options = ["--iterations", 1, "--backbone", "efficientnet_lite0", "--backbone-weights", "package"]
    return str(train.main(training(tmp_path / "run", *options)).checkpoint)


def test_the_head_of_a_run_answers_as_its_checkpoint(checkpoint, tmp_path, capsys):
    out = tmp_path / "head.pth"
    export_head.main([checkpoint, str(out), *NOTES])
    assert re.search(r"head\.pth: \d\d KiB\n", capsys.readouterr().out)
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    answers = []
    for predictor in (
        fs.FewShotPredictor(train.load_model(checkpoint)[0], size=49),
        fs.FewShotPredictor.from_pretrained(out),
    ):
        predictor.set_support(photo, mask)
        answers.append(predictor.predict(photo).probability)
    assert_close(answers[0], answers[1], atol=1e-3, rtol=0)
    origin = load_pretrained(out).origin
    assert (origin["data"], origin["command"], origin["iteration"]) == (NOTES[1], NOTES[3], 1)
    assert origin["recipe"]["optimizer"] == "adamw"
    assert str(tmp_path) not in str(origin)


def test_a_threshold_becomes_one_half(checkpoint, tmp_path):
    predictors = []
    for threshold in ("0.5", "0.2"):
        out = tmp_path / f"{threshold}.pth"
        export_head.main([checkpoint, str(out), *NOTES, "--threshold", threshold, "--size", "65"])
        predictors.append(fs.FewShotPredictor.from_pretrained(out))
        assert predictors[-1].size == 65
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    answers = []
    for predictor in predictors:
        predictor.set_support(photo, np.ones((60, 90), bool))
        answers.append(predictor.predict(photo).probability.logit())
    assert_close(answers[1], answers[0] + math.log(4), atol=5e-3, rtol=0)
    with pytest.raises(SystemExit):
        export_head.main([checkpoint, str(tmp_path / "head.pth"), *NOTES, "--threshold", "1"])


def test_other_checkpoints_are_refused(tmp_path, capsys, checkpoint):
    path = train.main(training(tmp_path / "tiny", "--iterations", 1)).checkpoint
    saved = torch.load(checkpoint, weights_only=True)
    saved["model"]["backbone.conv_stem.weight"] += 1
    torch.save(saved, tmp_path / "changed.pth")
    capsys.readouterr()
    for name, message in {
        str(path): "backbone must be one of",
        str(tmp_path / "changed.pth"): "model must have the backbone efficientnet_lite0 with its installed weights",
        str(tmp_path / "none.pth"): "No such file",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            export_head.main([name, str(tmp_path / "head.pth"), *NOTES])
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "head.pth").exists()
