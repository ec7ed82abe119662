"""A window around each example: where it lies, and that it is an example like any other."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import fewshotseg as fs
import fewshotseg.predictor
from _models import tiny
from fewshotseg._examples import MIN_WINDOW, window_around


def masked(height, width, top, left, bottom, right):
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "sides", "expected"),
    [
        (masked(400, 600, 100, 200, 150, 240), 2.0, (75, 170, 100, 100)),  # 50 high, 40 wide, around (125, 220)
        (masked(400, 600, 0, 560, 50, 600), 2.0, (0, 500, 100, 100)),  # in a corner: moved inside
        (masked(400, 600, 10, 20, 12, 23), 2.0, (0, 0, 64, 64)),  # tiny: the smallest window
        (masked(400, 600, 0, 0, 400, 600), 2.0, (0, 0, 400, 600)),  # everything: the whole photograph
        (masked(400, 600, 100, 50, 150, 550), 2.0, (0, 0, 400, 600)),
        (masked(40, 30, 10, 10, 20, 20), 2.0, (0, 0, 40, 30)),  # smaller than the smallest window
        (masked(400, 600, 100, 200, 200, 300), 0.1, (100, 200, 100, 100)),  # never less than the object
    ],
)
def test_places(mask, sides, expected):
    assert window_around(mask, sides) == expected


@given(st.data())
def test_the_object_is_always_inside(data):
    height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = masked(height, width, top, left, bottom, right)
    y, x, h, w = window_around(mask, data.draw(st.floats(0.01, 10)))
    assert 0 <= y <= height - h
    assert 0 <= x <= width - w
    assert mask[y : y + h, x : x + w].sum() == mask.sum()
    assert max(h, w) >= min(MIN_WINDOW, max(height, width))


def example(seed=0):
    photo = torch.randint(0, 256, (3, 200, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return photo, masked(200, 300, 60, 80, 110, 130).long()


def closer(model, sides=2.0):
    model.config = replace(model.config, example_window=sides)
    return model


@pytest.mark.parametrize("make", ["scnet", "prototypes"])
def test_a_window_is_an_example_of_its_own(make):
    model = tiny().eval() if make == "scnet" else fs.build_prototype_segmenter(tiny().backbone).eval()
    photo, mask = example()
    other, its_mask = example(1)
    plain = fs.FewShotPredictor(model, size=97)
    cut = (slice(35, 135), slice(55, 155))  # 100 pixels around (85, 105)
    plain.set_support([photo, other, photo[:, *cut], other[:, *cut]], [mask, its_mask, mask[cut], its_mask[cut]])
    expected = plain.predict(other).probability
    plain.set_support([photo, other], [mask, its_mask])
    without = plain.predict(other).probability
    predictor = fs.FewShotPredictor(closer(model), size=97)
    predictor.set_support([photo, other], [mask, its_mask])
    assert_close(predictor.predict(other).probability, expected)
    assert (expected - without).abs().max() > 1e-4


def test_only_whole_photographs_are_asked_for_their_example():
    predictor = fs.FewShotPredictor(closer(tiny()), size=97, check_examples=True)
    photo, mask = example()
    predictor.set_support({"a": [photo, photo], "b": photo}, {"a": [mask, mask], "b": mask})
    assert [len(iou) for iou in predictor.example_iou] == [2, 1]


def test_the_example_is_asked_for_at_the_models_threshold(monkeypatch):
    thresholds, own_iou = [], fewshotseg.predictor.own_iou
    monkeypatch.setattr(fewshotseg.predictor, "own_iou", lambda *args: thresholds.append(args[-1]) or own_iou(*args))
    predictor = fs.FewShotPredictor(tiny(threshold=0.2), size=97, check_examples=True)
    predictor.set_support(*example())
    assert thresholds == [0.2]


def test_support_files_hold_windows_and_belong_to_the_setting(tmp_path):
    predictor = fs.FewShotPredictor(closer(tiny()), size=97)
    photo, mask = example()
    predictor.set_support(photo, mask)
    expected = predictor.predict(photo).probability
    predictor.save_support(tmp_path / "a.fss")
    predictor.load_support(tmp_path / "a.fss")
    assert_close(predictor.predict(photo).probability, expected)
    with pytest.raises(ValueError, match="settings"):
        fs.FewShotPredictor(tiny(), size=97).load_support(tmp_path / "a.fss")


@pytest.mark.parametrize("config", [fs.SCNetConfig, fs.PrototypeConfig])
def test_the_setting_is_checked_and_saved(config):
    assert config().example_window == 0
    assert config.from_dict(json.loads(json.dumps(config(example_window=2).to_dict()))).example_window == 2
    for wrong in (-1, float("nan"), 101):
        with pytest.raises(ValueError, match="example_window must"):
            config(example_window=wrong)
    with pytest.raises(TypeError, match="example_window must"):
        config(example_window="2")
