"""One's own photographs: whatever they come as, the answer is the same, at their own size."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
import fewshotseg.predictor
from _models import tiny
from fewshotseg.models.presence import presence_of


def photo(height=60, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mask(height=60, width=90):
    labels = np.zeros((height, width), np.uint8)
    labels[20:40, 30:60] = 1
    labels[18:20, 30:60] = 255
    return labels


@pytest.fixture
def predictor():
    return fs.FewShotPredictor(tiny(), size=65)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (33, 700), (32, 32), (5, 9)])
def test_answers_have_the_size_of_the_image(predictor, size):
    predictor.set_support(photo(), mask())
    found = predictor.predict(photo(*size))
    assert found.mask.shape == found.probability.shape == size
    assert found.mask.dtype == torch.int64
    assert found.probability.dtype == torch.float32
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert torch.equal(found.mask == 1, found.probability > 0.5)


def image_forms():
    array = photo()
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    return {
        "pil": Image.fromarray(array),
        "array": array,
        "float array": array / np.float64(255),
        "tensor": tensor,
        "float tensor": tensor / 255,
        "strided tensor": torch.cat([tensor, tensor], dim=2)[..., :90],
        "palette-free rgba": Image.fromarray(array).convert("RGBA"),
    }


@pytest.mark.parametrize("form", image_forms())
def test_images_may_come_as_anything(predictor, form):
    predictor.set_support(photo(seed=1), mask())
    expected = predictor.predict(photo()).probability
    assert_close(predictor.predict(image_forms()[form]).probability, expected)
    predictor.set_support(image_forms()[form], mask())
    changed = predictor.predict(photo()).probability
    predictor.set_support(photo(), mask())
    assert_close(changed, predictor.predict(photo()).probability)


def test_grey_images_are_images(predictor):
    grey = photo()[..., 0]
    predictor.set_support(photo(), mask())
    expected = predictor.predict(np.repeat(grey[..., None], 3, axis=2)).probability
    for form in (grey, Image.fromarray(grey), torch.from_numpy(grey)[None]):
        assert_close(predictor.predict(form).probability, expected)


def test_masks_may_come_as_anything(predictor):
    labels = mask()
    binary = labels == 1
    forms = [
        binary,
        Image.fromarray(binary),
        torch.from_numpy(binary),
        binary.astype(np.float32),
        binary.astype(np.int64),
    ]
    predictor.set_support(photo(), binary)
    expected = predictor.predict(photo(seed=2)).probability
    for form in forms:
        predictor.set_support([photo()], [form])
        assert torch.equal(predictor.predict(photo(seed=2)).probability, expected)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0] + [7] * 762)
    predictor.set_support(photo(), labels)
    expected = predictor.predict(photo(seed=2)).probability
    predictor.set_support(photo(), palette)
    assert torch.equal(predictor.predict(photo(seed=2)).probability, expected)


def test_files_are_read_as_the_images_that_they_hold(predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    Image.fromarray(np.rot90(photo(seed=1)).copy()).save(tmp_path / "photo.png", exif=exif)
    Image.fromarray(255 * (mask() == 1).astype(np.uint8)).save(tmp_path / "mask.png")
    predictor.set_support(photo(seed=1), mask() == 1)
    expected = predictor.predict(photo(seed=1)).probability
    with pytest.warns(UserWarning, match="255 but no 1, so 255 is read as the object"):
        predictor.set_support(str(tmp_path / "photo.png"), tmp_path / "mask.png")
    assert torch.equal(predictor.predict(tmp_path / "photo.png").probability, expected)
    with Image.open(tmp_path / "photo.png") as opened:
        assert torch.equal(predictor.predict(opened).probability, expected)


def test_supports_are_encoded_once(predictor, monkeypatch):
    calls = []
    encode = predictor.model.encode_support
    monkeypatch.setattr(predictor.model, "encode_support", lambda *args: calls.append(1) or encode(*args))
    predictor.set_support([photo(seed=1), photo(50, 70, seed=2)], [mask(), mask(50, 70)])
    for seed in range(3):
        predictor.predict(photo(seed=seed))
    assert len(calls) == 1


def test_it_is_the_model_on_the_padded_square(predictor):
    """Without padding or resizing the predictor adds nothing but the normalisation."""
    image, support = photo(65, 65), photo(65, 65, seed=1)
    labels = mask(65, 65)
    predictor.set_support(support, labels)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def normalised(pixels):
        return (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std

    model = tiny().eval()
    with torch.no_grad():
        logits = model(
            normalised(support)[None, None], torch.from_numpy(labels).long()[None, None], normalised(image)[None]
        ).logits
    assert_close(predictor.predict(image).probability, logits.softmax(dim=1)[0, 1])


def test_several_classes_are_binary_passes_and_an_arg_max(predictor):
    images = {"cat": [photo(seed=1), photo(seed=2)], "dog": photo(40, 50, seed=3)}
    masks = {"cat": [mask(), mask()], "dog": mask(40, 50)}
    predictor.set_support(images, masks)
    together = predictor.predict(photo())
    alone = []
    for name, shots in images.items():
        predictor.set_support(shots, masks[name])
        alone.append(predictor.predict(photo()).probability)
    assert_close(together.probability, torch.stack(alone))
    best, label = torch.stack(alone).max(dim=0)
    assert torch.equal(together.mask, torch.where(best > 0.5, label + 1, 0))


def test_the_models_mode_is_left_alone(predictor):
    predictor.model.train()
    predictor.set_support(photo(), mask())
    first, second = predictor.predict(photo()).probability, predictor.predict(photo()).probability
    assert torch.equal(first, second)
    assert predictor.model.training
    assert not predictor.model.backbone.training


def test_half_precision_models_answer_nearly_the_same(predictor):
    predictor.set_support(photo(), mask())
    half = fs.FewShotPredictor(tiny().bfloat16(), size=65)
    half.set_support(photo(), mask())
    expected, found = predictor.predict(photo()), half.predict(photo())
    assert found.probability.dtype == torch.float32
    assert_close(found.probability, expected.probability, atol=0.02, rtol=0)


def test_the_backbones_own_normalisation_is_used():
    model = tiny(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    predictors = fs.FewShotPredictor(tiny(), size=65), fs.FewShotPredictor(model, size=65)
    answers = []
    for predictor in predictors:
        predictor.set_support(photo(), mask())
        answers.append(predictor.predict(photo()).probability)
    assert not torch.allclose(*answers)


@pytest.mark.parametrize(
    ("images", "masks", "error", "message"),
    [
        ([], [], ValueError, "equally many, at least one, got 0 and 0"),
        ([photo()], [mask(), mask()], ValueError, "equally many, at least one, got 1 and 2"),
        (photo(), mask(50, 90), ValueError, r"masks\[0\] must have the size of its image, \(60, 90\), got \(50, 90\)"),
        (photo(), mask() * 0, ValueError, r"masks\[0\] must mark the object, but has no pixel of it"),
        (photo(), mask() + 3, ValueError, r"masks\[0\] must mark one object, but holds \[2, 3, 4\]"),
        (photo(), mask() / 2.0, ValueError, r"masks\[0\] must be bool or hold whole numbers"),
        (photo(), mask()[None], ValueError, r"masks\[0\] must have shape .* got \(1, 60, 90\)"),
        (photo()[..., :2], mask(), ValueError, r"images\[0\] must have shape .* got \(60, 90, 2\)"),
        (photo().astype(np.int32), mask(), ValueError, "range from 0 to 65535 .* nearly black"),
        (photo().astype(np.float32), mask(), ValueError, "numbers from 0 to 1 if floating-point, got 0 to 255"),
        (photo() * np.nan, mask(), ValueError, "numbers from 0 to 1 if floating-point"),
        ("photo.jpg", mask(), FileNotFoundError, r"images\[0\] must be an image, but photo.jpg cannot be opened"),
        (7, mask(), TypeError, r"images\[0\] must be a path, a PIL image, an array or a tensor, got int"),
        ({"a": photo()}, mask(), TypeError, "must both be mappings or neither"),
        ({"a": photo()}, {"b": mask()}, ValueError, r"same classes, at least one, got \['a'\] and \['b'\]"),
        ({}, {}, ValueError, "at least one"),
    ],
)
def test_unusable_supports_are_refused_in_one_sentence(predictor, images, masks, error, message):
    with pytest.raises(error, match=message):
        predictor.set_support(images, masks)


def test_support_comes_first(predictor):
    with pytest.raises(RuntimeError, match="set_support must be called before predict"):
        predictor.predict(photo())
    with pytest.raises(ValueError, match="size must be at least 32, got 16"):
        fs.FewShotPredictor(tiny(), size=16)


# Settings that come with the model


def test_the_models_size_and_statistics_are_used():
    predictor = fs.FewShotPredictor(tiny(image_size=97, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7)))
    assert predictor.size == 97
    other = fs.FewShotPredictor(tiny(mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7)), size=97)
    plain = fs.FewShotPredictor(tiny(), size=97)
    answers = []
    for each in (predictor, other, plain):
        each.set_support(photo(), mask())
        answers.append(each.predict(photo(seed=2)).probability)
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("classes", [1, 2])
def test_the_models_threshold_is_used_unless_another_is_asked_for(share, classes):
    def predictor(**settings):
        made = fs.FewShotPredictor(tiny(**settings), size=65)
        if classes == 1:
            made.set_support(photo(), mask())
        else:
            made.set_support({"a": photo(), "b": photo(seed=1)}, {"a": mask(), "b": mask()})
        return made

    probability = predictor().predict(photo(seed=2)).probability
    best = probability if classes == 1 else probability.max(dim=0).values
    threshold = float(best.quantile(share))
    for found in (
        predictor(threshold=threshold).predict(photo(seed=2)),
        predictor().predict(photo(seed=2), threshold=threshold),
        predictor(threshold=0.9).predict(photo(seed=2), threshold=threshold),
    ):
        assert torch.equal(found.probability, probability)
        assert torch.equal(found.mask > 0, best > threshold)
        assert 0 < (found.mask > 0).float().mean() < 1
    for wrong in (0, 1, float("nan"), -1):
        with pytest.raises(ValueError, match="threshold must be"):
            predictor().predict(photo(), threshold=wrong)


def test_a_threshold_may_be_any_real_number(predictor):
    predictor.set_support(photo(), mask())
    half, same = predictor.predict(photo(seed=2)), predictor.predict(photo(seed=2), threshold=Fraction(1, 2))
    assert torch.equal(half.mask, same.mask)


# Masks of a model whose answers are known


class Discs(nn.Module):
    """A staged model whose logits are planted: each class is a disc at a known place of the photograph.

    Colours say where. A photograph to segment shows at every pixel its own x (red) and y (green), so that the model
    knows what it sees however the photograph was resized and padded; its blue is 1, and where blue is not, there is
    padding, which the model takes for foreground beyond all doubt. The examples of a class show its disc's x, y and
    radius as one plain colour. All of them are shares of the longer side.
    """

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 1, 1)  # never run
        self.backbone.mean, self.backbone.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def encode_support(self, images, masks):
        inside = (masks == 1).float()[:, :, None]  # B S 1 H W
        colors = (images * 0.5 + 0.5) * inside
        return (colors.sum(dim=(1, 3, 4)) / inside.sum(dim=(1, 3, 4)),)  # B 3

    def merge_shots(self, shots):
        return (torch.stack([color for (color,) in shots]).mean(dim=0),)

    def encode_query(self, images):
        return (images * 0.5 + 0.5,)

    def segment(self, support, query):
        (disc,), (colors,) = support, query
        x, y, radius = disc[:, :, None, None].unbind(dim=1)
        return surely_in_padding(disc_score(colors[:, 0], colors[:, 1], x, y, radius), colors)


def surely_in_padding(score, colors):
    score = torch.where(colors[:, 2] < 0.75, 1000.0, score)
    return torch.stack([-score / 2, score / 2], dim=1)


def disc_score(x, y, center_x, center_y, radius):
    """A logit: 8 at the centre, 0 on the circle, falling on outside."""
    return 8 * (1 - torch.hypot(x - center_x, y - center_y) / radius)


def places(height, width):
    """x and y of each pixel, in shares of the longer side."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return x / max(height, width), y / max(height, width)


def photo_of_places(height, width):
    return torch.stack([*places(height, width), torch.ones(height, width)])


def scores(height, width, discs):
    """The planted logits at the photograph's own size, ``(K, H, W)``."""
    longest = max(height, width)
    return torch.stack([disc_score(*places(height, width), *(part / longest for part in disc)) for disc in discs])


def predict_discs(height, width, *discs, size=193, model=None):
    """Discs ``(x, y, radius)`` in pixels of the photograph; several of them are several classes."""
    predictor = fs.FewShotPredictor(Discs() if model is None else model, size=size)
    colors = [torch.tensor(disc)[:, None, None].expand(3, 40, 50) / max(height, width) for disc in discs]
    example = np.ones((40, 50), bool)
    if len(discs) == 1:
        predictor.set_support(colors[0], example)
    else:
        predictor.set_support(dict(enumerate(colors)), dict.fromkeys(range(len(discs)), example))
    return predictor.predict(photo_of_places(height, width))


def iou(found, expected):
    return ((found & expected).sum() / (found | expected).sum()).item()


SHAPES = [(60, 400), (400, 60), (1, 500), (3, 500), (500, 9), (57, 83), (101, 67), (20, 33), (193, 193), (401, 399)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.85])
def test_a_disc_is_found_where_it_is(height, width, place):
    disc = (place * width, place * height, max(0.4 * min(height, width), 0.1 * max(height, width)))
    found, expected = predict_discs(height, width, disc), scores(height, width, [disc])[0]
    assert found.mask.shape == (height, width)
    assert set(found.mask.unique().tolist()) == {0, 1}
    assert iou(found.mask == 1, expected > 0) > 0.9
    assert (found.probability - expected.sigmoid()).abs().mean() < 0.02


@pytest.mark.parametrize("width", [1, 2])
def test_a_photo_that_shrinks_to_one_column_keeps_its_rows(width):
    disc = (0.5, 200.0, 60.0)
    found = predict_discs(500, width, disc)
    assert iou(found.mask == 1, scores(500, width, [disc])[0] > 0) > 0.9


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (2, 500), (5, 500), (500, 7), (500, 1), (32, 1000)])
@pytest.mark.parametrize("size", [64, 65, 193])
def test_padding_never_leaks(height, width, size):
    """Where the model finds nothing but padding, the answer is nothing."""
    model = Discs()
    model.segment = lambda support, query: surely_in_padding(torch.tensor(-10.0), *query)
    found = predict_discs(height, width, (1.0, 1.0, 1.0), size=size, model=model)
    assert not found.mask.any()
    assert found.probability.max() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(60, 400), (400, 60), (57, 83), (193, 193)])
@pytest.mark.parametrize("count", [2, 3])
def test_the_most_probable_class_wins_each_pixel(height, width, count):
    """Discs that overlap, the smallest last: each wins near its own centre."""
    across = 0.3 * min(height, width)
    discs = [
        (width / 2 + step * across * (width >= height), height / 2 + step * across * (width < height), size * across)
        for step, size in ((-0.8, 1.4), (0.8, 1.1), (0.1, 0.8))
    ][:count]
    planted = scores(height, width, discs)
    best, label = planted.max(dim=0)
    expected = torch.where(best > 0, label + 1, 0)
    found = predict_discs(height, width, *discs)
    assert found.probability.shape == (count, height, width)
    assert set(expected.unique().tolist()) == set(range(count + 1))
    for number in range(count + 1):
        assert iou(found.mask == number, expected == number) > 0.9
    assert torch.equal(found.mask > 0, found.probability.max(dim=0).values > 0.5)


def test_a_tie_goes_to_the_first_class():
    disc, smaller = (40.0, 30.0, 20.0), (40.0, 30.0, 10.0)
    found = predict_discs(60, 90, smaller, disc, disc)
    assert iou(found.mask == 2, scores(60, 90, [disc])[0] > 0) > 0.9
    assert set(found.mask.unique().tolist()) == {0, 2}


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(("logit", "label"), [(0.0, 0), (1e-3, 1), (-1e-3, 0)])
def test_a_pixel_at_one_half_is_background(classes, logit, label):
    model = Discs()
    model.segment = lambda support, query: torch.tensor([0.0, logit])[None, :, None, None].expand(1, 2, 65, 65)
    found = predict_discs(60, 90, *[(10.0, 10.0, 10.0)] * classes, size=65, model=model)
    assert (found.mask == label).all()
    assert ((found.probability == 0.5) == (logit == 0)).all()


def test_shots_of_a_class_become_one_support():
    """The disc of the mean of two plain colours."""
    predictor = fs.FewShotPredictor(Discs(), size=193)
    colors = [torch.tensor(disc)[:, None, None].expand(3, 40, 50) / 90 for disc in ((20, 25, 22), (50, 35, 18))]
    masks = [np.ones((40, 50), bool)] * 2
    predictor.set_support(colors, masks)
    found = predictor.predict(photo_of_places(60, 90))
    assert iou(found.mask == 1, scores(60, 90, [(35, 30, 20)])[0] > 0) > 0.9


def test_only_foreground_pixels_are_the_example():
    """Beside the mask, in its void and in the padding the example shows other discs."""
    disc, other = torch.tensor([40.0, 30.0, 20.0]) / 90, torch.tensor([80.0, 50.0, 5.0]) / 90
    image, labels = other[:, None, None].repeat(1, 40, 90), np.full((40, 90), 255, np.uint8)
    labels[:, :30] = 0
    image[:, 4:36, 40:80] = disc[:, None, None]
    labels[8:32, 44:76] = 1
    predictor = fs.FewShotPredictor(Discs(), size=193)
    predictor.set_support(image, labels)
    found = predictor.predict(photo_of_places(60, 90))
    assert iou(found.mask == 1, scores(60, 90, [(40, 30, 20)])[0] > 0) > 0.9


@pytest.mark.parametrize("place", [(0, 0), (333, 7), (123, 456), (399, 599)])
@pytest.mark.parametrize("side", [1, 3])
def test_an_object_too_small_for_the_models_size_is_still_seen(place, side):
    predictor = fs.FewShotPredictor(tiny().eval(), size=65)
    picture, tiny_mask = np.zeros((400, 600, 3), np.uint8), np.zeros((400, 600), bool)
    tiny_mask[place[0] : place[0] + side, place[1] : place[1] + side] = True
    predictor.set_support([picture, picture], [tiny_mask, ~tiny_mask])
    (support,) = predictor._examples.supports
    assert (support.weights[0].flatten(1).amax(dim=1) > 0).all()
    row, column = np.unravel_index(int(support.weights[0, 0].argmax()), support.weights.shape[2:])
    scale = 65 / 600 * (support.weights.shape[2] - 1) / 64  # from the photograph to the grid
    assert abs(row - place[0] * scale) <= 1.5
    assert abs(column - place[1] * scale) <= 1.5


def test_what_is_seen_is_left_as_it_is(monkeypatch):
    predictor = fs.FewShotPredictor(tiny().eval(), size=65)
    calls = []
    encode = predictor.model.encode_support
    monkeypatch.setattr(fs.SCNet, "encode_support", lambda model, *inputs: calls.append(1) or encode(*inputs))
    predictor.set_support(photo(), mask())
    assert len(calls) == 1


# Presence


def test_presence_rises_with_the_surest_hundredth_of_the_photograph_alone():
    """Padding, of which the model is beyond all doubt, has no say."""
    place, radius = (30.0, 20.0), 15.0
    height, width = 60, 90
    for size in (91, 193):
        found = predict_discs(height, width, (*place, radius), size=size)
        expected = scores(height, width, [(*place, radius)])[0].flatten()
        surest = expected.sort(descending=True).values[: round(0.01 * height * width)].mean()
        assert found.presence.shape == ()
        assert found.presence.dtype == torch.float32
        assert_close(found.presence, surest.sigmoid(), atol=2e-3, rtol=0)
    larger = predict_discs(height, width, (*place, 2 * radius)).presence
    assert larger > found.presence


def test_each_class_has_its_presence():
    discs = [(20.0, 20.0, 9.0), (40.0, 30.0, 12.0), (59.0, 0.0, 0.6)]
    together = predict_discs(50, 60, *discs)
    alone = [predict_discs(50, 60, disc).presence for disc in discs]
    assert torch.equal(together.presence, torch.stack(alone))
    assert together.presence[2] < 0.001
    assert together.presence[:2].min() > 0.9


def test_the_models_scale_and_bias_are_used():
    def presence(**settings):
        predictor = fs.FewShotPredictor(tiny(**settings), size=65)
        predictor.set_support(photo(), mask())
        return predictor.predict(photo(seed=2)).presence

    plain = presence()
    assert 0.01 < plain < 0.99
    assert_close(presence(presence=(2.0, -0.5)), (2 * plain.logit() - 0.5).sigmoid())
    assert_close(presence(presence=[0, 0]), torch.tensor(0.5))


@pytest.mark.parametrize("share", [1, 50, 60, 150, 200, 260])
def test_one_location_in_a_hundred_counts_and_at_least_one(share):
    log_odds = torch.full((1, 1, share), -5.0)
    log_odds[0, 0, : max(1, round(share / 100))] = 2.0
    assert_close(presence_of(None, log_odds), torch.tensor([2.0]).sigmoid())


# Examples that are asked of their own photographs


def disc_example(disc, marked):
    """An example whose photograph shows ``disc``; as one of `Discs` it asks for the disc that its mark shows."""
    colors = photo_of_places(60, 60)
    inside = scores(60, 60, [marked])[0] > 0
    colors[:, inside] = torch.tensor(disc)[:, None] / 60
    return colors, inside


class OwnPhotograph(Discs):
    """Finds the disc of the example in a photograph whose blue is 1 everywhere but there."""

    def segment(self, support, query):
        ((disc,),) = (support,)
        x_places, y_places = places(60, 60)
        x, y, radius = disc[:, :, None, None].unbind(dim=1)
        score = disc_score(x_places, y_places, x, y, radius)
        return torch.stack([-score / 2, score / 2], dim=1)


GOOD, NONE = (20.0, 20.0, 12.0), (45.0, 45.0, 9.0)


def test_examples_that_are_not_found_in_their_own_photographs_are_named():
    predictor = fs.FewShotPredictor(OwnPhotograph(), size=60, check_examples=True)
    predictor.set_support(*disc_example(GOOD, GOOD))
    ((iou,),) = predictor.example_iou
    assert iou > 0.9
    message = (
        r"the example is not found in its own photograph: images\['b'\]\[0\] \(IoU 0\.00\); expect poor results, "
        "mark it tighter, use a photograph that shows it larger, or give more examples"
    )
    good, none = disc_example(GOOD, GOOD), disc_example(GOOD, NONE)
    with pytest.warns(UserWarning, match=f"^{message}$") as warned:
        predictor.set_support({"a": good[0], "b": none[0]}, {"a": good[1], "b": none[1]})
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert predictor.example_iou == ((iou,), (0.0,))


@pytest.mark.parametrize("moved", [0.0, 4.0, 8.0, 9.5, 11.0, 13.0])
def test_the_iou_is_that_of_the_answer_and_the_limit_is_what_is_documented(moved):
    predictor = fs.FewShotPredictor(OwnPhotograph(), size=60, check_examples=True)
    marked = (20.0 + moved, 20.0, 12.0)
    image, inside = disc_example(GOOD, marked)
    expected = iou(scores(60, 60, [GOOD])[0] > 0, inside)
    assert abs(expected - 0.3) > 0.005
    if expected < 0.3:
        with pytest.warns(UserWarning, match=r"images\[0\] \(IoU"):
            predictor.set_support(image, inside)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predictor.set_support(image, inside)
    assert_close(predictor.example_iou[0][0], expected, atol=0.01, rtol=0)


def test_void_around_an_example_does_not_count():
    predictor = fs.FewShotPredictor(OwnPhotograph(), size=60, check_examples=True)
    marked = (24.0, 20.0, 6.0)
    image, inside = disc_example(GOOD, marked)
    unknown = torch.where(inside, 1, torch.where(scores(60, 60, [(20.0, 20.0, 14.0)])[0] > 0, 255, 0))
    predictor.set_support(image, unknown)
    assert predictor.example_iou[0][0] == 1


def test_examples_are_asked_only_where_that_is_wanted(tmp_path):
    fs.save_model(fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,)), tmp_path / "model.pth")
    asked = fs.FewShotPredictor.from_pretrained(tmp_path / "model.pth", size=65)
    assert asked.check_examples
    asked.set_support([photo(), photo(seed=1)], [mask(), mask()])
    assert [len(each) for each in asked.example_iou] == [2]
    unasked = fs.FewShotPredictor.from_pretrained(tmp_path / "model.pth", size=65, check_examples=False)
    unasked.set_support(photo(), mask())
    assert unasked.example_iou == ()
    assert not fs.FewShotPredictor(tiny(), size=65).check_examples
    with pytest.raises(TypeError, match="check_examples must be True or False, got str"):
        fs.FewShotPredictor(tiny(), check_examples="no")


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_leaves_the_earlier_examples():
    predictor = fs.FewShotPredictor(OwnPhotograph(), size=60, check_examples=True)
    predictor.set_support({"a": disc_example(GOOD, GOOD)[0]}, {"a": disc_example(GOOD, GOOD)[1]})
    with pytest.raises(UserWarning, match="not found"):
        predictor.set_support(*disc_example(GOOD, NONE))
    assert predictor.class_names == ("a",)


# Several images at once


def several_forms(tmp_path):
    Image.fromarray(photo(40, 50, seed=3)).save(tmp_path / "third.png")
    return [photo(), Image.fromarray(photo(33, 70, seed=2)), tmp_path / "third.png", str(tmp_path / "third.png")]


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("together", [False, True])
def test_a_list_is_answered_one_by_one(predictor, tmp_path, monkeypatch, classes, together):
    if together:
        monkeypatch.setattr("fewshotseg.predictor.at_once", lambda weight: 3)
    names = ["a", "b"][:classes]
    predictor.set_support(dict.fromkeys(names, photo(seed=1)), dict(zip(names, [mask(), mask() == 255], strict=False)))
    images = several_forms(tmp_path)
    alone = [predictor.predict(image, threshold=0.45) for image in images]
    for found, expected in zip(predictor.predict(tuple(images), threshold=0.45), alone, strict=True):
        assert_close(found.probability, expected.probability)
        assert found.mask.shape == expected.mask.shape
    assert len({tuple(each.mask.shape) for each in alone}) == 3
    assert predictor.predict([]) == []


def test_only_as_many_images_as_go_through_the_model_are_held(predictor, monkeypatch):
    predictor.set_support(photo(seed=1), mask())
    events = []
    encode, read = predictor.model.encode_query, fewshotseg.predictor.to_image
    monkeypatch.setattr(predictor.model, "encode_query", lambda images: events.append(len(images)) or encode(images))
    monkeypatch.setattr("fewshotseg.predictor.to_image", lambda *args: events.append("read") or read(*args))
    predictor.predict([photo()] * 3)
    assert events == ["read", 1] * 3
    events.clear()
    monkeypatch.setattr("fewshotseg.predictor.at_once", lambda weight: 2)
    predictor.predict([photo()] * 3)
    assert events == ["read", "read", 2, "read", 1]


def test_a_model_of_ones_own_gets_a_support_for_each_image(monkeypatch):
    class Strict(Discs):
        def segment(self, support, query):
            assert len(support[0]) == len(query[0])
            return super().segment(support, query)

    monkeypatch.setattr("fewshotseg.predictor.at_once", lambda weight: 4)
    predictor = fs.FewShotPredictor(Strict(), size=65)
    discs = [(20.0, 20.0, 9.0), (40.0, 30.0, 12.0)]
    colors = [torch.tensor(disc)[:, None, None].expand(3, 40, 50) / 60 for disc in discs]
    example = np.ones((40, 50), bool)
    predictor.set_support(dict(enumerate(colors)), dict.fromkeys(range(2), example))
    for found in predictor.predict([photo_of_places(50, 60)] * 3):
        assert torch.equal(found.mask, predict_discs(50, 60, *discs, size=65).mask)


def test_an_image_of_a_list_that_cannot_be_read_is_named(predictor, tmp_path):
    predictor.set_support(photo(), mask())
    with pytest.raises(FileNotFoundError, match=r"image\[1\] must be an image, but .*missing.png cannot be opened"):
        predictor.predict([photo(), tmp_path / "missing.png"])
    with pytest.raises(TypeError, match=r"image must be a path, .* got generator"):
        predictor.predict(photo() for _ in range(2))
    with pytest.raises(ValueError, match=r"image must have shape .*; give one image, not a batch"):
        predictor.predict(np.stack([photo()] * 2))
    for wrong in (b"photo.jpg", {photo().shape: 1}, None):
        with pytest.raises(TypeError, match="image must be a path"):
            predictor.predict(wrong)
