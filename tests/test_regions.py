"""Hysteresis thresholding: what is connected to a sure pixel stays, and nothing else."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

import fewshotseg as fs
from _models import tiny
from fewshotseg._regions import TILES, weak_regions
from fewshotseg.cli.large import Scores, answer
from fewshotseg.prediction import prediction_of


def labelled(probability, threshold, peak):
    """The definition, by a library."""
    weak = np.zeros(probability.shape, bool)
    for its, found in zip(probability, weak, strict=True):
        labels, count = ndimage.label(its > threshold, np.ones((3, 3)))
        for number in range(1, count + 1):
            region = labels == number
            found[region] = its[region].max() <= peak
    return weak


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([np.float32(value) for value in (0.0, 0.3, 0.5, 0.6, 0.8, 0.9, 1.0)]),
    ),
    st.sampled_from([0.4, 0.5]),
    st.sampled_from([0.5, 0.6, 0.85, 1.0]),
)
def test_regions_are_those_of_scipy(probability, threshold, peak):
    found = weak_regions(torch.from_numpy(probability), threshold, peak)
    assert found.tolist() == labelled(probability, threshold, peak).tolist()


def test_a_winding_region_is_one():
    probability = torch.zeros(1, 60, 61)
    probability[:, ::2] = 0.6
    probability[:, 1::4, -1] = probability[:, 3::4, 0] = 0.6  # a snake of 60 x 30 steps
    assert weak_regions(probability, 0.5, 0.8).equal(probability > 0.5)
    probability[0, 0, 0] = 0.9
    assert not weak_regions(probability, 0.5, 0.8).any()


@pytest.mark.parametrize("size", [(300, 700), (700, 300), (TILES + 1, TILES + 1), (1000, 3)])
def test_large_maps_on_a_coarser_grid(size):
    height, width = size
    probability = torch.full((2, *size), 0.1)
    probability[0, : height // 3, : width // 3] = 0.6
    probability[0, height // 2 :, width // 2 + 1 :] = 0.6
    probability[0, -1, -1] = 0.95
    probability[1, :2, :2] = 0.7
    found = weak_regions(probability, 0.5, 0.9)
    expected = probability > 0.5
    expected[0, height // 2 :, width // 2 + 1 :] = False
    assert found.equal(expected)


def test_a_map_of_just_more_pixels_than_tiles():
    probability = torch.zeros(1, 4, TILES + 1)  # so that a tile has 2 pixels a side
    probability[0, 0, 1], probability[0, 0, 3], probability[0, 0, 90] = 0.9, 0.6, 0.6
    assert weak_regions(probability, 0.5, 0.8).nonzero().tolist() == [[0, 0, 90]]


def planted():
    """Log-odds on 60 x 80 of two classes; the first has a weak and a sure region, the second a weak one over it."""
    log_odds = torch.full((2, 80, 80), -4.0)
    log_odds[0, 10:20, 10:20] = 0.5
    log_odds[0, 40:50, 50:60] = 0.5
    log_odds[0, 45, 55] = 3.0
    log_odds[1, 40:50, 50:60] = 1.0
    return torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)


def model_of(**settings):
    return SimpleNamespace(config=SimpleNamespace(threshold=0.5, **settings))


def test_masks_hold_sure_regions():
    plain = prediction_of(model_of(), planted(), (60, 80), 80, 0.5, several=True)
    assert set(plain.mask[40:50, 50:60].unique().tolist()) == {1, 2}
    assert plain.mask[12, 12] == 1
    found = prediction_of(model_of(peak_threshold=0.9), planted(), (60, 80), 80, 0.5, several=True)
    assert found.mask[40:50, 50:60].eq(1).all()  # the second class is weak there, and leaves it to the first
    assert found.mask.count_nonzero() == 100
    assert found.probability.equal(plain.probability)
    assert found.presence.equal(plain.presence)


def test_another_threshold_is_applied_alone():
    model = model_of(peak_threshold=0.9)
    found = prediction_of(model, planted(), (60, 80), 80, 0.6, several=True)
    assert found.mask[12, 12] == 1


@pytest.mark.parametrize("size", [(60, 80), (120, 160)])
def test_commands_give_the_same(size):
    found = prediction_of(model_of(peak_threshold=0.9), planted(), (60, 80), 80, 0.5, several=True)
    scores = Scores(found.probability, found.presence.tolist())
    answered = answer(scores, size, 0.5, peak=0.9)
    assert answered.mask[-1, -1] == 0
    assert answered.mask[size[0] // 5, size[1] // 6] == 0
    middle = answered.mask[size[0] * 45 // 60, size[1] * 55 // 80]
    assert middle == 1
    if size == (60, 80):
        assert answered.mask.equal(found.mask.to(torch.uint8))
    raw = answer(scores, size, 0.5)
    assert answered.probability.equal(raw.probability)
    assert raw.mask[size[0] // 5, size[1] // 6] == 1


def test_the_models_peak_goes_with_the_models_threshold():
    model = tiny()
    predictor = fs.FewShotPredictor(model, size=65)
    photo = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(60, 80, dtype=torch.long)
    mask[20:40, 30:60] = 1
    predictor.set_support(photo, mask)
    plain = predictor.predict(photo)
    threshold = float(plain.probability.median())
    model.config = fs.SCNetConfig(**{**model.config.to_dict(), "threshold": threshold, "peak_threshold": 1.0})
    assert not predictor.predict(photo).mask.any()
    assert predictor.predict(photo, threshold=threshold * 0.999).mask.any()


def test_the_example_is_asked_for_by_the_same_rule():
    model = tiny()
    photo = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(60, 80, dtype=torch.long)
    mask[20:40, 30:60] = 1
    found = {}
    for peak in (0.0, 1.0):
        model.config = fs.SCNetConfig(**{**model.config.to_dict(), "threshold": 0.01, "peak_threshold": peak})
        predictor = fs.FewShotPredictor(model, size=65, check_examples=True)
        with nullcontext() if peak == 0 else pytest.warns(UserWarning, match="not found in its own photograph"):
            predictor.set_support(photo, mask)
        found[peak] = predictor.example_iou[0][0]
    assert found[0.0] > 0 == found[1.0]
