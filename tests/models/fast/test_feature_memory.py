"""Remembered features are the backbone's, and the backbone runs once for each different image."""

import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _models import tiny
from fewshotseg.models.fast.feature_memory import image_by_image


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, 3, 40, 48, generator=generator)
    masks = torch.randint(0, 2, (3, 2, 40, 48), generator=generator)
    return images, masks, images[:, 0], masks[:, 0]


def losses(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    return model(*batch(), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("max_bytes", [0, 20_000, 2**30])
def test_nothing_changes_but_the_time(max_bytes):
    expected, model = losses(tiny()), tiny()
    model.memory = fs.FeatureMemory(max_bytes)
    for _ in range(2):
        found = losses(model)
        assert_close(found.logits, expected.logits)
        assert_close(found.loss, expected.loss)
    found.loss.backward()
    assert model.reduce_query[0].weight.grad is not None
    assert list(model.state_dict()) == list(tiny().state_dict())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_image_by_image_is_the_batch_and_keeps_its_layout(layout):
    images = torch.rand(3, 4, 5, 6).to(memory_format=layout)
    numbers = torch.arange(3.0)

    def stage(image, number):
        return image + number, (image * number)[:, :2]

    found = image_by_image(stage, images, numbers)
    expected = images + numbers[:, None, None, None], (images * numbers[:, None, None, None])[:, :2]
    for maps, whole in zip(found, expected, strict=True):
        assert_close(maps, whole)
    assert found[0].stride() == images.stride()


def test_an_image_is_encoded_once(monkeypatch):
    model, seen = tiny(), []
    mid = type(model.backbone).mid
    losses(model)  # folds the norms, on an image of its own
    monkeypatch.setattr(
        type(model.backbone), "mid", lambda backbone, images: seen.append(len(images)) or mid(backbone, images)
    )
    model.memory = fs.FeatureMemory(2**30)
    for _ in range(3):
        losses(model)
    assert seen == [1] * 6  # three queries that are also supports, and three other supports


def test_stages_have_names_to_tell_them_apart():
    """A memory of one's own may treat them differently."""
    model, seen = tiny(), []
    model.memory = lambda name, stage, *inputs: seen.append((name, len(inputs))) or stage(*inputs)
    losses(model)
    assert set(seen) == {("mid", 1), ("high", 1), ("masked", 2)}


def test_an_image_in_another_stage_is_kept_apart():
    memory, image = fs.FeatureMemory(2**30), torch.rand(1, 3, 4, 6)
    for _ in range(2):
        assert_close(memory("mid", lambda maps: (maps + 1,), image), (image + 1,))
        assert_close(memory("high", lambda maps: (maps + 2,), image), (image + 2,))


@pytest.mark.parametrize("shape", [(1, 3, 6, 4), (1, 6, 3, 4), (1, 3, 24), (1, 72)])
def test_the_same_bytes_in_another_shape_are_another_image(shape):
    memory, image = fs.FeatureMemory(2**30), torch.rand(1, 3, 4, 6)
    for _ in range(2):
        for maps in (image, image.view(shape)):
            (found,) = memory("mid", lambda maps: (2 * maps,), maps)
            assert_close(found, 2 * maps)


def test_a_mask_is_part_of_what_is_remembered():
    memory, maps = fs.FeatureMemory(2**30), torch.rand(1, 3, 4, 6)
    for mask in (torch.zeros(1, 4, 6), torch.ones(1, 4, 6), torch.zeros(1, 4, 6)):
        (found,) = memory("masked", lambda maps, mask: (maps * mask,), maps, mask)
        assert_close(found, maps * mask)


def test_one_differing_pixel_is_another_image():
    model = tiny().eval()
    model.memory = fs.FeatureMemory(2**30)
    images = torch.rand(1, 3, 40, 48)
    first = model.encode_query(images).features
    images[0, 0, 3, 3] += 0.5
    assert not torch.equal(model.encode_query(images).features, first)


def test_half_precision_is_near():
    model = tiny().eval()
    images = torch.rand(2, 3, 40, 48)
    expected = model.encode_query(images)
    model.memory = fs.FeatureMemory(2**30, dtype=torch.float16)
    found = model.encode_query(images)
    assert found.high.dtype == torch.float32
    assert_close(found.high, expected.high, atol=1e-2, rtol=1e-2)


def test_batch_statistics_are_never_remembered():
    expected, model = losses(tiny(norm_stats="batch")), tiny(norm_stats="batch")
    model.memory = fs.FeatureMemory(2**30)
    for _ in range(2):
        found = losses(model)
        assert torch.equal(found.loss, expected.loss)
    assert model.backbone.deep[1].num_batches_tracked == 6
