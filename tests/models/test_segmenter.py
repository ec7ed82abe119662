"""The training-free model against plain loops, and what holds whatever its score is."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

import _reference as reference
import fewshotseg as fs
from _inputs import label_masks, normal
from _models import TinyBackbone
from fewshotseg._inference import inference
from fewshotseg.models.prototype_config import FITTED
from fewshotseg.models.segmentation_model import in_fast_form
from fewshotseg.ops import resize_bilinear

SCORES = ["density", "cosine", "kmeans"]
EACH_SCORE = pytest.mark.parametrize("score", SCORES)


def tiny(seed=0, **settings):
    """On the tiny backbone, the same for the same seed."""
    torch.manual_seed(seed)
    settings = {"num_prototypes": 2, "num_background_prototypes": 3, "scale": 10.0, "bias": 0.0, **settings}
    return fs.build_prototype_segmenter(TinyBackbone(), **settings).eval()


class Whole(nn.Module):
    """The tiny backbone where it cannot be cut."""

    mid_channels = 18

    def __init__(self):
        super().__init__()
        self.net = TinyBackbone()

    def mid_and_high(self, images):
        mid = self.net.mid(images)
        return mid, self.net.high(mid[0])


class Colours(nn.Module):
    """Features are the colours of cells of 8 x 8 pixels, so that every answer can be told beforehand."""

    mid_channels = 3

    def mid(self, images):
        return (nn.functional.avg_pool2d(images, 8),)

    def high(self, deepest):
        raise AssertionError("the high-level map is not needed")


def colours(**settings):
    return fs.PrototypeSegmenter(Colours(), fs.PrototypeConfig(scale=20.0, bias=0.0, **settings)).eval()


def episode(batch=2, shots=3, seed=0):
    images = normal(batch, shots, 3, 48, 64, seed=seed)
    masks = label_masks(batch, shots, 6, 8, seed=seed).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return images, masks, normal(batch, 3, 40, 72, seed=seed + 1)


def painted(cells):
    """Cells of one colour each, ``(rows, columns)`` of three numbers, as an image."""
    colours = torch.tensor(cells, dtype=torch.float32).permute(2, 0, 1)
    return colours.repeat_interleave(8, 1).repeat_interleave(8, 2)


def shares(mask, label, size):
    """The share of each cell's pixels."""
    height, width = mask.shape[0] // size[0], mask.shape[1] // size[1]
    cells = (mask == label).astype(float).reshape(size[0], height, size[1], width)
    return cells.mean(axis=(1, 3))


# Against plain loops


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("score", ["density", "cosine"])
@pytest.mark.parametrize("which", ["mid", "high"])
def test_it_is_what_the_equations_say(score, shots, which):
    model = tiny(score=score, features=which, kappa=15.0, scale=7.0, bias=-0.5)
    images, _, queries = episode(shots=shots)
    masks = label_masks(2, shots, 48, 64)
    with torch.no_grad():
        maps = model.backbone.mid(images.flatten(0, 1))[0]
        query = model.backbone.mid(queries)[0]
        if which == "high":
            maps, query = model.backbone.high(maps), model.backbone.high(query)
    maps, query = reference.array(maps), reference.array(query)
    size = maps.shape[2:]
    points = maps.reshape(2, shots, maps.shape[1], -1).transpose(0, 1, 3, 2).reshape(2, -1, maps.shape[1])
    sides = np.array(
        [
            [np.concatenate([shares(mask, label, size).ravel() for mask in each]) for label in (0, 1)]
            for each in masks.numpy()
        ]
    )
    if score == "density":
        expected = reference.density_logits(query, points, sides, 15.0) / 15.0
    else:
        units = points / np.linalg.norm(points, axis=2, keepdims=True)
        prototypes = np.einsum("bsm,bmc->bsc", sides, units)
        expected = reference.cosine_logits(query, prototypes[:, :, None], 1.0, 0.0)
    expected = torch.from_numpy(7.0 * expected + np.array([0.0, -0.5])[:, None, None]).float()
    assert_close(model(images, masks, queries), resize_bilinear(expected, (40, 72)), atol=1e-4, rtol=1e-4)


def test_prototypes_of_kmeans_are_the_clusters():
    red, green, blue, grey = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0.5)
    image = painted([[red, red, green, blue], [red, green, blue, blue], [grey] * 4, [grey] * 4])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [255] * 4, [255] * 4])
    mask = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
    model = colours(score="kmeans", num_prototypes=2, num_background_prototypes=3)
    support = model.encode_support(image[None, None], mask[None, None])
    assert_close(support.prototypes[0, :2].sort(dim=0, descending=True).values[0], torch.tensor([1.0, 1.0, 0.0]))
    assert_close(support.prototypes[0, 2:], torch.tensor([blue] * 3, dtype=torch.float32))
    query = model.encode_query(painted([[red, green, blue, blue]] * 4)[None])
    found = model.segment(support, query).argmax(dim=1)[0, 15, [0, 11, 20, 31]]
    assert found.tolist() == [1, 1, 0, 0]


def test_kmeans_starts_with_the_most_usual_point_and_those_farthest_from_it():
    red, green, blue, grey = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)
    image = painted([[red, red, red, green], [red, red, blue, red], [grey] * 4, [grey] * 4])
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    mask[..., :16, :] = 1
    model = colours(score="kmeans", num_prototypes=3, num_background_prototypes=1, kmeans_iters=0)
    prototypes = model.encode_support(image[None, None], mask).prototypes[0]
    assert prototypes[0].tolist() == [1, 0, 0]
    assert sorted(prototypes[1:3].tolist()) == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("rows", "is_foreground"), [(5, True), (3, False)])
def test_a_cell_is_of_the_side_that_has_more_of_it(rows, is_foreground):
    red, green, blue = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    image = painted([[red, red, blue, blue], [green, green, blue, blue], [blue] * 4, [blue] * 4])
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    mask[..., : 8 + rows, :16] = 1
    model = colours(score="kmeans", num_prototypes=2, num_background_prototypes=2)
    prototypes = model.encode_support(image[None, None], mask).prototypes[0].round()
    assert ([0, 1, 0] in prototypes[:2].tolist()) == is_foreground
    assert ([0, 1, 0] in prototypes[2:].tolist()) != is_foreground


def test_one_prototype_a_cluster_is_that_of_the_means():
    images, _, queries = episode()
    masks = label_masks(2, 3, 6, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)  # whole cells
    found = tiny(score="kmeans", num_prototypes=1, num_background_prototypes=1)(images, masks, queries)
    assert_close(found, tiny(score="cosine")(images, masks, queries), atol=1e-4, rtol=1e-4)


# Shots


@EACH_SCORE
def test_the_order_of_shots_does_not_matter(score):
    images, masks, queries = episode()
    model = tiny(score=score)
    expected = model(images, masks, queries)
    assert_close(model(images[:, [2, 0, 1]], masks[:, [2, 0, 1]], queries), expected, atol=1e-4, rtol=1e-4)
    shots = [model.encode_support(images[:, s : s + 1], masks[:, s : s + 1]) for s in (1, 2, 0)]
    merged = model.segment(model.merge_shots(shots), model.encode_query(queries))
    assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    assert (model(images[:, :1], masks[:, :1], queries) - expected).abs().max() > 1e-2


@EACH_SCORE
def test_copies_of_a_shot_are_that_shot(score):
    images, masks, queries = episode(shots=1)
    model = tiny(score=score)
    copies = model(images.expand(-1, 5, -1, -1, -1), masks.expand(-1, 5, -1, -1), queries)
    assert_close(copies, model(images, masks, queries), atol=1e-4, rtol=1e-4)


def test_shots_are_not_averaged():
    # Two looks of one thing: red in one shot, green in the other; their mean, yellow, is the background of both.
    red, green, yellow = (1, 0, 0), (0, 1, 0), (1, 1, 0)
    images = torch.stack([painted([[each, yellow]] * 4 * 2) for each in (red, green)])[None]
    masks = torch.zeros(1, 2, 64, 16, dtype=torch.long)
    masks[..., :8] = 1
    images, masks = (torch.cat([each, each], dim=-1) for each in (images, masks))
    query = painted([[red, yellow, green, yellow]] * 8)[None]
    found = colours()(images, masks, query)[0].argmax(dim=0)
    assert found[4, [3, 12, 20, 28]].tolist() == [1, 0, 1, 0]


def test_no_shots_are_refused():
    with pytest.raises(ValueError, match="shots must hold at least one support, got none"):
        tiny().merge_shots([])


# What is missing


@EACH_SCORE
@pytest.mark.parametrize("value", [0, 255])
def test_without_foreground_nothing_is_found(score, value):
    images, masks, queries = episode()
    found = tiny(score=score)(images, torch.full_like(masks, value), queries)
    assert found.isfinite().all()
    assert (found[:, 1] < found[:, 0] - 5).all()


@EACH_SCORE
def test_a_shot_without_foreground_adds_its_background_alone(score):
    images, masks, queries = episode()
    masks[:, 2] = 0
    found = tiny(score=score)(images, masks, queries)
    assert found.isfinite().all()
    assert (found.argmax(dim=1) == 1).any()


@EACH_SCORE
def test_without_background_what_resembles_it_is_found(score):
    red, blue = (1.0, 0.0, 0.0), (-1.0, 0.0, 1.0)
    images, query = painted([[red] * 4] * 4)[None, None], painted([[red] * 4, [red] * 4, [blue] * 4, [blue] * 4])[None]
    found = colours(score=score)(images, torch.ones(1, 1, 32, 32, dtype=torch.long), query)
    assert found.isfinite().all()
    assert (found[:, 1] > found[:, 0])[:, :8].all()
    assert_close(found[:, 0], torch.full_like(found[:, 0], -20.0))


@EACH_SCORE
def test_features_of_zeros(score):
    found = colours(score=score)(torch.zeros(1, 1, 3, 32, 32), label_masks(1, 1, 32, 32), torch.zeros(1, 3, 32, 32))
    assert found.isfinite().all()


@EACH_SCORE
def test_void_does_not_count(score):
    images, masks, queries = episode()
    changed = torch.where((masks == 255)[:, :, None], 50.0, images)
    model = colours(score=score, kappa=10.0)
    assert_close(model(changed, masks, queries), model(images, masks, queries), atol=1e-4, rtol=1e-4)


@EACH_SCORE
@pytest.mark.parametrize("row", range(8))
def test_an_object_of_one_pixel_is_seen(score, row):
    red, blue = (1, 0, 0), (0, 0, 1)
    image = painted([[blue] * 4, [blue, red, blue, blue], [blue] * 4, [blue] * 4])
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    mask[..., 8 + row, 8 + 7 - row] = 1
    model = colours(score=score)
    support = model.encode_support(image[None, None], mask)
    assert support.foreground.nonzero().tolist() == [[0, 0, 5]]
    for colour, expected in ((red, 1), (blue, 0)):
        query = model.encode_query(painted([[colour] * 4] * 4)[None])
        assert (model.segment(support, query).argmax(dim=1) == expected).all()


# What runs


@pytest.mark.parametrize(("which", "expected"), [("mid", 0), ("high", 1)])
def test_no_more_of_the_backbone_runs_than_is_needed(which, expected):
    model, calls = tiny(features=which), []
    model.backbone.last.register_forward_hook(lambda *call: calls.append(1))
    images, masks, queries = episode(batch=1, shots=1)
    model.encode_both(images[:, 0], masks[:, 0])
    assert len(calls) == expected
    model.encode_query(queries)
    assert len(calls) == 2 * expected


def test_which_map_is_taken():
    assert tiny().config.features == "mid"
    torch.manual_seed(0)
    whole = fs.build_prototype_segmenter(Whole(), scale=10.0, bias=0.0).eval()
    assert whole.config.features == "high"
    assert_close(whole(*episode()), tiny(features="high")(*episode()))
    torch.manual_seed(0)
    assert_close(
        fs.build_prototype_segmenter(Whole(), features="mid", scale=10.0, bias=0.0).eval()(*episode()),
        tiny()(*episode()),
    )


@EACH_SCORE
def test_both_roles_at_once(score):
    model = tiny(score=score)
    images, masks, _ = episode()
    support, query = model.encode_both(images[:, 0], masks[:, 0])
    for part, expected in zip(support, model.encode_support(images[:, :1], masks[:, :1]), strict=True):
        assert (part is None) == (expected is None)
        if part is not None:
            assert_close(part, expected)
    assert_close(query.features, model.encode_query(images[:, 0]).features)
    assert query.size == (48, 64)


@EACH_SCORE
def test_one_support_serves_all_queries(score):
    model = tiny(score=score)
    images, masks, queries = episode()
    support = model.encode_support(images[:1], masks[:1])
    together = model.segment(support, model.encode_query(queries))
    apart = [model.segment(support, model.encode_query(query[None])) for query in queries]
    assert_close(together, torch.cat(apart))
    with pytest.raises(ValueError, match="support must have batch 1 or the query's, 1, got 2"):
        model.segment(model.encode_support(images, masks), model.encode_query(queries[:1]))


@EACH_SCORE
@pytest.mark.parametrize("which", ["mid", "high"])
def test_faster_forms_and_memory_answer_the_same(score, which):
    model = fs.build_prototype_segmenter("tiny", score=score, features=which).eval()
    tensors = episode()
    expected = model(*tensors)
    with inference(model):
        fast = in_fast_form(model)
        assert fast is not model
        assert model.fast is None
        assert_close(fast(*tensors), expected, atol=1e-4, rtol=1e-4)
    model.memory = fs.FeatureMemory(2**24)
    for _ in range(2):
        assert_close(model(*tensors), expected, atol=1e-4, rtol=1e-4)
    assert_close(model.fuse()(*tensors), expected, atol=1e-4, rtol=1e-4)


def test_the_backbone_stays_frozen():
    model = tiny().train()
    assert not model.backbone.training
    assert not any(weight.requires_grad for weight in model.parameters())
    statistics = model.backbone.shallow[1].running_mean.clone()
    model(*episode())
    assert torch.equal(model.backbone.shallow[1].running_mean, statistics)
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone"}


def test_the_backbone_of_a_new_model_is_not_in_training_mode():
    model = fs.PrototypeSegmenter(TinyBackbone())
    assert model.training
    assert not any(module.training for module in model.backbone.modules())


@EACH_SCORE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision(score, dtype):
    tensors = episode()
    model = tiny(score=score)
    expected = model(*tensors)
    found = model.to(dtype)(tensors[0].to(dtype), tensors[1], tensors[2].to(dtype))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    if dtype == torch.float64:
        assert_close(found.float(), expected, atol=1e-3, rtol=1e-3)
    else:
        assert (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > 0.8


@EACH_SCORE
def test_autocast(score):
    model = tiny(score=score)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(*episode())
    assert found.isfinite().all()
    assert (found.argmax(dim=1) == model(*episode()).argmax(dim=1)).float().mean() > 0.8


@EACH_SCORE
def test_a_gpu_never_waits(score):
    with FakeTensorMode(), torch.device("cuda"):
        model = tiny(score=score)
        images, masks = torch.zeros(2, 3, 3, 48, 64), torch.zeros(2, 3, 48, 64, dtype=torch.long)
        assert model(images, masks, torch.zeros(2, 3, 40, 72)).shape == (2, 2, 40, 72)


@EACH_SCORE
def test_compiles_without_a_graph_break(score):
    torch.compiler.reset()
    model = tiny(score=score)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(*episode()), model(*episode()), atol=1e-4, rtol=1e-4)


# Settings


def test_settings_are_checked():
    with pytest.raises(
        TypeError, match=r"settings must be fields of PrototypeConfig, got 'kapa'; did you mean 'kappa'"
    ):
        tiny(kapa=3)
    for name, value in (
        ("score", "nearest"),
        ("features", "low"),
        ("kappa", 0),
        ("kappa", 1e5),
        ("scale", 0),
        ("bias", float("nan")),
        ("num_prototypes", 0),
        ("num_background_prototypes", 0),
        ("kmeans_iters", -1),
        ("threshold", 1.0),
        ("image_size", 31),
        ("mean", (0.5, 0.5)),
        ("std", (0.5, 0.5, 0.0)),
    ):
        with pytest.raises(ValueError, match=rf"{name}.* must be .*got"):
            fs.PrototypeConfig(**{name: value})
    for name in ("backbone", "kappa", "scale", "num_prototypes", "image_size"):
        with pytest.raises(TypeError, match=rf"{name} must be"):
            fs.PrototypeConfig(**{name: [3]})
    with pytest.raises(FrozenInstanceError):
        fs.PrototypeConfig().kappa = 3


def test_settings_as_plain_values():
    config = fs.PrototypeConfig(score="kmeans", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    values = config.to_dict()
    assert values["kind"] == "prototypes"
    assert fs.PrototypeConfig.from_dict(values) == config
    assert fs.PrototypeConfig.from_dict({}) == fs.PrototypeConfig()
    with pytest.raises(TypeError, match="config must be a mapping"):
        fs.PrototypeConfig.from_dict(3)
    with pytest.raises(TypeError, match="fields of PrototypeConfig, got 'hidden_channels'"):
        fs.PrototypeConfig.from_dict({"hidden_channels": 3})


@EACH_SCORE
def test_what_a_config_leaves_open_is_filled_in(score):
    config = fs.build_prototype_segmenter(TinyBackbone(), score=score).config
    assert (config.scale, config.bias) == FITTED[score]
    assert None not in (config.features, config.mean, config.std)
    config = tiny(score=score, bias=0.5, mean=(0.1, 0.2, 0.3)).config
    assert (config.scale, config.bias, config.mean) == (10.0, 0.5, (0.1, 0.2, 0.3))


def test_images_are_checked():
    model = tiny()
    images, masks, queries = episode()
    with pytest.raises(ValueError, match="support masks must have the W of support images"):
        model(images, masks[..., :9], queries)
    with pytest.raises(ValueError, match="query images must have 3 channels and sides of at least 32"):
        model.encode_query(queries[..., :9])
    with pytest.raises(TypeError, match="support images must be a floating-point tensor"):
        model.encode_support(images.long(), masks)


def test_a_random_backbone_is_warned_of():
    with pytest.warns(UserWarning, match="random weights") as caught:
        fs.build_prototype_segmenter("tiny")
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match="backbone must be a name or an nn"):
        fs.build_prototype_segmenter(3)


@pytest.mark.filterwarnings("ignore:the frozen backbone has random weights")
@pytest.mark.parametrize("name", ["test_vit", "mobilenetv3_small_050", "vit_small_patch14_dinov2"])
def test_backbones_of_timm(name):
    pytest.importorskip("timm", reason='needs pip install "fewshotseg[timm]"')
    model = fs.build_prototype_segmenter(f"timm/{name}").eval()
    assert model.config.backbone == f"timm/{name}"
    assert model.config.features == ("high" if "vit" in name else "mid")
    images, masks, queries = episode(batch=1, shots=2)
    found = model(images, masks, queries)
    assert found.shape == (1, 2, 40, 72)
    assert found.isfinite().all()


# Through the doors


@EACH_SCORE
def test_files(score, tmp_path):
    model = fs.build_prototype_segmenter("tiny", score=score, kappa=33.0, threshold=0.4).eval()
    fs.save_model(model, tmp_path / "mine.pth", origin={"made": "here"})
    again = fs.load_model(tmp_path / "mine.pth")
    assert isinstance(again, fs.PrototypeSegmenter)
    assert again.config == model.config
    assert not again.training
    assert_close(again(*episode()), model(*episode()), rtol=0, atol=0)
    fs.load_weights(model, tmp_path / "mine.pth")


def test_a_file_of_one_kind_is_none_of_the_other(tmp_path):
    fs.save_model(tiny(), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="must fit the model"):
        fs.load_weights(fs.build_scnet(TinyBackbone(), hidden_channels=8, bins=(1.0,)), tmp_path / "mine.pth")
    assert isinstance(fs.load_model(tmp_path / "mine.pth", backbone=TinyBackbone()), fs.PrototypeSegmenter)
    content = torch.load(tmp_path / "mine.pth", weights_only=True)
    torch.save({**content, "config": {**content["config"], "kind": "other"}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="must hold the config of a model, but"):
        fs.load_model(tmp_path / "other.pth")


@EACH_SCORE
def test_photographs(score, tmp_path):
    model = fs.build_prototype_segmenter("tiny", score=score).eval()
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    photo[mask] = (250, 20, 20)
    predictor = fs.FewShotPredictor(model, size=97)
    predictor.set_support({"red": [photo, photo], "rest": photo}, {"red": [mask, mask], "rest": ~mask})
    found = predictor.predict(photo)
    assert found.probability.shape == (2, 60, 80)
    assert found.probability[0][mask].mean() > found.probability[0][~mask].mean()
    assert found.probability[1][mask].mean() < found.probability[1][~mask].mean()
    predictor.set_support([photo] * 3, [mask] * 3)
    expected = predictor.predict(photo).probability
    predictor.save_support(tmp_path / "red.fss")
    predictor.set_support(photo, ~mask)
    predictor.load_support(tmp_path / "red.fss")
    assert torch.equal(predictor.predict(photo).probability, expected)
    predictor.set_support(photo, mask)
    pytest.importorskip("safetensors", reason='needs pip install "fewshotseg[hub]"')
    predictor.save_pretrained(tmp_path / "shared")
    assert "training-free" in (tmp_path / "shared/README.md").read_text(encoding="utf-8")
    again = fs.FewShotPredictor.from_pretrained(tmp_path / "shared")
    assert again.model.config == replace(model.config, image_size=97)
    again.set_support(photo, mask)
    assert torch.equal(again.predict(photo).mask, predictor.predict(photo).mask)
