"""Files of trained heads: what goes in comes out, nothing else goes in, and what does not fit is refused."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _lite import install, package_state
from fewshotseg.models import load_pretrained, pretrained, save_pretrained

NAME = "efficientnet_lite0"
CONFIG = fs.SCNetConfig(hidden_channels=4, bins=(1.0, 0.5))
ORIGIN = {"data": "none", "command": "none", "iteration": 0, "lr": [0.1]}


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "heads")
    (tmp_path / "heads").mkdir()
    return tmp_path / "heads"


def trained(seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"hidden_channels": 4, "bins": (1.0, 0.5), **settings}
    return fs.build_scnet(NAME, backbone_weights="package", **settings)


def save(model, path, **changes):
    save_pretrained(model, path, **{"backbone": NAME, "config": CONFIG, "size": 65, "origin": ORIGIN, **changes})


def test_a_model_comes_back_with_all_that_belongs_to_it(installed):
    model = trained()
    save(model, installed / "some.pth", dtype=torch.float32)
    found, size, origin = load_pretrained("some")
    assert (size, origin) == (65, ORIGIN)
    assert not found.training
    assert found.head.bins == (1.0, 0.5)
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in model.state_dict().items())


def test_half_precision_changes_next_to_nothing(installed):
    model = trained().eval()
    save(model, installed / "some.pth")
    found = load_pretrained("some").model
    assert {value.dtype for value in found.state_dict().values()} == {torch.float32, torch.int64}
    torch.manual_seed(1)
    inputs = torch.rand(1, 1, 3, 65, 65), torch.randint(2, (1, 1, 65, 65)), torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        expected, logits = model(*inputs).logits, found(*inputs).logits
    assert not torch.equal(logits, expected)
    assert_close(logits, expected, atol=2e-3, rtol=0)


def test_the_file_holds_the_head_alone_as_plain_tensors(installed):
    save(trained(), installed / "some.pth")
    content = torch.load(installed / "some.pth", weights_only=True)
    assert not any(key.startswith("backbone") for key in content["head"])
    assert (installed / "some.pth").stat().st_size < 200_000


def test_the_predictor_takes_them_by_name_and_by_path(installed):
    model = trained().eval()
    save(model, installed / "some.pth", dtype=torch.float32)
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    answers = []
    for predictor in (
        fs.FewShotPredictor(model, size=65),
        fs.FewShotPredictor.from_pretrained("some"),
        fs.FewShotPredictor.from_pretrained(installed / "some.pth", device="cpu"),
        fs.FewShotPredictor.from_pretrained(str(installed / "some.pth"), size=97),
    ):
        predictor.set_support(photo, mask)
        answers.append(predictor.predict(photo).probability)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], answers[3])
    with pytest.raises(ValueError, match="size must be at least 32"):
        fs.FewShotPredictor.from_pretrained("some", size=0)


def test_unknown_names_are_refused_with_those_that_exist(installed):
    with pytest.raises(ValueError, match=r"name must be a \.pth file or one of no models, got 'other'"):
        load_pretrained("other")
    for name in ("b", "a"):
        save(trained(), installed / f"{name}.pth")
    with pytest.raises(ValueError, match=r"one of a, b, got '\.\./heads/a'"):
        load_pretrained("../heads/a")
    with pytest.raises(FileNotFoundError):
        load_pretrained("other.pth")


def test_other_weights_of_the_backbone_are_refused(installed, monkeypatch):
    model = trained()
    save(model, installed / "some.pth")
    state = package_state()
    state["_conv_head.weight"][0, 0] += 1
    install(monkeypatch, installed.parent, state)
    with pytest.raises(ValueError, match="efficientnet_lite0 must have the weights that some was trained with"):
        load_pretrained("some")
    with pytest.raises(ValueError, match="model must have the backbone efficientnet_lite0 with its installed weights"):
        save(model, installed / "other.pth")
    assert not (installed / "other.pth").exists()


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {"size": 31}, "size must be at least 32 pixels, got 31"),
        ({}, {"config": fs.SCNetConfig(hidden_channels=8, bins=(1.0, 0.5))}, "model must hold a head that fits"),
        ({"bins": (1.0, 0.5, 0.25)}, {}, "model must hold a head that fits"),
        ({}, {"backbone": "mobilenet_v2"}, "must be a file or one of"),
    ],
)
def test_what_does_not_fit_is_not_saved(installed, settings, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        save(trained(**settings), installed / "some.pth", **changes)
    assert not any(installed.iterdir())


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_weights_that_the_file_cannot_hold_are_refused(installed, value):
    model = trained()
    with torch.no_grad():
        model.head.fuse[0].weight[0, 0] = value
    with pytest.raises(ValueError, match=r"that torch\.float16 can hold, but head\.fuse\.0\.weight has others"):
        save(model, installed / "some.pth")


def test_files_of_something_else_are_refused(installed):
    fs.save_weights(trained(), installed / "weights.pth")
    (installed / "text.pth").write_text("no model")
    save(trained(), installed / "some.pth")
    (installed / "short.pth").write_bytes((installed / "some.pth").read_bytes()[:-1000])
    content = torch.load(installed / "some.pth", weights_only=True)
    del content["head"]["head.fuse.0.weight"]
    torch.save(content, installed / "lacking.pth")
    for name, message in {
        "weights": "must hold backbone, backbone_digest",
        "text": "tensors only|must be a checkpoint",
        "short": "must be a checkpoint",
        "lacking": "must hold a head that fits its settings",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_pretrained(name)
