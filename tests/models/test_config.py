"""Settings: the paper's by default, plain values, refused where they are given."""

import inspect
import json
import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

import fewshotseg as fs

HUGE = 10**5000
NO_NUMBERS = [None, True, "3", [3], torch.tensor(3), 1 + 2j, object()]
NO_WHOLE_NUMBERS = [*NO_NUMBERS, 2.5, 3.0, math.nan, math.inf, np.float64(3)]

COUNTS = {"hidden_channels": 1, "num_prototypes": 0, "kmeans_iters": 0, "image_size": 32, "grid_bins": 1}
SHARES = ["self_contrast_weight", "reducer_dropout", "classifier_dropout", "threshold"]
CHOICES = ["norm_stats", "background_source", "background_reducer", "background_prior"]


def refused(error, name, value):
    with pytest.raises(error) as caught:
        fs.SCNetConfig(**{name: value})
    text = str(caught.value)
    assert name in text
    assert "must" in text
    assert len(text) < 300
    assert "\n" not in text
    assert "\x1b" not in text


def test_defaults_are_the_papers():
    config = fs.SCNetConfig()
    assert (config.num_prototypes, config.kmeans_iters, config.self_contrast_weight) == (3, 10, 0.5)
    assert (config.hidden_channels, config.bins, config.aux_weight) == (256, (60, 30, 15, 8), 1.0)
    assert (config.norm_stats, config.background_prior, config.background_reducer) == ("frozen", "zeros", "query")
    assert (config.reducer_dropout, config.classifier_dropout, config.threshold) == (0.5, 0.1, 0.5)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    for value in NO_WHOLE_NUMBERS:
        if not (name == "grid_bins" and value is None):
            refused(TypeError, name, value)
    for value in (COUNTS[name] - 1, -1, -HUGE, np.int64(-5)):
        refused(ValueError, name, value)
    for value in (COUNTS[name], np.int64(40), 100):
        found = getattr(fs.SCNetConfig(**{name: value}), name)
        assert (found, type(found)) == (value, int)


@pytest.mark.parametrize("name", SHARES)
def test_shares(name):
    for value in NO_NUMBERS:
        refused(TypeError, name, value)
    for value in (-0.1, 1.1, math.nan, math.inf, -math.inf, HUGE, -HUGE, np.float32(2), np.float64(math.nan)):
        refused(ValueError, name, value)
    for value in (0.25, np.float64(0.25), np.float32(0.25)):
        found = getattr(fs.SCNetConfig(**{name: value}), name)
        assert (found, type(found)) == (0.25, float)
    if name == "threshold":
        refused(ValueError, name, 0)
        refused(ValueError, name, 1.0)
    else:
        assert [getattr(fs.SCNetConfig(**{name: value}), name) for value in (0, 1)] == [0, 1]


def test_the_weight_of_deep_supervision():
    for value in NO_NUMBERS:
        refused(TypeError, "aux_weight", value)
    for value in (-0.1, math.nan, math.inf, HUGE):
        refused(ValueError, "aux_weight", value)
    assert fs.SCNetConfig(aux_weight=3).aux_weight == 3


def test_scale_and_bias_of_presence():
    for value in (*NO_NUMBERS[:3], (1.0, None), "12", (True, 1.0), ("1", 0)):
        refused(TypeError, "presence", value)
    for value in ((1.0,), (1.0, 0.0, 0.0), [], (-0.1, 0), (1.0, math.nan), (math.inf, 0), (1, HUGE), (1, -1001)):
        refused(ValueError, "presence", value)
    assert fs.SCNetConfig().presence == (1.0, 0.0)
    for value in ([2, -1], (np.float32(2), np.int64(-1)), torch.tensor([2.0, -1.0])):
        found = fs.SCNetConfig(presence=value).presence
        assert found == (2.0, -1.0)
        assert [type(number) for number in found] == [float, float]


@pytest.mark.parametrize("config", [fs.SCNetConfig, fs.PrototypeConfig])
@pytest.mark.parametrize("name", ["peak_threshold", "min_presence"])
def test_what_goes_with_the_threshold(config, name):
    assert getattr(config(), name) == 0
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be from 0 to 1"):
            config(**{name: wrong})


def test_scales():
    for value in (None, 1.0, "60", b"60", 3, {"a": 1}, {1.0}, (None,), ("a",), (True,), (1.0, "0.5"), ([1.0],)):
        refused(TypeError, "bins", value)
    for value in ((), (0,), (60, 0), (-1,), (1.5,), (60.5,), (math.nan,), (math.inf,), (5000,), (HUGE,), (1.0,) * 33):
        refused(ValueError, "bins", value)
    for value in ([60, 0.5], (np.int64(60), np.float32(0.5)), (60.0, 0.5)):
        found = fs.SCNetConfig(bins=value).bins
        assert found == (60, 0.5)
        assert [type(side) for side in found] == [int, float]


@pytest.mark.parametrize("name", ["mean", "std"])
def test_image_statistics(name):
    for value in (1.0, "abc", (None, 1, 1), ("a", "b", "c"), (True, 1, 1)):
        refused(TypeError, name, value)
    for value in ((), (1.0,), (0.1,) * 4, (math.nan,) * 3, (1, 1, math.inf), (1, HUGE, 1)):
        refused(ValueError, name, value)
    assert getattr(fs.SCNetConfig(**{name: [1, 0.5, np.float64(0.25)]}), name) == (1, 0.5, 0.25)
    assert getattr(fs.SCNetConfig(**{name: None}), name) is None


def test_spreads_are_positive():
    refused(ValueError, "std", (0.5, 0.5, 0))
    refused(ValueError, "std", (0.5, 0.5, -1))
    refused(ValueError, "mean", (0.5, 0.5, -0.1))


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name):
    for value in ("", "eval", None, 3, True, math.nan, "x" * 5000, "\x1b[31m\n"):
        refused(ValueError, name, value)


def test_the_backbones_name():
    for value in (3, True, b"resnet50", ["resnet50"], torch.nn.ReLU()):
        refused(TypeError, "backbone", value)


@pytest.mark.parametrize("others", [{"num_prototypes": 3}, {"num_prototypes": 1, "grid_bins": 2}])
def test_one_background_prototype_excludes_more(others):
    with pytest.raises(ValueError, match="background_source='support' must go with num_prototypes=1 and no grid_bins"):
        fs.SCNetConfig(background_source="support", **others)


CONFIGS = [
    {},
    {"bins": (1.0, 0.5), "grid_bins": 4},
    {"backbone": "resnet50", "mean": (0.1, 0.2, 0.3), "std": (1, 0.5, 0.25), "threshold": 0.35, "image_size": 97},
    {"num_prototypes": 1, "background_source": "support", "aux_weight": 0},
    {"threshold": np.float64(0.1) + 0.2, "hidden_channels": np.int32(7)},
]


@pytest.mark.parametrize("settings", CONFIGS, ids=str)
def test_a_config_survives_a_dict_and_json(settings):
    config = fs.SCNetConfig(**settings)
    assert fs.SCNetConfig.from_dict(config.to_dict()) == config
    assert fs.SCNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert replace(config) == config
    assert hash(config) == hash(replace(config))


def test_fields_that_are_left_out_have_their_defaults():
    assert fs.SCNetConfig.from_dict({"threshold": 0.3}) == fs.SCNetConfig(threshold=0.3)
    for value in (3, None, [("threshold", 0.3)], "threshold"):
        with pytest.raises(TypeError, match="config must be a mapping of settings, got"):
            fs.SCNetConfig.from_dict(value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hidden_channel", "; did you mean 'hidden_channels'?"),
        ("num_prototype", "; did you mean 'num_prototypes'?"),
        ("treshold", "; did you mean 'threshold'?"),
        ("lambda_", ", which are backbone, hidden_channels, "),
    ],
)
def test_unknown_settings_are_refused_with_the_one_that_was_meant(name, meant):
    for make in (lambda: fs.build_scnet("tiny", **{name: 1}), lambda: fs.SCNetConfig.from_dict({name: 1})):
        with pytest.raises(TypeError) as caught:
            make()
        assert f"settings must be fields of SCNetConfig, got {name!r}{meant}" in str(caught.value)


def test_names_of_settings_that_are_no_names():
    for name in (3, None, "\x1b[31m\n" + "x" * 5000):
        with pytest.raises(TypeError, match="settings must be fields of SCNetConfig, got") as caught:
            fs.SCNetConfig.from_dict({name: 1})
        assert len(str(caught.value)) < 600
        assert "\x1b" not in str(caught.value)


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        fs.SCNetConfig().threshold = 0.3


def test_a_model_says_what_it_is():
    model = fs.build_scnet("tiny", hidden_channels=4, threshold=0.3)
    assert model.config == fs.SCNetConfig(
        backbone="tiny", hidden_channels=4, threshold=0.3, mean=model.backbone.mean, std=model.backbone.std
    )
    own = fs.build_scnet(model.backbone, hidden_channels=4, mean=(0.1, 0.2, 0.3))
    assert (own.config.backbone, own.config.mean, own.config.std) == (None, (0.1, 0.2, 0.3), model.backbone.std)


def test_every_setting_is_documented():
    for field in fields(fs.SCNetConfig):
        assert f"\n    {field.name}: " in inspect.getdoc(fs.SCNetConfig)
