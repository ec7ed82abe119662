"""Models from names and numbers: what is accepted, what is refused and how."""

import json
import pathlib
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import fewshotseg as fs


def small(**settings):
    return fs.build_scnet("mobilenet_v2", hidden_channels=4, **settings)


def test_dropout_rates_are_pfenets():
    rates = {name: part.p for name, part in small().named_modules() if isinstance(part, nn.Dropout2d)}
    reducers = [rate for name, rate in rates.items() if name.startswith("reduce_")]
    classifiers = [rate for name, rate in rates.items() if "classifier" in name]
    assert reducers == [0.5] * 2
    assert classifiers == [0.1] * (4 + 1)  # one a bin, and the last
    assert len(rates) == len(reducers) + len(classifiers)


def test_unknown_backbones_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"backbone must be one of resnet50, resnet101, .* or a module, got 'vit'"):
        fs.build_scnet("vit")
    with pytest.raises(TypeError, match=r"backbone must be a name or an nn.Module, got int"):
        fs.build_scnet(3)


def test_random_backbone_is_said_once():
    with pytest.warns(UserWarning, match="the frozen backbone has random weights") as caught:
        model = small()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(backbone_weights=model.backbone.state_dict())
        model(torch.rand(1, 1, 3, 32, 32), torch.ones(1, 1, 32, 32), torch.rand(1, 3, 32, 32))


# Backbone weights


def test_backbone_weights_from_a_state_dict_and_a_file(tmp_path):
    from torchvision.models import mobilenet_v2

    theirs = mobilenet_v2(weights=None).state_dict()
    torch.save(theirs, tmp_path / "mobilenet.pth")
    for weights in (theirs, tmp_path / "mobilenet.pth", str(tmp_path / "mobilenet.pth")):
        backbone = small(backbone_weights=weights).backbone
        assert torch.equal(backbone.features[0][0].weight, theirs["features.0.0.weight"])


def test_three_convolution_stems_are_translated():
    with torch.device("cpu"):
        state = fs.build_scnet("resnet50s", hidden_channels=4).backbone.state_dict()
    theirs = {
        "conv1.0": "conv1",
        "conv1.1": "bn1",
        "conv1.3": "conv2",
        "conv1.4": "bn2",
        "conv1.6": "conv3",
        "bn1": "bn3",
    }

    def rename(key):
        for ours, name in theirs.items():
            if key.startswith(ours + "."):
                return key.replace(ours, name, 1)
        return key

    semseg = {rename(key): value for key, value in state.items()} | {"fc.weight": torch.zeros(3)}
    model = fs.build_scnet("resnet50s", hidden_channels=4, backbone_weights=semseg)
    assert all(torch.equal(value, state[key]) for key, value in model.backbone.state_dict().items())


def test_torchvision_weights_are_named(monkeypatch):
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    theirs = mobilenet_v2(weights=None).state_dict()
    asked = []

    def get_state_dict(self, *args, **kwargs):
        asked.append(self)
        return theirs

    monkeypatch.setattr(MobileNet_V2_Weights, "get_state_dict", get_state_dict)
    for name in ("IMAGENET1K_V1", "MobileNet_V2_Weights.IMAGENET1K_V1"):
        model = small(backbone_weights=name)
        assert torch.equal(model.backbone.features[0][0].weight, theirs["features.0.0.weight"])
    assert asked == [MobileNet_V2_Weights.IMAGENET1K_V1] * 2


def test_unknown_backbone_weights_are_refused_with_the_known_names():
    with pytest.raises(FileNotFoundError, match=r"must be a file or one of .*IMAGENET1K_V2.* got 'IMAGENET'"):
        small(backbone_weights="IMAGENET")
    with pytest.raises(ValueError, match="entries are missing"):
        small(backbone_weights={"features.0.0.weight": torch.zeros(32, 3, 3, 3)})


# Checkpoints


def test_a_model_with_weights_of_a_file_is_not_warned_about(tmp_path):
    model = small()
    fs.save_weights(model, tmp_path / "a.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = small(weights=tmp_path / "a.pth")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_saving_leaves_nothing_else_and_survives_failure(tmp_path):
    model = small()
    path = tmp_path / "scnet.pth"
    fs.save_weights(model, path)
    before = path.read_bytes()

    class Unpicklable(nn.Module):
        def state_dict(self, *args, **kwargs):
            return {"x": lambda: None}

    with pytest.raises((AttributeError, pickle.PicklingError)):
        fs.save_weights(Unpicklable(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scnet.pth"]


def test_state_dict_keys_are_a_contract():
    keys = [key for key in small().state_dict() if not key.startswith("backbone.")]
    expected = json.loads((pathlib.Path(__file__).parent / "state_dict_keys.json").read_text())
    assert keys == expected


# The package


def test_import_is_silent_and_changes_nothing():
    program = (
        "import random, numpy, torch; torch.manual_seed(3); state = torch.get_rng_state(); r = random.getstate();"
        "threads, dtype = torch.get_num_threads(), torch.get_default_dtype(); grad = torch.is_grad_enabled();"
        "import fewshotseg, fewshotseg.data;"
        "assert torch.equal(state, torch.get_rng_state()) and r == random.getstate();"
        "assert (threads, dtype, grad) == (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_public_names_exist():
    assert all(hasattr(fs, name) for name in fs.__all__)
    assert sorted(fs.__all__) == fs.__all__
