"""Models by name: in the package, in files and folders, and on the hub, by a stand-in for its client; no network."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

import fewshotseg as fs
from _files import equal_states
from _models import TinyBackbone, tiny
from fewshotseg.models import hub, list_pretrained, load_pretrained, push_to_hub, save_pretrained

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
errors = pytest.importorskip("huggingface_hub.errors")

ORIGIN = {"data": "none", "words": "ä|\n\u202e", "lr": [0.1]}


def built(seed=0, **settings):
    torch.manual_seed(seed)
    return fs.build_scnet("tiny", **{"hidden_channels": 4, "bins": (1.0, 0.5), **settings}).eval()


class Hub:
    """Keeps what is uploaded in a folder and serves it, as the client does."""

    def __init__(self, folder):
        self.folder, self.calls, self.error = folder, [], None

    def __call__(self, **settings):
        self.calls.append(("client", settings))
        return self

    def create_repo(self, name, **settings):
        self.calls.append(("create_repo", name, settings))
        if self.error:
            raise self.error
        (self.folder / name).mkdir(parents=True, exist_ok=settings["exist_ok"])

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload_folder", repo_id, commit_message))
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(self, name, *, allow_patterns):
        self.calls.append(("snapshot_download", name, allow_patterns))
        if self.error:
            raise self.error
        return str(self.folder / name)


@pytest.fixture
def server(monkeypatch, tmp_path):
    made = Hub(tmp_path / "server")
    monkeypatch.setattr(huggingface_hub, "HfApi", made)
    return made


# Files, folders and names of the package


def test_a_folder_holds_config_weights_and_a_card(tmp_path):
    model = built(threshold=0.35)
    save_pretrained(model, tmp_path / "made" / "model", origin=ORIGIN)
    folder = tmp_path / "made" / "model"
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["config"] == model.config.to_dict()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: fewshotseg\n")
    assert "| threshold | `0.35` |" in card
    assert '"lr": [' in card
    for path in (folder, str(folder)):
        found = load_pretrained(path)
        assert equal_states(found.state_dict(), model.state_dict())
        assert found.config == model.config
    (folder / "README.md").write_text("edited")
    save_pretrained(built(seed=1), folder)
    assert (folder / "README.md").read_text() == "edited"
    (folder / "README.md").unlink()
    save_pretrained(built(seed=1), folder)
    assert "Nothing was recorded." in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=r"folder must be a folder, got .*model\.pth; save_model writes single files"):
        save_pretrained(model, tmp_path / "model.pth")


def test_names_of_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "FOLDER", tmp_path)
    for number, name in enumerate(("b", "a")):
        fs.save_model(built(seed=number), tmp_path / f"{name}.pth")
    assert list_pretrained() == ["a", "b"]
    assert equal_states(load_pretrained("a").state_dict(), built(seed=1).state_dict())
    for name in ("other", "../heads/a", "a\0b", "x" * 5000, "\x1b[31m\n"):
        with pytest.raises(ValueError, match=r"name must be a file, .* or one of a, b, got") as refused:
            load_pretrained(name)
        assert len(str(refused.value)) < 400
        assert "\x1b" not in str(refused.value)
    for name in ("other.pth", tmp_path / "other.pth"):
        with pytest.raises(FileNotFoundError):
            load_pretrained(name)


def photo():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def answer(predictor):
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    predictor.set_support(photo(), mask)
    return predictor.predict(photo()).probability


class Staged(torch.nn.Module):
    """A model of another kind."""

    encode_support = merge_shots = encode_query = segment = None


def test_the_predictor_writes_what_it_reads_with_its_own_size(tmp_path):
    model = built(image_size=97)
    predictor = fs.FewShotPredictor(model, size=65)
    predictor.save_pretrained(tmp_path / "model", origin=ORIGIN)
    again = fs.FewShotPredictor.from_pretrained(tmp_path / "model")
    assert again.size == 65
    assert model.config.image_size == 97
    assert torch.equal(answer(again), answer(predictor))
    other = fs.FewShotPredictor.from_pretrained(str(tmp_path / "model"), size=97, device="cpu")
    assert torch.equal(answer(other), answer(fs.FewShotPredictor(model)))
    assert not torch.equal(answer(other), answer(again))
    with pytest.raises(ValueError, match="size must be at least 32"):
        fs.FewShotPredictor.from_pretrained(tmp_path / "model", size=0)
    with pytest.raises(ValueError, match="device must be"):
        fs.FewShotPredictor.from_pretrained(tmp_path / "model", device="cuda:99")
    with pytest.raises(TypeError, match="model must be an SCNet or a PrototypeSegmenter, got Staged"):
        fs.FewShotPredictor(Staged()).save_pretrained(tmp_path / "own")


# The hub


def test_what_is_pushed_comes_back(server):
    model = built()
    assert push_to_hub(model, "owner/name", private=True, origin=ORIGIN) == "https://hub/owner/name/commit/1"
    found = load_pretrained("owner/name")
    assert equal_states(found.state_dict(), model.state_dict())
    assert server.calls == [
        ("client", {"library_name": "fewshotseg"}),
        ("create_repo", "owner/name", {"private": True, "exist_ok": True}),
        ("upload_folder", "owner/name", "Upload model"),
        ("client", {"library_name": "fewshotseg"}),
        ("snapshot_download", "owner/name", ["config.json", "model.safetensors"]),
    ]
    assert 'from_pretrained("owner/name")' in (server.folder / "owner/name/README.md").read_text()
    push_to_hub(built(seed=1), "owner/name")
    assert equal_states(load_pretrained("owner/name").state_dict(), built(seed=1).state_dict())


def test_the_predictor_pushes_and_pulls(server):
    predictor = fs.FewShotPredictor(built(), size=65)
    assert predictor.push_to_hub("owner/name").startswith("https://")
    assert server.calls[1] == ("create_repo", "owner/name", {"private": False, "exist_ok": True})
    again = fs.FewShotPredictor.from_pretrained("owner/name")
    assert again.size == 65
    assert torch.equal(answer(again), answer(predictor))


def test_a_folder_of_that_name_goes_before_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_pretrained(built(), "owner/name")
    load_pretrained("owner/name")
    assert server.calls == []


@pytest.mark.parametrize(
    "error",
    [
        errors.LocalEntryNotFoundError("Cannot find it on the disk.\nTry again"),
        errors.OfflineModeIsEnabled("Cannot reach it: offline mode is enabled."),
        ConnectionError("\x1b[31mno route\x1b[0m to host\nsecond line"),
        RuntimeError("x" * 5000),
        OSError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_hub_refuses_is_said_in_a_sentence(error, server):
    server.error = error
    for call in (
        lambda: load_pretrained("owner/name"),
        lambda: fs.FewShotPredictor.from_pretrained("owner/name"),
        lambda: push_to_hub(built(), "owner/name"),
    ):
        with pytest.raises(ValueError, match=r"owner/name.*: \S") as refused:
            call()
        text = str(refused.value)
        assert len(text) < 500
        assert "\n" not in text
        assert "\x1b" not in text


def test_a_repository_of_something_else_is_refused(server):
    folder = server.folder / "owner/name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="must be a model that save_model wrote"):
        load_pretrained("owner/name")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"must be a model that save_model wrote, but it has no config\.json"):
        load_pretrained("owner/name")


@pytest.mark.parametrize("name", ["name", "a/b/c", "", "owner/", "owner/na me", "\x1b" * 3000 + "/x", "owner/name\n"])
def test_names_that_the_hub_cannot_have_are_refused(name, server):
    with pytest.raises(ValueError, match=r"name must be owner/name, got") as refused:
        push_to_hub(built(), name)
    assert len(str(refused.value)) < 200
    assert server.calls == []


def test_a_model_that_cannot_be_saved_makes_no_repository(server):
    with pytest.raises(ValueError, match="origin must hold"):
        push_to_hub(built(), "owner/name", origin={"x": torch.zeros(1)})
    assert [call[0] for call in server.calls] == ["client"]


def test_missing_packages_are_named_by_their_extra(monkeypatch, tmp_path):
    save_pretrained(built(), tmp_path / "model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: load_pretrained("owner/name"), lambda: push_to_hub(built(), "owner/name")):
        with pytest.raises(ImportError, match=r'^owner/name needs .*: pip install "fewshotseg\[hub\]"$'):
            call()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for call in (
        lambda: load_pretrained(tmp_path / "model"),
        lambda: save_pretrained(built(), tmp_path / "other"),
        lambda: fs.load_weights(built(), tmp_path / "model/model.safetensors"),
        lambda: fs.save_weights(built(), tmp_path / "x.safetensors"),
    ):
        with pytest.raises(ImportError, match=r'needs safetensors: pip install "fewshotseg\[hub\]"$'):
            call()


def test_a_backbone_of_ones_own_is_saved_and_asked_for(tmp_path):
    save_pretrained(tiny(), tmp_path / "model")
    with pytest.raises(ValueError, match="backbone must be given to load"):
        load_pretrained(tmp_path / "model")
    assert equal_states(
        fs.load_model(tmp_path / "model", backbone=tiny(seed=1).backbone).state_dict(), tiny().state_dict()
    )


def test_a_model_on_a_module_of_ones_own_needs_the_module(tmp_path):
    pytest.importorskip("safetensors", reason="needs the extra hub")
    predictor = fs.FewShotPredictor(fs.SCNet(TinyBackbone(), fs.SCNetConfig(hidden_channels=8, bins=(1.0,))))
    predictor.save_pretrained(tmp_path / "mine")
    assert 'from_pretrained("OWNER/NAME", backbone=YourModule())' in (tmp_path / "mine" / "README.md").read_text()
    with pytest.raises(ValueError, match="backbone must be given to load"):
        fs.FewShotPredictor.from_pretrained(tmp_path / "mine")
    found = fs.FewShotPredictor.from_pretrained(tmp_path / "mine", backbone=TinyBackbone())
    expected = predictor.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.model.state_dict().items())
