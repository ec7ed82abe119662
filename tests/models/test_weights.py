"""Weights for a model that exists: any common file is read, and a refused one leaves every bit as it was."""

import os
import warnings
import zipfile
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import fewshotseg as fs
from _files import copied, damaged, equal_states, is_untouched, refusal, same, snapshot
from _models import TinyBackbone, tiny
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fitting import load_checked
from fewshotseg.models.weights import load_backbone_weights


def built(seed=0, **settings):
    torch.manual_seed(seed)
    return fs.build_scnet("tiny", **{"hidden_channels": 4, "bins": (1.0, 0.5), **settings})


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def read_again(content, tmp_path, **settings):
    """Whether a model with other weights has those of ``built()`` after it loaded the file."""
    torch.save(content, tmp_path / "weights.pth", **settings)
    other = built(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fs.load_weights(other, tmp_path / "weights.pth")
    return equal_states(other.state_dict(), built().state_dict())


# What is read


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.module."]


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module." * 3]
)
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net"])
def test_names_and_places_of_state_dicts(prefix, key, tmp_path):
    state = prefixed(built().state_dict(), prefix)
    assert read_again(state if key is None else {key: state, "epoch": 3}, tmp_path)


def test_averaged_and_data_parallel_and_compiled_models(tmp_path):
    model = built()
    assert read_again(AveragedModel(model).state_dict(), tmp_path)
    assert read_again(AveragedModel(torch.compile(model)).state_dict(), tmp_path)
    assert read_again(nn.DataParallel(model).state_dict(), tmp_path)
    assert read_again(torch.compile(model).state_dict(), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: nn.Parameter(value) if value.is_floating_point() else value,
        lambda value: value.double() if value.is_floating_point() else value,
        lambda value: torch.cat([value[None], value[None]])[0],
        lambda value: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value,
        lambda value: value.int() if not value.is_floating_point() else value,
    ],
    ids=["parameters", "float64", "views", "channels last", "int32"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_equal_weights_of_other_kinds(change, zipped, tmp_path):
    state = {key: change(value) for key, value in built().state_dict().items()}
    assert read_again(state, tmp_path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_shorter_numbers_are_taken_as_they_are(dtype, tmp_path):
    state = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in built().state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pth")
    other = built(seed=1)
    fs.load_weights(other, tmp_path / "weights.pth")
    assert all(same(value, state[key].to(value.dtype)) for key, value in other.state_dict().items())


@pytest.mark.parametrize("name", ["model.pth", "model", "weights.pth", "weights", "weights.safetensors"])
def test_what_is_saved_is_read(name, tmp_path):
    (fs.save_model if name.startswith("model") else fs.save_weights)(built(), tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        other = built(seed=1)
        before = {key: id(value) for key, value in other.state_dict(keep_vars=True).items()}
        fs.load_weights(other, path)
        assert equal_states(other.state_dict(), built().state_dict())
        assert {key: id(value) for key, value in other.state_dict(keep_vars=True).items()} == before


def test_weights_of_an_scnet_are_the_one_format(tmp_path):
    fs.save_weights(built(), tmp_path / "model.pth")
    assert equal_states(fs.load_model(tmp_path / "model.pth").state_dict(), built().state_dict())
    fs.save_weights(nn.Linear(2, 2), tmp_path / "linear.pth")
    assert [*torch.load(tmp_path / "linear.pth")] == ["weight", "bias"]


def test_a_file_without_the_backbone_needs_the_same_one(tmp_path):
    fs.save_model(built(), tmp_path / "small.pth", with_backbone=False)
    other = built(seed=1)
    before = snapshot(other)
    assert "must have the weights that" in refusal(lambda: fs.load_weights(other, tmp_path / "small.pth"), "small.pth")
    assert is_untouched(other, before)
    other.backbone.load_state_dict(built().backbone.state_dict())
    fs.load_weights(other, tmp_path / "small.pth")
    assert equal_states(other.state_dict(), built().state_dict())


@pytest.mark.parametrize("settings", [{"threshold": 0.3}, {"num_prototypes": 5}, {"reducer_dropout": 0.0}], ids=str)
def test_settings_that_do_not_change_what_weights_mean_may_differ(settings, tmp_path):
    fs.save_model(built(**settings), tmp_path / "model.pth")
    other = built(seed=1)
    fs.load_weights(other, tmp_path / "model.pth")
    assert equal_states(other.state_dict(), built().state_dict())
    assert other.config == built().config


def test_scales_of_equal_shapes_are_told_apart(tmp_path):
    fs.save_model(built(bins=(1.0, 0.25)), tmp_path / "model.pth")
    message = refusal(lambda: fs.load_weights(built(), tmp_path / "model.pth"), "model.pth")
    assert message == f"{tmp_path / 'model.pth'} must be of a model with bins=(1.0, 0.5), got bins=(1.0, 0.25)"
    fs.save_model(built(hidden_channels=8), tmp_path / "model.pth")
    assert "hidden_channels=8" in refusal(lambda: fs.load_weights(built(), tmp_path / "model.pth"), "model.pth")
    torch.manual_seed(0)
    resnet = fs.build_scnet("resnet50", hidden_channels=4, bins=(1.0, 0.5))
    fs.save_model(resnet, tmp_path / "model.pth")
    assert "backbone='resnet50'" in refusal(lambda: fs.load_weights(built(), tmp_path / "model.pth"), "model.pth")


def test_a_backbone_of_ones_own_is_not_compared_by_name(tmp_path):
    fs.save_model(tiny(), tmp_path / "model.pth")
    other = tiny(seed=1)
    fs.load_weights(other, tmp_path / "model.pth")
    assert equal_states(other.state_dict(), tiny().state_dict())


def test_a_backbone_without_a_name_takes_and_gives_weights(tmp_path):
    named = built()
    unnamed = fs.SCNet(make_backbone("tiny"), replace(named.config, backbone=None))
    for model, other in ((named, unnamed), (unnamed, built(seed=1))):
        fs.save_model(model, tmp_path / "model.pth")
        fs.load_weights(other, tmp_path / "model.pth")
        assert equal_states(other.state_dict(), model.state_dict())


def test_not_strict_takes_what_fits(tmp_path):
    weight = torch.ones(4, 8, 1, 1)
    torch.save({"head.fuse.0.weight": weight, "other": torch.zeros(1)}, tmp_path / "part.pth")
    model = built()
    others = copied(model)
    fs.load_weights(model, tmp_path / "part.pth", strict=False)
    assert torch.equal(model.head.fuse[0].weight, weight)
    del others["head.fuse.0.weight"]
    assert all(same(model.state_dict()[key], value) for key, value in others.items())
    torch.save({"head.fuse.0.weight": torch.ones(3)}, tmp_path / "part.pth")
    assert "another shape" in refusal(lambda: fs.load_weights(model, tmp_path / "part.pth", strict=False), "part.pth")


@pytest.mark.parametrize("strict", [True, False])
def test_a_file_of_something_else_is_refused_even_if_not_strict(strict, tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    message = refusal(lambda: fs.load_weights(built(), tmp_path / "other.pth", strict=strict), "other.pth")
    assert "has none of its entries" in message
    assert "it has 'other'" in message


def test_a_model_with_a_compiled_part_is_read_into(tmp_path):
    model = built()
    fs.save_weights(model, tmp_path / "plain.pth")
    other = built()
    other.backbone, other.head = torch.compile(other.backbone), torch.compile(other.head)
    with torch.no_grad():
        other.head._orig_mod.fuse[0].weight.zero_()
    fs.load_weights(other, tmp_path / "plain.pth")
    assert torch.equal(other.head._orig_mod.fuse[0].weight, model.head.fuse[0].weight)


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet50", "timm/resnet18"])
def test_weights_of_before_norms_had_counters(name, tmp_path):
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="needs the extra timm")
    source = fs.build_backbone(name)
    old = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(source.state_dict())
    backbone = fs.build_backbone(name, backbone_weights=old)
    assert all(same(backbone.state_dict()[key], value) for key, value in old.items())
    model = built()
    torch.save(
        {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}, tmp_path / "a.pth"
    )
    fs.load_weights(built(), tmp_path / "a.pth")


# What is refused


def quantized(value):
    return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.quint8)


TENSORS = {
    "sparse": lambda value: value.to_sparse(),
    "sparse rows": lambda value: value.flatten(1).to_sparse_csr(),
    "meta": lambda value: value.to("meta"),
    "quantized": quantized,
    "complex": lambda value: value.to(torch.complex64),
    "integers": lambda value: value.long(),
    "bools": lambda value: value > 0,
    "NaN": lambda value: value * torch.nan,
    "infinity": lambda value: value * torch.inf,
    "one NaN": lambda value: value.flatten().index_fill(0, torch.tensor([3]), torch.nan).view_as(value),
    "too large": lambda value: value.double() + 1e300,
    "nested": lambda value: torch.nested.nested_tensor([value[0], value[1]]),
    "another shape": lambda value: value[..., 0],
    "no values": lambda value: value[:0],
    "a number": lambda value: 3,
    "a list": lambda value: value.tolist(),
    "None": lambda value: None,
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("key", ["head.classifier.3.weight", "backbone.stem.0.0.weight"])
@pytest.mark.parametrize("strict", [True, False])
def test_tensors_that_are_no_weights_are_refused(kind, key, strict, tmp_path):
    state = {name: value + 1 for name, value in built().state_dict().items()}
    model = built()
    before = snapshot(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of tensors that torch has not finished
        state[key] = TENSORS[kind](state[key])
        torch.save(state, tmp_path / "bad.pth")
        error = None
        try:
            fs.load_weights(model, tmp_path / "bad.pth", strict=strict)
        except ValueError as refused:
            error = str(refused)
    assert error is not None
    assert "bad.pth" in error
    assert len(error) < 600
    assert "\n" not in error
    assert is_untouched(model, before)


class Other:
    """Something that is not a tensor."""


CONTENTS = {
    "a list": [torch.zeros(3)],
    "a tensor": torch.zeros(3),
    "nothing": None,
    "a number": 3,
    "an empty dict": {},
    "numbers": {"epoch": 3},
    "names that are numbers": {3: torch.zeros(3)},
    "foreign names": {"encoder.weight": torch.zeros(3)},
    "long and coloured names": {"\x1b[31m\n" + "x" * 5000: torch.zeros(3), "\n" * 300: 3},
    "coloured names": {"\x1b[31m\n" + "x" * 5000: torch.zeros(3)},
    "an object": {"state_dict": {}, "args": Other()},
    "an empty state dict": {"state_dict": {}},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_files_of_something_else_are_refused(name, tmp_path):
    torch.save(CONTENTS[name], tmp_path / "bad.pth")
    model = built()
    before = snapshot(model)
    assert refusal(lambda: fs.load_weights(model, tmp_path / "bad.pth"), "bad.pth")
    assert is_untouched(model, before)
    assert refusal(lambda: load_backbone_weights(model.backbone, tmp_path / "bad.pth"), "bad.pth")
    assert is_untouched(model, before)


def test_files_that_are_none_are_refused_and_nothing_waits(tmp_path):
    os.mkfifo(tmp_path / "fifo.pth")
    os.mkfifo(tmp_path / "fifo.safetensors")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint at all")
    (tmp_path / "noise.safetensors").write_bytes(b"123")
    (tmp_path / "folder.safetensors").mkdir()
    messages = {"fifo": "no regular file", "empty": "it is empty", "noise": "damaged", "folder": "it is a folder"}
    for file in sorted(tmp_path.iterdir()):
        assert messages[file.stem] in refusal(lambda file=file: fs.load_weights(built(), file), file)
    (tmp_path / "folder").mkdir()
    assert "it has no config.json" in refusal(lambda: fs.load_weights(built(), tmp_path / "folder"), "folder")
    for name in ("none.pth", "none.safetensors"):
        with pytest.raises(FileNotFoundError):
            fs.load_weights(built(), tmp_path / name)


def fits_by_names_alone():
    state = built().state_dict()
    return {key: torch.zeros(value.shape[::-1]) for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state | {"head.fuse.0.weight": torch.zeros(3)},
            r"head.fuse.0.weight: (4, 8, 1, 1) in the model",
        ),
        (lambda state: {k: v for k, v in state.items() if k != "head.fuse.0.weight"}, "lacks 'head.fuse.0.weight'"),
        (lambda state: state | {"more": torch.zeros(1)}, "0 entries are missing and 1 are unknown: it also has 'more'"),
        (lambda state: fits_by_names_alone(), "entries have another shape"),
    ],
)
def test_messages_name_the_entry(change, message, tmp_path):
    torch.save(change(built().state_dict()), tmp_path / "bad.pth")
    assert message in refusal(lambda: fs.load_weights(built(), tmp_path / "bad.pth"), "bad.pth")


@pytest.mark.parametrize("what", ["model", "state", "old state", "safetensors"])
def test_damage_leaves_the_model_as_it_was(what, tmp_path):
    good, path = built(hidden_channels=2, bins=(1.0,)), tmp_path / "good.pth"
    if what == "model":
        fs.save_model(good, path)
    elif what == "safetensors":
        path = tmp_path / "good.safetensors"
        fs.save_weights(good, path)
    else:
        torch.save(good.state_dict(), path, _use_new_zipfile_serialization=what == "state")
    bad = tmp_path / f"bad{path.suffix}"
    model, count = built(seed=1, hidden_channels=2, bins=(1.0,)), 200 if what == "model" else 60
    before = snapshot(model)
    for name, content in damaged(path, count) if what in ("model", "state") else []:
        bad.write_bytes(content)
        if refusal(lambda model=model: fs.load_weights(model, bad), bad):
            assert is_untouched(model, before), name
        else:
            changed = equal_states(model.state_dict(), good.state_dict())
            assert changed or (what == "state" and name == "zeros in place of a record"), name
            model = built(seed=1, hidden_channels=2, bins=(1.0,))
            before = snapshot(model)
    whole = path.read_bytes()
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        assert refusal(lambda: fs.load_weights(model, bad), bad)
        assert is_untouched(model, before)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    """A few kilobytes of it may hold any number of gigabytes."""
    torch.save({"weight": torch.zeros(2**22)}, tmp_path / "good.pth")
    bad = tmp_path / "bad.pth"
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as packed:
        for record in good.infolist():
            packed.writestr(record.filename, good.read(record))
    assert bad.stat().st_size < 100_000
    assert "damaged" in refusal(lambda: fs.load_weights(nn.Linear(2, 2), bad), bad)


class Writes:
    """Would leave a trace if it were executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_executed(zipped, tmp_path):
    writes = Writes(tmp_path / "trace")
    for content in (writes, built().state_dict() | {"more": writes}, {"state_dict": built().state_dict(), "x": writes}):
        torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
        message = refusal(lambda: fs.load_weights(built(), tmp_path / "bad.pth"), "bad.pth")
        assert "save the model's state_dict() alone" in message
        assert refusal(lambda: built(backbone_weights=tmp_path / "bad.pth"), "bad.pth")
        assert refusal(lambda: built(weights=tmp_path / "bad.pth"), "bad.pth")
    assert not (tmp_path / "trace").exists()


def test_models_that_cannot_be_written_are_refused(tmp_path):
    fs.save_model(built(), tmp_path / "model.pth")
    with torch.device("meta"):
        model = built()
    assert "on the meta device" in refusal(lambda: fs.load_weights(model, tmp_path / "model.pth"), "model.pth")
    with torch.inference_mode():
        model = built()
    assert "inference mode" in refusal(lambda: fs.load_weights(model, tmp_path / "model.pth"), "model.pth")


# Backbones alone


def test_a_backbones_own_names_are_taken_as_they_are(tmp_path):
    """Also such as wrappers and PFENet have."""

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.layer0, self.cls = TinyBackbone(), nn.Linear(1, 1), nn.Linear(1, 1)

    model, other = Wrapped(), Wrapped()
    load_backbone_weights(other, model.state_dict())
    assert equal_states(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_prefixes_of_a_backbones_names(prefix):
    backbone = built().backbone
    other = built(seed=1, backbone_weights=prefixed(backbone.state_dict(), prefix)).backbone
    assert equal_states(other.state_dict(), backbone.state_dict())


@pytest.mark.parametrize("value", [3, None, [1.0], "x", torch.zeros(2), torch.zeros(2).to("meta")])
def test_backbone_weights_that_are_none_are_refused_and_leave_it_alone(value):
    backbone = make_backbone("tiny")
    before = snapshot(backbone)
    for key in ("stem.0.0.weight", "unknown", 3):
        weights = {**backbone.state_dict(), key: value}
        assert refusal(lambda weights=weights: load_backbone_weights(backbone, weights), "backbone_weights")
        assert is_untouched(backbone, before)


def test_names_that_are_no_weights_are_refused():
    for name in ("__doc__", "mro", "IMAGENET", "\x1b" * 3000):
        with pytest.raises(FileNotFoundError, match="must be a file or one of") as refused:
            fs.build_scnet("mobilenet_v2", backbone_weights=name)
        assert len(str(refused.value)) < 400
    with pytest.raises(TypeError, match=r"backbone_weights must be a name, a path.* got int"):
        built(backbone_weights=3)


def test_a_state_dict_of_another_module_is_refused_before_anything_changes():
    model, other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    before = snapshot(model)
    assert refusal(lambda: load_checked(model, other.state_dict(), "it", strict=True), "it")
    assert is_untouched(model, before)
