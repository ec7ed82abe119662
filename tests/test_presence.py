"""The presence score: what it is computed from, and the smallest one that a mask needs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _models import tiny
from fewshotseg.cli import main
from fewshotseg.models.presence import found_again
from fewshotseg.prediction import prediction_of


def planted():
    """Log-odds on 60 x 80 of two classes that are found, and evidence for the second one only."""
    log_odds = torch.full((2, 80, 80), -4.0)
    log_odds[0, 10:20, 10:20] = 3.0
    log_odds[1, 40:50, 50:60] = 2.0
    return torch.stack([torch.zeros_like(log_odds), log_odds], dim=1), torch.tensor([-1.0, 1.5])


def model_of(**settings):
    return SimpleNamespace(config=SimpleNamespace(threshold=0.5, **settings))


def found(threshold=0.5, **settings):
    logits, evidence = planted()
    return prediction_of(model_of(**settings), logits, (60, 80), 80, threshold, several=True, evidence=evidence)


def test_the_score_is_computed_from_the_evidence():
    assert_close(found().presence, torch.tensor([-1.0, 1.5]).sigmoid())
    assert_close(found(presence=(2.0, 0.5)).presence, torch.tensor([-1.5, 3.5]).sigmoid())
    logits, _ = planted()
    plain = prediction_of(model_of(), logits, (60, 80), 80, 0.5, several=True)
    assert_close(plain.presence, torch.tensor([3.0, 2.0]).sigmoid())
    assert_close(found().probability, plain.probability, rtol=0, atol=0)
    assert found().mask.equal(plain.mask)


def test_a_class_below_the_smallest_presence_is_not_in_the_mask():
    everything, some = found(), found(min_presence=0.5)
    assert set(everything.mask.unique().tolist()) == {0, 1, 2}
    assert some.mask.equal(torch.where(everything.mask == 2, 2, 0))
    assert some.probability.equal(everything.probability)
    assert not found(min_presence=0.9).mask.any()


def test_a_score_that_is_just_the_smallest_is_enough():
    exact = float(found().presence[1])
    assert (found(min_presence=exact).mask == 2).any()


def test_the_smallest_presence_goes_with_the_models_threshold():
    assert set(found(threshold=0.6, min_presence=0.9).mask.unique().tolist()) == {0, 1, 2}


class Planted(nn.Module):
    """A model whose logits find everything, and whose evidence is the brightness of the photograph."""

    config = SimpleNamespace(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), threshold=0.5)

    def encode_support(self, images, masks):
        return (images.mean(dim=(1, 2, 3, 4)),)

    def merge_shots(self, shots):
        return shots[0]

    def encode_query(self, images):
        return (images,)

    def segment(self, support, query):
        ones = torch.ones_like(query[0][:, :1])
        return torch.cat([-ones, ones], dim=1)

    def presence_evidence(self, support, query):
        return query[0][:, :, :40].mean(dim=(1, 2, 3)) + 0 * support[0]


class Silent(Planted):
    """A model that has no better evidence than its logits."""

    def presence_evidence(self, support, query):
        return None


def grey(level):
    return torch.full((3, 40, 64), level, dtype=torch.uint8)


@pytest.mark.parametrize("several", [False, True])
def test_predictors_ask_a_model_for_its_evidence(several):
    predictor = fs.FewShotPredictor(Planted(), size=64)
    mask = torch.ones(40, 64, dtype=torch.long)
    names = ("a", "b")
    predictor.set_support(
        dict.fromkeys(names, grey(99)) if several else grey(99), dict.fromkeys(names, mask) if several else mask
    )
    levels = (0, 51, 255)
    predictions = predictor.predict([grey(level) for level in levels])
    for level, prediction in zip(levels, predictions, strict=True):
        expected = torch.sigmoid(torch.tensor((level / 255 - 0.5) / 0.25))
        assert_close(prediction.presence, expected.expand(2) if several else expected, atol=1e-5, rtol=0)


def test_without_evidence_the_logits_say_it():
    predictor = fs.FewShotPredictor(Silent(), size=64)
    predictor.set_support(grey(99), torch.ones(40, 64, dtype=torch.long))
    assert_close(predictor.predict(grey(3)).presence, torch.sigmoid(torch.tensor(2.0)))


# SCNet


def photo(seed):
    return torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def marked():
    mask = torch.zeros(60, 80, dtype=torch.long)
    mask[20:40, 30:60] = 1
    return mask


def naive(model, supports, masks, query):
    """One point at a time, in float64."""
    features = model.backbone.mid(query)[0].double()  # B C h w
    means = []
    for episode in range(len(query)):
        locations = features[episode].flatten(1).T
        shots = []
        for image, mask in zip(supports[episode], masks[episode], strict=True):
            of_example = model.backbone.mid(image[None])[0].double()
            share = F.interpolate((mask[None, None] == 1).double(), of_example.shape[2:], mode="area").flatten()
            best = [F.cosine_similarity(point[None], locations).max() for point in of_example[0].flatten(1).T]
            if share.sum() > 0:
                shots.append((share * torch.stack(best)).sum() / share.sum())
        means.append(torch.stack(shots).mean() if shots else torch.zeros((), dtype=torch.float64))
    return torch.stack(means)


@pytest.mark.parametrize("settings", [{"density_weight": 0.5}, {"prior": "density"}])
def test_an_scnet_that_compares_points_asks_for_all_points_of_the_object(settings):
    model = tiny(**settings).eval()
    generator = torch.Generator().manual_seed(0)
    supports, query = torch.rand(3, 2, 3, 65, 65, generator=generator), torch.rand(3, 3, 49, 65, generator=generator)
    masks = torch.zeros(3, 2, 65, 65, dtype=torch.long)
    masks[:, :, 10:40, 20:50] = 1
    masks[:, :, 12:15] = 255
    masks[1, 0] = 0  # an example without its object
    masks[2] = 0
    with torch.no_grad():
        found = model.presence_evidence(model.encode_support(supports, masks), model.encode_query(query))
        expected = naive(model, supports, masks, query)
    assert expected[2] == 0
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_an_object_is_found_again_in_its_own_photograph():
    model = tiny(density_weight=0.5).eval()
    predictor = fs.FewShotPredictor(model, size=65)
    predictor.set_support(photo(0), marked())
    own, other = (predictor.predict(photo(seed)).presence for seed in (0, 1))
    assert_close(own, torch.sigmoid(torch.tensor(1.0)), atol=1e-4, rtol=0)
    assert other < own


def test_the_presence_in_half_precision_and_without_batch():
    features, points = torch.rand(1, 8, 3, 4), torch.rand(1, 2, 5, 8)
    foreground = torch.ones(1, 2, 5)
    exact = found_again(features.double(), points.double(), foreground.double())
    assert exact.dtype == torch.float64
    half = found_again(features.bfloat16(), points.bfloat16(), foreground.bfloat16())
    assert half.dtype == torch.float32
    assert_close(half.double(), exact, atol=0.02, rtol=0)
    assert found_again(features[:0], points[:0], foreground[:0]).shape == (0,)


def test_examples_of_a_batch_have_objects_of_their_own():
    features, points = torch.rand(2, 8, 3, 4), torch.rand(2, 2, 5, 8)
    foreground = torch.tensor([[[1, 0, 0, 0.5, 0], [0] * 5], [[0, 0, 0.25, 0, 0], [0, 1, 0, 0, 0]]])
    each = zip(features, points, foreground, strict=True)
    assert_close(
        found_again(features, points, foreground), torch.cat([found_again(*(p[None] for p in e)) for e in each])
    )
    cosines = torch.nn.functional.cosine_similarity(points[1, 1, 1][:, None, None], features[1], dim=0)
    other = torch.nn.functional.cosine_similarity(points[1, 0, 2][:, None, None], features[1], dim=0)
    assert_close(found_again(features, points, foreground)[1], (cosines.max() + other.max()) / 2)


def test_zero_vectors_match_nothing():
    found = found_again(torch.zeros(1, 4, 2, 2), torch.rand(1, 1, 3, 4), torch.ones(1, 1, 3))
    assert_close(found, torch.zeros(1))


def test_an_scnet_that_compares_none_says_it_by_its_logits():
    model = tiny().eval()
    images, masks = torch.rand(1, 1, 3, 65, 65), torch.ones(1, 1, 65, 65, dtype=torch.long)
    support, query = model.encode_support(images, masks), model.encode_query(images[0])
    assert model.presence_evidence(support, query) is None


def test_one_support_serves_the_evidence_of_many_queries():
    model = tiny(prior="density").eval()
    masks = torch.zeros(1, 1, 65, 65, dtype=torch.long)
    masks[..., :30, :30] = 1
    support = model.encode_support(torch.rand(1, 1, 3, 65, 65), masks)
    queries = torch.rand(3, 3, 65, 49)
    together = model.presence_evidence(support, model.encode_query(queries))
    assert together.shape == (3,)
    apart = [model.presence_evidence(support, model.encode_query(each[None])) for each in queries]
    assert_close(together, torch.cat(apart), atol=1e-4, rtol=1e-4)


# Commands


@pytest.mark.parametrize(
    ("options", "empty"),
    [((), True), (("--min-presence", "0"), False), (("--threshold", "0.02"), False)],
)
def test_segment_uses_the_smallest_presence_of_the_model(tmp_path, options, empty):
    settings = {"threshold": 0.01, "min_presence": 1.0, "image_size": 65}
    fs.save_model(fs.build_scnet("tiny", hidden_channels=4, bins=(1.0,), **settings), tmp_path / "model.pth")
    for name, seed in (("example", 0), ("query", 1)):
        Image.fromarray(photo(seed).permute(1, 2, 0).numpy()).save(tmp_path / f"{name}.png")
    Image.fromarray(marked().numpy().astype(np.uint8)).save(tmp_path / "mask.png")
    files = {name: tmp_path / f"{name}.png" for name in ("example", "mask", "query")}
    given = ["--support", files["example"], "--mask", files["mask"], "--query", files["query"]]
    where = ["--model", tmp_path / "model.pth", "--out", tmp_path / "out", "--save", "mask"]
    assert main(["segment", *map(str, [*given, *where]), *options]) == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "query-mask.png"))
    assert mask.any() != empty
