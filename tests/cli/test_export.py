"""From a training run to a model to share, or to programs: they answer as the checkpoint does."""

import re
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _lite import install
from _training import trained
from fewshotseg.cli import main
from fewshotseg.models import hub, load_model, read_model, save_model

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
MASK = np.zeros((60, 90), bool)
MASK[20:40, 30:60] = True
NOTE = "images that the package makes"


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path)
    return trained(
        tmp_path / "run", "--iterations", 1, "--backbone", "efficientnet_lite0", "--backbone-weights", "package"
    )


def export(*arguments):
    return main(["export", *map(str, arguments)])


def answer(predictor):
    predictor.set_support(PHOTO, MASK)
    return predictor.predict(PHOTO)


def test_a_model_to_share_answers_as_its_checkpoint(checkpoint, tmp_path, capsys):
    out = tmp_path / "models" / "mine.pth"
    assert export(checkpoint, out, "--format", "model", "--note", NOTE) == 0
    assert re.search(r"mine\.pth: \d+ KiB\n", capsys.readouterr().out)
    shared = fs.FewShotPredictor.from_pretrained(out)
    assert shared.size == 49
    assert_close(answer(shared).probability, answer(fs.FewShotPredictor.from_pretrained(checkpoint)).probability)
    saved = read_model(out)
    assert saved.training is None
    assert saved.origin["note"] == NOTE
    assert (saved.origin["recipe"]["optimizer"], saved.origin["iteration"]) == ("adamw", 1)
    assert saved.origin["protocol"].endswith("fold 0")
    assert str(tmp_path) not in str(saved.origin)


def test_without_backbone_and_in_half_precision_it_is_small(checkpoint, tmp_path):
    out = tmp_path / "mine.pth"
    assert export(checkpoint, out, "--format", "model", "--without-backbone", "--half") == 0
    assert out.stat().st_size < 150_000
    assert read_model(out).backbone is None
    shared, whole = (fs.FewShotPredictor.from_pretrained(path) for path in (out, checkpoint))
    assert_close(answer(shared).probability, answer(whole).probability, atol=1e-3, rtol=0)


def test_a_model_whose_record_holds_texts_is_no_training_run(checkpoint, tmp_path):
    """As that of scnet-lite0 is."""
    origin = {"data": "photographs", "recipe": {"lr": 0.1}, "protocol": "folders"}
    save_model(load_model(checkpoint), tmp_path / "shared.pth", origin=origin)
    assert export(tmp_path / "shared.pth", tmp_path / "again.pth", "--format", "model", "--note", NOTE) == 0
    assert read_model(tmp_path / "again.pth").origin == {**origin, "note": NOTE}


def test_a_folder_is_a_model_too(checkpoint, tmp_path):
    pytest.importorskip("safetensors")
    assert export(checkpoint, tmp_path / "mine", "--format", "model") == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"config.json", "model.safetensors"}
    shared = load_model(tmp_path / "mine")
    assert_close(shared.state_dict(), load_model(checkpoint).state_dict(), atol=0, rtol=0)


def test_threshold_and_size_go_with_it(checkpoint, tmp_path):
    out = tmp_path / "mine.pth"
    before = answer(fs.FewShotPredictor(load_model(checkpoint), size=65))
    middle = float(before.probability.quantile(0.9))
    settings = ("--threshold", middle, "--size", 65, "--presence", 0.5, -1.5)
    assert export(checkpoint, out, "--format", "model", *settings) == 0
    predictor = fs.FewShotPredictor.from_pretrained(out)
    after = answer(predictor)
    assert predictor.size == 65
    assert predictor.model.config.threshold == middle
    assert predictor.model.config.presence == (0.5, -1.5)
    assert_close(after.probability, before.probability)
    assert after.mask.float().mean() == pytest.approx(0.1, abs=0.02)
    assert before.mask.float().mean() > 0.5


def test_densities_beside_a_head_go_with_it(checkpoint, tmp_path, capsys):
    assert export(checkpoint, tmp_path / "mine.pth", "--format", "model", "--density-weight", 0.25) == 0
    predictor = fs.FewShotPredictor.from_pretrained(tmp_path / "mine.pth", size=65)
    assert predictor.model.config.density_weight == 0.25
    assert predictor.model.config.example_window == 0
    before, after = answer(fs.FewShotPredictor(load_model(checkpoint), size=65)), answer(predictor)
    assert (after.probability - before.probability).abs().max() > 0.01
    assert (
        export(
            "prototypes", tmp_path / "other.pth", "--format", "model", "--backbone", "tiny", "--density-weight", 0.25
        )
        == 2
    )
    assert "density_weight must be left out for the training-free model" in capsys.readouterr().err


def test_windows_around_examples_go_with_it(checkpoint, tmp_path):
    assert export(checkpoint, tmp_path / "mine.pth", "--format", "model", "--example-window", 2) == 0
    assert load_model(tmp_path / "mine.pth").config.example_window == 2


def test_programs_and_a_model_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        hub, "FOLDER", trained(tmp_path / "run", "--iterations", 1).parent
    )  # so that its name is "last"
    assert export("last", tmp_path / "out", "--format", "pt2", "model", "--size", 33, "--shots", 2) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"(?:support|query)\.pt2: \d+\.\d MiB\n", printed)) == 2
    assert len(re.findall(r"pt2: logits differ from the model's by \d\.\de-\d\d of the largest\n", printed)) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"support.pt2", "query.pt2", "model.pth"}
    encode = torch.export.load(tmp_path / "out" / "support.pt2").module()
    prototype, *_ = encode(torch.rand(1, 2, 3, 33, 33), torch.ones(1, 2, 33, 33, dtype=torch.long))
    assert prototype.shape == (1, 8)


def test_onnx_and_pt2_at_the_models_size_by_default(tmp_path, monkeypatch):
    asked = []

    def write_nothing(model, out, **settings):
        asked.append(settings)
        return {}

    monkeypatch.setattr("fewshotseg.cli.export.export_programs", write_nothing)
    assert export(trained(tmp_path / "run", "--iterations", 1), tmp_path / "out") == 0
    assert asked == [{"size": 49, "shots": 1, "kinds": ["onnx", "pt2"]}]


def test_what_cannot_be_exported_is_said_in_one_sentence(checkpoint, tmp_path, monkeypatch, capsys):
    tiny = trained(tmp_path / "tiny", "--iterations", 1)
    saved = torch.load(checkpoint, weights_only=True)
    saved["backbone"]["conv_stem.weight"] += 1
    torch.save(saved, tmp_path / "changed.pth")
    fs.save_weights(torch.nn.Linear(1, 1), tmp_path / "other.pth")
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert export(tiny, tmp_path / "file") == 2
    assert f"out must be a folder, but {tmp_path / 'file'} is a file" in capsys.readouterr().err
    model = ("--format", "model")
    for arguments, message in {
        (
            tiny,
            *model,
            "--without-backbone",
        ): "backbone must be efficientnet_lite0 or efficientnet_lite2, whose",
        (tmp_path / "changed.pth", *model): "it is damaged or cut off",
        (tmp_path / "other.pth", *model): "must be a model that save_model wrote",
        (tmp_path / "none.pth", *model): "none.pth",
        ("nothing", *model): "name must be a file",
        (tiny, *model, "--threshold", "1"): "threshold must be",
        (tiny, *model, "--size", "31"): "image_size must be",
        (tiny, "--format", "pt2", "--shots", "0"): "shots must be at least 1, got 0",
        (tiny,): "out must be a folder for onnx and pt2",
    }.items():
        source, *rest = arguments
        assert export(source, tmp_path / "out.pth" if "pt2" not in rest else tmp_path / "out", *rest) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith("fewshotseg export: ")
        assert message in said
    assert export(tiny, tmp_path / "out") == 2
    assert capsys.readouterr().err == 'fewshotseg export: onnx must be installed: pip install "fewshotseg[onnx]"\n'
    assert not [*tmp_path.glob("out*")]


def test_the_training_free_model_on_a_backbone_of_options(tmp_path, monkeypatch, capsys):
    install(monkeypatch, tmp_path)
    assert export("prototypes", tmp_path / "lite0.pth", "--format", "model", "--without-backbone") == 0
    assert (tmp_path / "lite0.pth").stat().st_size < 10_000
    model = load_model(tmp_path / "lite0.pth")
    assert isinstance(model, fs.PrototypeSegmenter)
    assert model.config.backbone == "efficientnet_lite0"
    changes = ["--backbone", "tiny", "--set", "score=kmeans", "num_prototypes=3", "--threshold", 0.4]
    assert export("prototypes", tmp_path / "tiny.pth", "--format", "model", *changes) == 0
    config = load_model(tmp_path / "tiny.pth").config
    assert (config.backbone, config.score, config.num_prototypes, config.threshold) == ("tiny", "kmeans", 3, 0.4)
    capsys.readouterr()
    for arguments, message in (
        (["prototypes", "--set", "hidden_channels=3"], "model must name fields of PrototypeConfig"),
        (["prototypes", "--set", "kappa=-1"], "kappa must be"),
        ([tmp_path / "tiny.pth", "--set", "kappa=3"], "set must go with the model prototypes"),
        ([tmp_path / "tiny.pth", "--backbone", "resnet50"], "backbone must go with the model prototypes"),
        (["prototypes", "--backbone-weights", tmp_path / "none.pth"], "backbone_weights must be a file"),
    ):
        model, *others = arguments
        assert export(model, tmp_path / "out.pth", "--format", "model", *others) == 2
        assert message in capsys.readouterr().err
