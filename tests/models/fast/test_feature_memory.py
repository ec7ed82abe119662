"""Remembered features are the backbone's, and the backbone runs once for each different image."""

import copy
import math
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _models import tiny
from fewshotseg.models.fast.feature_memory import image_by_image
from fewshotseg.models.fast.lru import LeastRecentlyUsed
from fewshotseg.models.fast.state import digest
from fewshotseg.models.fast.untouched import treats_images_alone


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


class Whole(nn.Module):
    """A backbone that cannot be cut."""

    mid_channels = 12

    def __init__(self):
        super().__init__()
        self.net = tiny().backbone

    def mid_and_high(self, images):
        deepest = self.net.mid(images)[0]
        return (deepest,), self.net.high(deepest)


def test_a_backbone_that_cannot_be_cut_is_remembered_too(monkeypatch):
    def built():
        torch.manual_seed(0)
        return fs.build_scnet(Whole(), hidden_channels=8, bins=(1.0, 0.5))

    expected, model, seen = losses(built()), built(), []
    run = Whole.mid_and_high
    monkeypatch.setattr(Whole, "mid_and_high", lambda self, images: seen.append(len(images)) or run(self, images))
    model.memory = fs.FeatureMemory(2**30)
    for _ in range(3):
        found = losses(model)
        assert_close(found.logits, expected.logits)
        assert_close(found.loss, expected.loss)
    assert sum(seen) == 6  # images, each once


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
    model = tiny()
    seen = count_runs(model, monkeypatch)
    model.memory = fs.FeatureMemory(2**30)
    for _ in range(3):
        losses(model)
    assert seen == [1] * 6  # three queries that are also supports, and three other supports


class Noting(fs.FeatureMemory):
    """Writes down what it is asked for."""

    def __init__(self):
        super().__init__(2**30)
        self.asked = []

    def __call__(self, name, step, *inputs):
        self.asked.append((*name, len(inputs)))
        return super().__call__(name, step, *inputs)


def test_what_is_remembered_is_named_by_stage_and_backbone():
    model, memory = tiny(), Noting()
    model.memory = memory
    losses(model)
    backbone = digest(model.backbone)
    assert set(memory.asked) == {("mid", backbone, 1), ("high", backbone, 1), ("masked", backbone, 2)}


def count_runs(model, monkeypatch):
    """The numbers of images in the calls of ``mid``."""
    seen, mid = [], type(model.backbone).mid
    monkeypatch.setattr(
        type(model.backbone), "mid", lambda backbone, images: seen.append(len(images)) or mid(backbone, images)
    )
    return seen


def test_models_with_equal_backbones_share(monkeypatch):
    first, second, other = tiny(), tiny(hidden_channels=4), tiny(seed=1)
    seen = count_runs(first, monkeypatch)
    first.memory = second.memory = other.memory = fs.FeatureMemory(2**30)
    for model, runs in ((first, 6), (second, 6), (other, 12)):
        losses(model)
        assert len(seen) == runs


def scale(backbone):
    with torch.no_grad():
        backbone.last.weight.mul_(2)


def change_setting(backbone):
    backbone.deep[1].eps = 1.0


def replace(backbone):
    backbone.shallow[2] = nn.Softplus()


def add_a_hook(backbone):
    backbone.last.register_forward_hook(lambda module, inputs, output: output + 1)


def put_a_forward_on_it(backbone):
    backbone.last.forward = lambda maps: maps.repeat(1, 2, 1, 1)[:, :20]


def exchange_the_backbone(backbone):
    backbone.load_state_dict(tiny(seed=3).backbone.state_dict())


CHANGES = [scale, change_setting, replace, add_a_hook, put_a_forward_on_it, exchange_the_backbone]


@pytest.mark.filterwarnings("ignore:memory caches nothing")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_backbone_is_noticed(change):
    model, plain, images = tiny().eval(), tiny().eval(), torch.rand(1, 3, 40, 48)
    model.memory = fs.FeatureMemory(2**30)
    before = model.encode_query(images).high
    change(model.backbone)
    change(plain.backbone)
    found = model.encode_query(images).high
    assert_close(found, plain.encode_query(images).high, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found, before) or change is change_setting


@pytest.mark.filterwarnings("ignore:memory caches nothing")
def test_a_hook_taken_away_is_noticed():
    model, images = tiny().eval(), torch.rand(1, 3, 40, 48)
    model.memory = fs.FeatureMemory(2**30)
    before = model.encode_query(images).high
    handle = model.backbone.last.register_forward_hook(lambda module, inputs, output: output + 1)
    assert_close(model.encode_query(images).high, before + 1)
    handle.remove()
    assert_close(model.encode_query(images).high, before)


@pytest.mark.filterwarnings("ignore:memory caches nothing")
def test_hooks_run_at_every_call():
    model, images, calls = tiny().eval(), torch.rand(1, 3, 40, 48), []
    model.memory = fs.FeatureMemory(2**30)
    model.backbone.last.register_forward_hook(lambda *_: calls.append(1))
    for count in (1, 2, 3):
        model.encode_query(images)
        assert len(calls) == count


def test_features_under_autocast_are_kept_apart():
    model, images = tiny().eval(), torch.rand(1, 3, 40, 48)
    expected = model.encode_query(images).high
    model.memory = fs.FeatureMemory(2**30)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = model.encode_query(images).high
    assert not torch.allclose(rough.float(), expected, rtol=1e-4, atol=1e-5)
    assert_close(model.encode_query(images).high, expected)


@pytest.mark.parametrize("fused", [False, True])
def test_an_empty_batch_stays_empty(fused):
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,)).eval()
    if fused:
        model.fuse()
    images, masks = torch.rand(0, 1, 3, 40, 48), torch.zeros(0, 1, 40, 48).long()
    for memory in (None, fs.FeatureMemory(2**20)):
        model.memory = memory
        assert model(images, masks, images[:, 0]).logits.shape == (0, 2, 40, 48)


@pytest.mark.parametrize("remembers", [False, True])
def test_norms_that_use_the_batch_see_the_whole_batch(remembers):
    torch.manual_seed(0)
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,)).eval()
    for norm in model.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean = norm.running_var = None
    images, masks = torch.rand(2, 1, 3, 65, 65), torch.zeros(2, 1, 65, 65).long()
    masks[..., 20:40, 20:40] = 1
    expected = model.encode_support(images, masks).prototype, model.encode_query(images[:, 0]).features
    model.fuse().memory = fs.FeatureMemory(2**28) if remembers else None
    assert_close(model.encode_support(images, masks).prototype, expected[0])
    assert_close(model.encode_query(images[:, 0]).features, expected[1])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of PyTorch, for quantized tensors
def test_layers_that_are_quantized_by_their_inputs_see_the_whole_batch():
    network = nn.Sequential(nn.Linear(3, 4))
    assert treats_images_alone(network)
    network[0] = torch.ao.nn.quantized.dynamic.Linear(3, 4)
    assert not treats_images_alone(network)


def test_a_compiled_model_runs_without_it():
    model = tiny().eval()
    arguments = batch()[:3]
    expected = model(*arguments).logits
    model.memory = fs.FeatureMemory(2**30)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(*arguments).logits, expected, rtol=1e-4, atol=1e-5)


def test_what_dropout_or_norms_draw_is_not_remembered():
    model, images = tiny().eval(), torch.rand(2, 3, 40, 48)
    model.memory = fs.FeatureMemory(2**30)
    model.backbone.deep[1].train()
    for count in (1, 2):
        model.encode_query(images)
        assert model.backbone.deep[1].num_batches_tracked == count


def test_fused_models_remember_too(monkeypatch):
    torch.manual_seed(0)
    model = fs.build_scnet("tiny", hidden_channels=8, bins=(1.0, 0.5)).eval()
    support, support_masks, query, _ = batch()
    expected = model(support, support_masks, query).logits
    model.fuse().memory = fs.FeatureMemory(2**30)
    seen = count_runs(model, monkeypatch)
    for _ in range(3):
        assert_close(model(support, support_masks, query).logits, expected, atol=1e-5, rtol=1e-4)
    assert seen == [1] * 6


def test_a_copy_remembers_nothing_but_its_settings():
    memory = fs.FeatureMemory(1000, dtype=torch.float16)
    memory("mid", lambda maps: (maps,), torch.rand(1, 2, 3, 3))
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        (maps,) = other("mid", lambda maps: (2 * maps,), torch.ones(1, 2, 3, 3))
        assert_close(maps, torch.full((1, 2, 3, 3), 2.0))
        assert other._kept.limit == 1000
        assert other._dtype == torch.float16


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"max_bytes": -1}, ValueError, "max_bytes"),
        ({"max_bytes": None}, TypeError, "max_bytes"),
        ({"max_bytes": "1GB"}, TypeError, "max_bytes"),
        ({"max_bytes": math.nan}, TypeError, "max_bytes"),
        ({"max_bytes": True}, TypeError, "max_bytes"),
        ({"max_bytes": 10, "dtype": torch.int8}, TypeError, "dtype"),
        ({"max_bytes": 10, "dtype": "float16"}, TypeError, "dtype"),
        ({"max_bytes": 10, "dtype": torch.complex64}, TypeError, "dtype"),
    ],
)
def test_settings_are_refused_where_they_are_given(arguments, error, name):
    with pytest.raises(error, match=f"{name} must be"):
        fs.FeatureMemory(**arguments)


def test_threads_keep_the_bound():
    kept = LeastRecentlyUsed(10 * 4)

    def work(thread):
        draw = random.Random(thread)
        for _ in range(3000):
            key = draw.randrange(20)
            assert kept.get(key, lambda key=key: (torch.full((1,), float(key)),))[0] == key

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert kept._size == 4 * len(kept._kept) <= 40


def test_what_is_kept_anew_takes_the_place_of_the_old():
    kept = LeastRecentlyUsed(12)
    for value in (1.0, 2.0, 3.0):
        kept.put("a", (torch.tensor([value]),))
    assert kept._size == 4
    assert kept.get("a", lambda: None)[0] == 3


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_grows_by_what_is_kept():
    """Between features that are kept, others come and go: holes in the heap must not take as much again."""
    program = """
import torch, fewshotseg
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
memory = fewshotseg.FeatureMemory(100 * 2**20, dtype=torch.float16)
before = resident()
for number in range(150):
    memory("mid", lambda image: (torch.rand(1, 256, 64, 64),), torch.full((1, 3, 8, 8), float(number)))
print(resident() - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 100 <= grown < 160  # 100 are kept, 6 are at work
