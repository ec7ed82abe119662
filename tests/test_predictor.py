"""One's own photographs: whatever they come as, the answer is the same, at their own size."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import fewshotseg as fs
from _models import tiny


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
    model = tiny()
    model.backbone.mean, model.backbone.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
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
        (photo(), mask() * 0, ValueError, r"masks\[0\] must have at least one foreground pixel"),
        (photo(), np.where(mask() == 1, 255, 0), ValueError, r"values \[0, 255\]; 255 is void"),
        (photo(), mask() + 3, ValueError, r"masks\[0\] must be bool or hold 1"),
        (photo(), mask() / 2.0, ValueError, r"masks\[0\] must be bool or hold 1"),
        (photo(), mask()[None], ValueError, r"masks\[0\] must have shape \(H, W\), got \(1, 60, 90\)"),
        (photo()[..., :2], mask(), ValueError, r"images\[0\] must have shape .* got \(60, 90, 2\)"),
        (photo().astype(np.int32), mask(), TypeError, "must hold uint8 or floating-point"),
        (photo().astype(np.float32), mask(), ValueError, "numbers from 0 to 1 where floating-point, got 0 to 255"),
        (photo() * np.nan, mask(), ValueError, "numbers from 0 to 1 where floating-point"),
        ("photo.jpg", mask(), TypeError, "must be a PIL image, an array or a tensor, got str"),
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
    with pytest.raises(ValueError, match="size must be at least 32 pixels, got 16"):
        fs.FewShotPredictor(tiny(), size=16)
