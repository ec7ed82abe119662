"""One format for a whole model: it comes back as it was, or is refused and changes nothing."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _files import damaged, equal_states, is_untouched, refusal, snapshot
from _lite import install, package_state
from _models import TinyBackbone
from fewshotseg.models import SCNetConfig, read_model, saved_model
from fewshotseg.models.backbones import make_backbone

ORIGIN = {"data": "none", "lr": [0.1, 1e-5], "nested": {"a": None, "ü": True}, "iteration": 0}


def timms(seed=0):
    torch.manual_seed(seed)
    return fs.TimmBackbone(timm.create_model("resnet18", features_only=True))


def own(seed=0):
    torch.manual_seed(seed)
    return TinyBackbone()


class Whole(nn.Module):
    """Gives both kinds of maps at once."""

    mid_channels = 12

    def __init__(self, seed=0):
        super().__init__()
        self.net = own(seed)

    def mid_and_high(self, images):
        deepest = self.net.mid(images)[0]
        return (deepest,), self.net.high(deepest)


def built(backbone="tiny", seed=0, **settings):
    torch.manual_seed(seed)
    return fs.build_scnet(backbone, **{"hidden_channels": 4, "bins": (1.0, 0.5), **settings}).eval()


def answer(model):
    generator = torch.Generator().manual_seed(1)
    support, query = torch.rand(2, 1, 3, 64, 64, generator=generator)
    mask = (torch.rand(1, 1, 64, 64, generator=generator) < 0.3).long()
    with torch.no_grad():
        return model(support[None], mask, query).logits


# What goes in comes out


BACKBONES = {
    "resnet50": ("resnet50", None),
    "mobilenet_v2": ("mobilenet_v2", None),
    "efficientnet_lite0": ("efficientnet_lite0", None),
    "vgg16_bn": ("vgg16_bn", None),
    "tiny": ("tiny", None),
    "timm by name": ("timm/resnet18", None),
    "a transformer of timm": ("timm/vit_tiny_patch16_224", None),
    "timm, handed over": (timms, timms),
    "of one's own": (own, own),
    "of one's own, not to be cut": (Whole, Whole),
}


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("case", BACKBONES)
def test_a_model_comes_back_as_it_was(case, kind, tmp_path):
    backbone, again = BACKBONES[case]
    model = built(backbone if isinstance(backbone, str) else backbone())
    path = tmp_path / ("model.pth" if kind == "file" else "model")
    fs.save_model(model, path, origin=ORIGIN)
    found = fs.load_model(path, backbone=again and again(seed=5))
    assert found.config == model.config
    assert equal_states(found.state_dict(), model.state_dict())
    assert torch.equal(answer(found), answer(model))
    assert not any(part.training for part in found.modules())
    assert [name for name, p in found.named_parameters() if p.requires_grad] == [
        name for name, p in model.named_parameters() if p.requires_grad
    ]
    assert read_model(path).origin == ORIGIN
    assert read_model(path).training is None
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_compiled_backbone_is_saved_as_the_backbone_that_it_is(tmp_path):
    model = built("tiny")
    expected = answer(model)
    model.backbone = torch.compile(model.backbone)
    fs.save_model(model, tmp_path / "model.pth")
    assert torch.equal(answer(fs.load_model(tmp_path / "model.pth")), expected)
    found = fs.load_model(tmp_path / "model.pth", backbone=torch.compile(fs.build_backbone("tiny")))
    assert equal_states(found.backbone.state_dict(), model.backbone.state_dict())


def test_a_model_of_float64_comes_back_in_float64(tmp_path):
    model = built("tiny").double()
    with torch.no_grad():
        model.reduce_query[0].weight.add_(1e-12)
    fs.save_model(model, tmp_path / "model.pth")
    assert equal_states(fs.load_model(tmp_path / "model.pth").state_dict(), model.state_dict())


SETTINGS = {
    "threshold": 0.35,
    "presence": (0.5, -2.0),
    "image_size": 97,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.9, 0.8, 0.7),
    "reducer_dropout": 0.0,
    "classifier_dropout": 0.25,
    "hidden_channels": 6,
    "bins": (9, 1.0, 0.125),
    "num_prototypes": 1,
    "kmeans_iters": 4,
    "self_contrast_weight": 0.25,
    "aux_weight": 0.0,
    "norm_stats": "batch",
    "background_source": "support",
    "background_reducer": "support",
    "background_prior": "complement",
}


def test_every_setting_comes_back_and_works(tmp_path):
    fs.save_model(built(**SETTINGS), tmp_path / "model.pth")
    found = fs.load_model(tmp_path / "model.pth")
    assert {name: getattr(found.config, name) for name in SETTINGS} == SETTINGS
    assert {part.p for part in found.modules() if isinstance(part, nn.Dropout2d)} == {0.0, 0.25}
    predictor = fs.FewShotPredictor(found)
    assert predictor.size == 97
    fs.save_model(built(grid_bins=3), tmp_path / "model.pth")
    assert fs.load_model(tmp_path / "model.pth").self_contrast.partition.num_regions == 9


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_of_before_a_setting_existed_is_read(kind, tmp_path, monkeypatch):
    settings = SCNetConfig.to_dict

    def without_presence(self):
        return {name: value for name, value in settings(self).items() if name != "presence"}

    monkeypatch.setattr(SCNetConfig, "to_dict", without_presence)
    path = tmp_path / ("model.pth" if kind == "file" else "model")
    fs.save_model(built("mobilenet_v2"), path)
    monkeypatch.undo()
    content = json.loads((path / "config.json").read_text()) if kind == "folder" else torch.load(path)
    assert "presence" not in content["config"]
    found = fs.load_model(path)
    assert found.config.presence == (1.0, 0.0)
    fs.save_model(found, path)
    assert torch.equal(answer(fs.load_model(path)), answer(built("mobilenet_v2")))


def test_numbers_of_numpy_are_saved_as_pythons(tmp_path):
    fs.save_model(built(threshold=np.float64(0.3), hidden_channels=np.int64(4)), tmp_path / "model.pth")
    assert fs.load_model(tmp_path / "model.pth").config.threshold == 0.3


def test_another_process_needs_nothing_but_the_file(tmp_path):
    model = built("mobilenet_v2")
    fs.save_model(model, tmp_path / "model.pth")
    # Noise, not a ramp: features that hardly vary let the prior's range amplify the last bits of another thread count.
    images, out = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)), tmp_path / "out.pth"
    mask = torch.ones(1, 1, 64, 64).long()
    torch.save((images, mask), tmp_path / "inputs.pth")
    program = (
        "import sys, torch, fewshotseg as fs; model = fs.load_model(sys.argv[1] + '/model.pth');"
        "images, mask = torch.load(sys.argv[1] + '/inputs.pth');"
        "torch.save(model(images[:1, None], mask, images[1:]).logits.detach(), sys.argv[1] + '/out.pth')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True, timeout=300)
    with torch.no_grad():
        expected = model(images[:1, None], mask, images[1:]).logits
    assert_close(torch.load(out), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["model.pth", "model"])
def test_reading_draws_nothing_and_changes_nothing_global(kind, tmp_path):
    fs.save_model(built("mobilenet_v2"), tmp_path / kind)
    states = torch.get_rng_state(), random.getstate()
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float32)
    try:
        found = fs.load_model(tmp_path / kind)
        assert torch.get_default_device().type == "meta"
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_default_device(None)
    assert {value.device.type for value in found.state_dict().values()} == {"cpu"}
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_half_precision_changes_next_to_nothing(tmp_path):
    model = built()
    fs.save_model(model, tmp_path / "half.pth", dtype=torch.float16)
    fs.save_model(model, tmp_path / "whole.pth")
    found = fs.load_model(tmp_path / "half.pth")
    assert {value.dtype for value in found.state_dict().values()} == {torch.float32, torch.int64}
    assert not torch.equal(answer(found), answer(model))
    assert_close(answer(found), answer(model), atol=2e-3, rtol=0)
    assert (tmp_path / "half.pth").stat().st_size < (tmp_path / "whole.pth").stat().st_size
    assert equal_states(found.backbone.state_dict(), model.backbone.state_dict())


def test_what_it_takes_to_go_on_training_is_kept(tmp_path):
    training = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "iteration": 3, "best": math.inf}
    fs.save_model(built(), tmp_path / "model.pth", training=training)
    assert read_model(tmp_path / "model.pth").training == training
    assert equal_states(fs.load_model(tmp_path / "model.pth").state_dict(), built().state_dict())
    with pytest.raises(ValueError, match=r"path must end in \.pth or \.pt, or be a folder if no training"):
        fs.save_model(built(), tmp_path / "model", training=training)


def test_the_file_holds_plain_tensors_and_values(tmp_path):
    fs.save_model(built(), tmp_path / "model.pth", origin=ORIGIN)
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content.keys() == saved_model.ENTRIES
    assert json.loads(json.dumps(content["config"])) == content["config"]
    assert not any(key.startswith("backbone") for key in content["head"])


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    fs.save_model(built(), path)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"."):
        fs.save_model(built(), path, training={"x": lambda: None})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pth"]
    fs.save_model(built(seed=3), path)
    assert equal_states(fs.load_model(path).state_dict(), built(seed=3).state_dict())


def test_a_folder_that_was_replaced_in_half_is_refused(tmp_path):
    fs.save_model(built(), tmp_path / "one")
    fs.save_model(built(seed=2), tmp_path / "two")
    (tmp_path / "one/config.json").write_bytes((tmp_path / "two/config.json").read_bytes())
    assert "damaged" in refusal(lambda: fs.load_model(tmp_path / "one"), tmp_path / "one")


# Backbones that are not in the file


def test_a_backbone_may_stay_outside(tmp_path):
    model = built("mobilenet_v2")
    fs.save_model(model, tmp_path / "small.pth", with_backbone=False)
    fs.save_model(model, tmp_path / "small", with_backbone=False)
    assert (tmp_path / "small.pth").stat().st_size < 200_000
    for path in (tmp_path / "small.pth", tmp_path / "small"):
        found = fs.load_model(path, backbone=built("mobilenet_v2").backbone)
        assert torch.equal(answer(found), answer(model))
        message = refusal(lambda path=path: fs.load_model(path), path)
        assert message.startswith("backbone must be given to load")
        other = built("mobilenet_v2", seed=1).backbone
        before = snapshot(other)
        message = refusal(lambda path=path, other=other: fs.load_model(path, backbone=other), path)
        assert message == f"'mobilenet_v2' must have the weights that {path} was trained with, got others"
        assert is_untouched(other, before)


def test_an_installed_backbone_is_found_by_its_digest(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path)
    model = fs.build_scnet("efficientnet_lite0", backbone_weights=package_state(), hidden_channels=4).eval()
    fs.save_model(model, tmp_path / "model.pth", with_backbone=False)
    assert torch.equal(answer(fs.load_model(tmp_path / "model.pth")), answer(model))
    state = package_state()
    state["_conv_head.weight"][0, 0] += 1
    install(monkeypatch, tmp_path, state)
    message = refusal(lambda: fs.load_model(tmp_path / "model.pth"), "model.pth")
    assert message.startswith("'efficientnet_lite0' must have the weights that")


def test_a_backbone_of_ones_own_has_to_be_handed_over(tmp_path):
    fs.save_model(built(own()), tmp_path / "model.pth")
    message = refusal(lambda: fs.load_model(tmp_path / "model.pth"), "model.pth")
    assert message.startswith("backbone must be given to load")
    for wrong in (3, "tiny", nn.ReLU()):
        with pytest.raises(TypeError, match="backbone must"):
            fs.load_model(tmp_path / "model.pth", backbone=wrong)


class Weightless(nn.Module):
    mid_channels = 3

    def mid(self, images):
        return (images[:, :, ::8, ::8],)

    def high(self, deepest):
        return deepest


@pytest.mark.parametrize("kind", ["model.pth", "model"])
def test_a_backbone_without_weights(kind, tmp_path):
    model = built(Weightless())
    fs.save_model(model, tmp_path / kind)
    assert torch.equal(answer(fs.load_model(tmp_path / kind, backbone=Weightless())), answer(model))


def wider():
    backbone = own()
    backbone.last = nn.Conv2d(12, 24, 3, padding=1)
    return backbone


def with_more():
    backbone = own()
    backbone.more = nn.Linear(1, 1)
    return backbone


@pytest.mark.parametrize("other", [wider, with_more, timms, lambda: make_backbone("tiny")])
def test_a_backbone_that_does_not_fit_is_refused_and_stays_as_it_was(other, tmp_path):
    fs.save_model(built(own()), tmp_path / "model.pth")
    backbone = other().train()
    before = snapshot(backbone)
    assert "must fit the model" in refusal(
        lambda: fs.load_model(tmp_path / "model.pth", backbone=backbone), "model.pth"
    )
    assert is_untouched(backbone, before)


def test_a_backbone_handed_over_gets_the_weights_of_the_file_and_is_frozen(tmp_path):
    fs.save_model(built(own()), tmp_path / "model.pth")
    backbone = own(seed=3).train()
    found = fs.load_model(tmp_path / "model.pth", backbone=backbone)
    assert found.backbone is backbone
    assert equal_states(backbone.state_dict(), own().state_dict())
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


# What cannot be saved


@pytest.mark.parametrize(("value", "dtype"), [(1e6, torch.float16), (math.nan, None), (math.inf, torch.float32)])
def test_weights_that_the_file_cannot_hold_are_refused(value, dtype, tmp_path):
    model = built()
    with torch.no_grad():
        model.head.fuse[0].weight[0, 0] = value
    with pytest.raises(ValueError, match=r"model must hold weights .* but head\.fuse\.0\.weight holds"):
        fs.save_model(model, tmp_path / "model.pth", dtype=dtype)
    assert not any(tmp_path.iterdir())


def with_extra_state():
    backbone = own()
    backbone.__class__ = type("Extra", (TinyBackbone,), {"get_extra_state": lambda self: 3, "set_extra_state": id})
    return built(backbone)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"origin": {"x": torch.zeros(1)}}, ValueError, "origin must hold"),
        ({"origin": {"x": math.nan}}, ValueError, "origin must hold"),
        ({"origin": {("a", "b"): 1}}, ValueError, "origin must hold"),
        ({"dtype": torch.int8}, TypeError, "dtype must be"),
        ({"dtype": "float16"}, TypeError, "dtype must be"),
        ({"path": "model.ckpt"}, ValueError, "path must end in"),
        ({"path": "model.safetensors"}, ValueError, "path must end in"),
        ({"model": nn.ReLU()}, TypeError, "model must be an SCNet or a PrototypeSegmenter, got ReLU"),
        ({"model": 3}, TypeError, "model must be an SCNet or a PrototypeSegmenter, got int"),
        ({"model": with_extra_state}, ValueError, "model must hold weights that a model can have, but"),
    ],
)
def test_what_cannot_be_saved_is_refused(arguments, error, message, tmp_path):
    arguments = {"model": built, "path": "model.pth", **arguments}
    model, path = arguments.pop("model"), tmp_path / arguments.pop("path")
    with pytest.raises(error, match=message):
        fs.save_model(model() if callable(model) and not isinstance(model, nn.Module) else model, path, **arguments)
    assert not any(tmp_path.iterdir())


def test_views_and_shared_weights_are_written_as_they_read(tmp_path):
    model = built()
    with torch.no_grad():
        model.backbone.last[1].weight = nn.Parameter(torch.ones(1).expand(128), requires_grad=False)
        model.head.refine[1] = model.head.refine[0]
        model.reduce_query[0].weight = nn.Parameter(torch.rand(10_000)[: 4 * 160].view(4, 160, 1, 1))
    fs.save_model(model, tmp_path / "model.pth")
    assert equal_states(fs.load_model(tmp_path / "model.pth").state_dict(), model.state_dict())


# Files that are something else


class Code:
    """Would leave a trace if it were executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def content_of(model, tmp_path):
    fs.save_model(model, tmp_path / "good.pth", origin=ORIGIN)
    return torch.load(tmp_path / "good.pth", weights_only=True)


VALUES = [
    None,
    3,
    -1,
    10**400,
    math.nan,
    True,
    "",
    "x" * 5000,
    "\x1b[31m\nred",
    [],
    [1],
    {},
    {"a": 1},
    {3: 4},
    {"a": torch.zeros(2)},
    torch.zeros(3),
    torch.zeros(()),
    (torch.float16,),
]


@pytest.mark.parametrize("entry", sorted(saved_model.ENTRIES))
def test_entries_of_wrong_values_are_refused(entry, tmp_path):
    good, path = content_of(built(), tmp_path), tmp_path / "bad.pth"
    expected = built().state_dict()
    for value in VALUES:
        torch.save({**good, entry: value}, path)
        kept = entry == "training" and (value is None or isinstance(value, dict))
        for read in (fs.load_model, fs.FewShotPredictor.from_pretrained):
            assert (refusal(lambda read=read: read(path), path) is None) == kept, (entry, value)
        model = built(seed=2)
        before = snapshot(model)
        said = refusal(lambda model=model: fs.load_weights(model, path), path)
        assert said is None or is_untouched(model, before)
        assert said is not None or equal_states(model.state_dict(), expected)
    missing = dict(good)
    del missing[entry]
    for content in (missing, {**good, "\x1b[31m\n" + "x" * 5000: 1}, {**good, 3: 1}):
        torch.save(content, path)
        assert refusal(lambda: fs.load_model(path), path)


@pytest.mark.parametrize("name", sorted(fs.SCNetConfig().to_dict()))
def test_settings_of_wrong_values_are_refused(name, tmp_path):
    good, path = content_of(built(), tmp_path), tmp_path / "bad.pth"
    for value in [*VALUES, "vit", -(10**5000), [math.nan] * 3, [1.0, 0.5, 0.25]]:
        torch.save({**good, "config": {**good["config"], name: value}}, path)
        same = type(value) is type(good["config"][name]) and value == good["config"][name]
        assert (refusal(lambda: fs.load_model(path), path) is None) == same, (name, value)
    torch.save({**good, "config": {**good["config"], f"{name[:-1]}\n\x1b": 1}}, path)
    assert refusal(lambda: fs.load_model(path), path)


def signed(good, path, **config):
    """With the digest that belongs to other settings."""
    config = fs.SCNetConfig.from_dict({**good["config"], **config})
    saved = saved_model.SavedModel(config, good["head"], good["backbone"], good["backbone_digest"], good["origin"])
    torch.save(saved_model.content_of(saved), path)


@pytest.mark.parametrize("name", ["hidden_channels", "bins"])
@pytest.mark.parametrize("value", [5, 10**4])
def test_weights_of_other_settings_are_refused(name, value, tmp_path):
    good, path = content_of(built(), tmp_path), tmp_path / "bad.pth"
    signed(good, path, **{name: (0.5,) * (value % 30) if name == "bins" else value})
    assert "must fit the model" in refusal(lambda: fs.load_model(path), path)


def test_a_claim_of_gigabytes_is_refused_without_memory(tmp_path):
    good = content_of(built(), tmp_path)
    signed(good, tmp_path / "0.pth", hidden_channels=10**4)
    signed(good, tmp_path / "1.pth", hidden_channels=2**16, bins=(0.5,) * 32)
    for number, channels in enumerate((10**6, 10**9, 10**30), start=2):
        torch.save({**good, "config": {**good["config"], "hidden_channels": channels}}, tmp_path / f"{number}.pth")
    good["head"]["head.fuse.0.weight"] = torch.zeros(1).expand(4, 10**11)
    torch.save(good, tmp_path / "expanded.pth")
    program = (
        "import resource, sys, pathlib; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30));"
        "import fewshotseg as fs, warnings; warnings.simplefilter('ignore'); said = []\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.pth')):\n"
        "    for read in (fs.load_model, lambda path: fs.load_weights(model, path)):\n"
        "        model = fs.build_scnet('tiny', hidden_channels=4, bins=(1.0, 0.5))\n"
        "        try: read(path); said.append(path.name)\n"
        "        except ValueError as error: said.append('refused')\n"
        "assert said == ['refused'] * 12 + ['good.pth'] * 2, said"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=300)


def test_damage_is_found(tmp_path):
    model = built(hidden_channels=2, bins=(1.0,))
    fs.save_model(model, tmp_path / "good.pth", origin=ORIGIN)
    path, loaded = tmp_path / "bad.pth", 0
    readers = [fs.load_model, lambda path: fs.FewShotPredictor.from_pretrained(path).model]
    readers += [lambda path: fs.build_scnet("tiny", hidden_channels=2, bins=(1.0,), weights=path)]
    for number, (what, content) in enumerate(damaged(tmp_path / "good.pth", 200)):
        path.write_bytes(content)
        found = []
        read = readers[number % 3] if number >= 60 else fs.load_model
        if refusal(lambda read=read, found=found: found.append(read(path)), path) is None:
            assert equal_states(found[0].state_dict(), model.state_dict()), what
            assert found[0].config == model.config, what
            loaded += 1
    assert loaded < 40  # flips of what nobody reads, such as dates


def test_damage_of_a_folder_is_found(tmp_path):
    model = built(own(), hidden_channels=2, bins=(1.0,))
    folder = tmp_path / "bad"
    fs.save_model(model, folder, origin=ORIGIN)
    for name in ("config.json", "model.safetensors"):
        good = (folder / name).read_bytes()
        draw = random.Random(0)
        for number in range(150):
            content = bytearray(good)
            if number < 100:
                content[draw.randrange(min(len(good), 3000) if number % 2 else len(good))] ^= 1 << draw.randrange(8)
            else:
                content = content[: len(good) * (number - 100) // 50]
            (folder / name).write_bytes(content)
            found = []
            if refusal(lambda found=found: found.append(fs.load_model(folder, backbone=own(1))), "bad") is None:
                assert equal_states(found[0].state_dict(), model.state_dict())
                assert found[0].config == model.config
        (folder / name).write_bytes(b"[" * 100_000)
        assert refusal(lambda: fs.load_model(folder, backbone=own(1)), "bad")
        (folder / name).write_bytes(good)
    (folder / "config.json").unlink()
    assert "it has no config.json" in refusal(lambda: fs.load_model(folder), folder)


def test_code_is_never_executed(tmp_path):
    good, path, trace = content_of(built(), tmp_path), tmp_path / "bad.pth", tmp_path / "trace"
    for content in (
        Code(trace),
        {**good, "origin": Code(trace)},
        {**good, "training": {"a": Code(trace)}},
        [Code(trace)],
    ):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            for read in (fs.load_model, read_model, fs.FewShotPredictor.from_pretrained):
                assert "it holds an object of" in refusal(lambda read=read: read(path), path)
    assert not trace.exists()


def test_a_refused_file_leaves_a_backbone_handed_over_alone(tmp_path):
    fs.save_model(built(own(), hidden_channels=2, bins=(1.0,)), tmp_path / "good.pth")
    backbone = own(seed=4).train()
    before = snapshot(backbone)
    for number, (_, content) in enumerate(damaged(tmp_path / "good.pth", 30)):
        (tmp_path / "bad.pth").write_bytes(content)
        if refusal(lambda own=backbone: fs.load_model(tmp_path / "bad.pth", backbone=own), "bad.pth"):
            assert is_untouched(backbone, before), number
        else:
            backbone = own(seed=4).train()
            before = snapshot(backbone)


def test_other_files_are_refused(tmp_path):
    model = built()
    torch.save(model.state_dict(), tmp_path / "state.pth")
    (tmp_path / "text.pth").write_text("no model")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    for name, message in {
        "state.pth": "must be a model that save_model wrote; load_weights reads state dicts",
        "text.pth": "damaged",
        "empty.pth": "it is empty",
    }.items():
        assert message in refusal(lambda name=name: fs.load_model(tmp_path / name), name)
    assert "it has no config.json" in refusal(lambda: fs.load_model(tmp_path / "folder.pth"), "folder.pth")
    for name in ("none.pth", "none"):
        with pytest.raises(FileNotFoundError):
            fs.load_model(tmp_path / name)
