"""Models of timm by name: weights, files, the doors that take a model, and what is refused."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _evaluation_process import CLASSES, episodes
from fewshotseg.models.backbones import timm_backbone

VIT = "timm/test_vit"
SETTINGS = {"hidden_channels": 8, "bins": (1.0, 0.5)}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def vit(seed=0, **settings):
    torch.manual_seed(seed)
    return fs.build_scnet(VIT, **SETTINGS, **settings).eval()


def support(height=97, width=161):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 2, 3, height, width, generator=generator)
    masks = torch.zeros(1, 2, height, width, dtype=torch.int64)
    masks[..., 20:60, 30:90] = 1
    return images, masks


# Transformers


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("vit_tiny_patch16_224", 1),
        ("deit_tiny_distilled_patch16_224", 2),
        ("vit_small_patch14_dinov2", 1),
        ("vit_small_patch14_reg4_dinov2", 5),
        ("vit_small_patch16_dinov3", 5),
        ("vit_base_patch16_siglip_224", 0),
        ("eva02_tiny_patch14_224", 1),
    ],
)
def test_the_high_level_map_is_the_last_block_without_its_tokens(name, tokens):
    torch.manual_seed(0)
    net = timm.create_model(name, depth=4, dynamic_img_size=True).eval()
    backbone = fs.WholeTimmBackbone(net)
    patch = net.patch_embed.patch_size[0]
    images = torch.randn(2, 3, 5 * patch, 3 * patch)
    with torch.no_grad():
        mid, high = backbone.mid_and_high(images)
        expected = net.forward_features(images)
        after_two = net.forward_intermediates(images, indices=[1], norm=True, intermediates_only=True)[0]
    assert net.num_prefix_tokens == tokens
    assert_close(high, expected[:, tokens:].reshape(2, 5, 3, -1).movedim(3, 1), atol=1e-5, rtol=1e-5)
    assert backbone.blocks == (1, 2, 3)
    assert_close(mid[1], after_two)
    assert backbone.mid_channels == 2 * net.embed_dim


def test_images_are_padded_to_the_patch_and_features_cut_to_the_image():
    backbone = timm_backbone(VIT).eval()
    images = torch.randn(2, 3, 97, 161)
    padded = nn.functional.pad(images, (0, 15, 0, 15))
    _, high = backbone.mid_and_high(images)
    _, whole = backbone.mid_and_high(padded)
    assert high.shape[2:] == (7, 11)
    assert torch.equal(high, whole)
    _, high = backbone.mid_and_high(nn.functional.pad(images, (0, 20)))
    assert high.shape[2:] == (7, 12)


def test_windows_are_padded_too_and_their_surplus_is_cut():
    backbone = timm_backbone("timm/maxvit_pico_rw_256").eval()
    mid, high = backbone.mid_and_high(torch.randn(1, 3, 97, 33))
    assert backbone.multiple == 256
    assert [tuple(features.shape[2:]) for features in (*mid, high)] == [(7, 3), (13, 5), (4, 2)]


def test_models_for_one_size_take_smaller_images():
    net = timm.create_model("hiera_tiny_224", img_size=(160, 160))
    mid, high = fs.WholeTimmBackbone(net, multiple=160, norm=False).mid_and_high(torch.randn(1, 3, 97, 129))
    assert [tuple(features.shape[2:]) for features in (*mid, high)] == [(7, 9), (13, 17), (4, 5)]


def test_blocks_can_be_chosen():
    net = timm.create_model("test_vit", dynamic_img_size=True)
    backbone = fs.WholeTimmBackbone(net, blocks=(0, 2, 4, 5))
    mid, _ = backbone.mid_and_high(torch.randn(1, 3, 64, 64))
    assert len(mid) == 3
    assert backbone.mid_channels == 3 * net.embed_dim
    for blocks in ((5,), (2, 1), (0, 6), (-1, 2), (1, 1)):
        with pytest.raises(ValueError, match=r"blocks must be two or more rising numbers from 0 to 5, got"):
            fs.WholeTimmBackbone(net, blocks=blocks)
    with pytest.raises(ValueError, match="multiple must be at least 1, got 0"):
        fs.WholeTimmBackbone(net, multiple=0)
    with pytest.raises(ValueError, match=r"net must be a model of timm with forward_intermediates .* got Identity"):
        fs.WholeTimmBackbone(nn.Identity())


# Names


def test_names_are_listed_by_pattern():
    names = fs.list_backbones()
    assert {"resnet50", "efficientnet_lite0", "tiny", VIT, "timm/vit_small_patch14_reg4_dinov2"} <= set(names)
    assert len(names) == len(set(names))
    assert fs.list_backbones("resnet101?") == ["resnet101s"]
    assert set(fs.list_backbones("timm/*dinov3*")) == {n for n in names if n.startswith("timm/") and "dinov3" in n}
    assert fs.list_backbones("nothing*") == []


def test_the_way_is_found_without_drawing_numbers_and_names_have_means():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.device("meta"):
        timm_backbone("timm/resnetv2_50x1_bit")
    assert torch.equal(torch.get_rng_state(), before)
    model = fs.build_scnet("timm/mobilenetv3_small_050", **SETTINGS)
    assert model.config.backbone == "timm/mobilenetv3_small_050"
    assert vit().config.mean == tuple(timm.create_model("test_vit").pretrained_cfg["mean"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm/resnet5O",
            r"'timm/' and a name from timm.list_models\(\), got 'timm/resnet5O'; did you mean .*resnet50",
        ),
        ("timm/", "got 'timm/'"),
        ("timm/hf-hub:timm/resnet50.a1_in1k", "got 'timm/hf-hub:timm/resnet50.a1_in1k'"),
        ("timm/resnet50.nonsense", r"a tag that timm knows, got 'timm/resnet50.nonsense' \(Invalid pretr"),
        ("vit_small", "must be one of resnet50, .*, timm/NAME or a module, got 'vit_small'"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message) as refusal:
        fs.build_scnet(name)
    assert len(str(refusal.value)) < 300


def test_without_timm_names_need_it_and_lists_are_short(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'timm/test_vit needs timm: pip install "fewshotseg\[timm\]"'):
        fs.build_scnet(VIT)
    assert not any(name.startswith("timm/") for name in fs.list_backbones())


def test_extractors_that_are_no_chain_or_have_channels_last_are_refused():
    with pytest.raises(ValueError, match=r"must give maps .* got a FeatureListNet whose channels are last"):
        fs.TimmBackbone(timm.create_model("swin_tiny_patch4_window7_224", features_only=True))
    for name in ("test_vit", "hrnet_w18_small"):
        with pytest.raises(ValueError, match="one after the other"):
            fs.TimmBackbone(timm.create_model(name, features_only=True))
    lists = fs.build_scnet(fs.TimmBackbone(timm.create_model("selecsls42", features_only=True)), **SETTINGS)
    with pytest.raises(TypeError, match=r"map 0 of backbone.mid must be a tensor, got list"):
        lists.encode_query(torch.randn(1, 3, 64, 64))


# Weights


@pytest.mark.parametrize("name", ["test_vit", "resnet18", "test_convnext"])
def test_weights_from_timms_state_dict_a_file_or_our_own(name, tmp_path):
    torch.manual_seed(0)
    state = timm.create_model(name).state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
    from safetensors.torch import save_file

    save_file(state, tmp_path / "b.safetensors")
    first = fs.build_scnet(f"timm/{name}", backbone_weights=state, **SETTINGS).backbone.state_dict()
    assert torch.equal([*first.values()][9], [*state.values()][9])
    for weights in (tmp_path / "a.pth", str(tmp_path / "b.safetensors"), first):
        again = fs.build_scnet(f"timm/{name}", backbone_weights=weights, **SETTINGS).backbone.state_dict()
        assert again.keys() == first.keys()
        assert all(torch.equal(value, first[key]) for key, value in again.items())


def test_the_state_dict_is_not_kept_a_second_time():
    backbone = timm_backbone(VIT, timm.create_model("test_vit").state_dict())
    assert not any("state_dict" in getattr(part, "pretrained_cfg", {}) for part in backbone.modules())


def test_only_true_asks_timm_for_pretrained_weights(monkeypatch):
    state, asked = timm.create_model("test_vit").state_dict(), []
    make = timm.create_model

    def create_model(name, pretrained=False, **options):
        asked.append(pretrained)
        overlay = {"pretrained_cfg_overlay": {"state_dict": dict(state)}} if pretrained else {}
        return make(name, pretrained=pretrained, **options, **overlay)

    monkeypatch.setattr(timm, "create_model", create_model)
    vit()
    assert not any(asked)
    for weights in (True, "timm"):
        asked.clear()
        model = vit(backbone_weights=weights)
        assert asked == [True]
        assert torch.equal(model.backbone.net.pos_embed, state["pos_embed"])


def test_weights_that_cannot_be_had_or_do_not_fit_are_refused_in_a_sentence(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    for wrong in ({}, {"a": torch.zeros(3)}, state | {"cls_token": torch.zeros(3)}):
        with pytest.raises(ValueError, match=r"backbone_weights") as refusal:
            vit(backbone_weights=wrong)
        assert len(str(refusal.value)) < 320
    with pytest.raises(FileNotFoundError, match=r"^backbone_weights must be a file for timm/test_vit, got 'imagenet'$"):
        vit(backbone_weights="imagenet")
    with pytest.raises(TypeError, match="a name, a path, a state dict or, for timm's, True, got bool"):
        fs.build_scnet("mobilenet_v2", backbone_weights=True)
    with pytest.raises(TypeError, match="a name, a path, a state dict or, for timm's, True, got bool"):
        vit(backbone_weights=False)
    with pytest.raises(OSError, match=r"backbone_weights=True must be able to download weights of timm/dpn48b, but "):
        fs.build_scnet("timm/dpn48b", backbone_weights=True)


# Files and doors


def test_models_come_back_in_another_process(tmp_path):
    names = (VIT, "timm/test_convnext")
    images, masks = support()
    for number, name in enumerate(names):
        torch.manual_seed(number)
        model = fs.build_scnet(name, **SETTINGS).eval()
        fs.save_model(model, tmp_path / f"{number}.pth")
        with torch.no_grad():
            torch.save(model(images, masks, images[:, 0]).logits, tmp_path / f"{number}.logits")
    torch.save((images, masks), tmp_path / "episode.pth")
    program = (
        "import sys, torch, fewshotseg as fs\n"
        "folder = sys.argv[1]; images, masks = torch.load(f'{folder}/episode.pth')\n"
        "for number in range(2):\n"
        "    before = torch.get_rng_state(); model = fs.load_model(f'{folder}/{number}.pth')\n"
        "    assert torch.equal(torch.get_rng_state(), before); print(model.config.backbone)\n"
        "    with torch.no_grad(): found = model(images, masks, images[:, 0]).logits\n"
        "    torch.testing.assert_close(found, torch.load(f'{folder}/{number}.logits'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True, text=True, env=os.environ, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(names)


@pytest.mark.parametrize("name", [VIT, "timm/swinv2_cr_tiny_224", "timm/vit_tiny_patch16_224"])
def test_loading_gives_back_what_is_not_in_a_state_dict_too(name, tmp_path):
    torch.manual_seed(0)
    model = fs.build_scnet(name, **SETTINGS).eval()
    fs.save_model(model, tmp_path / "model.pth")
    other = fs.load_model(tmp_path / "model.pth")
    assert all(not buffer.is_meta for buffer in other.buffers())
    images, masks = support(64, 33)
    with torch.no_grad():
        assert_close(other(images, masks, images[:, 0]).logits, model(images, masks, images[:, 0]).logits)


def test_predictor_on_a_transformer():
    predictor = fs.FewShotPredictor(vit(), size=96)
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    predictor.set_support(photo, mask)
    found = predictor.predict(photo[:50])
    assert found.mask.shape == (50, 90)
    assert found.probability.isfinite().all()


def test_evaluation_on_a_transformer_is_that_of_a_plain_loop():
    dataset = episodes(shots=2)
    model, metric = vit(), fs.FewShotIoU(CLASSES)
    report = fs.evaluate(model, dataset, fs.FewShotIoU(CLASSES))
    with torch.no_grad():
        for number in range(len(dataset)):
            episode = dataset[number]
            logits = model(episode.support_images[None], episode.support_masks[None], episode.query_image[None]).logits
            metric.update(logits, episode.query_mask[None], episode.class_id)
    assert_close(report.miou, metric.compute().miou, atol=1e-3, rtol=0)
    assert report.episodes == len(dataset)


def test_a_transformer_compiles_whole_and_exports():
    model = vit()
    images, masks = (part[:, :1] for part in support(65, 49))
    with torch.no_grad():
        expected = model(images, masks, images[:, 0]).logits
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert_close(compiled(images, masks, images[:, 0]).logits, expected)
        exported = torch.export.export(model, (images, masks, images[:, 0])).module()
        assert_close(exported(images, masks, images[:, 0])[0], expected)


@pytest.mark.parametrize("name", [VIT, "timm/swinv2_cr_tiny_224"])
def test_memory_keeps_all_maps_of_a_model(name, monkeypatch):
    model = fs.build_scnet(name, **SETTINGS).eval()
    images, masks = support(64, 64)
    calls, kind = [], type(model.backbone.net)
    run = kind.forward_intermediates

    def counted(net, images, **options):
        calls.append(len(images))
        return run(net, images, **options)

    monkeypatch.setattr(kind, "forward_intermediates", counted)
    with torch.no_grad():
        expected = model(images, masks, images[:, 0]).logits
        model.memory = fs.FeatureMemory(2**26)
        calls.clear()
        for _ in range(2):
            assert_close(model(images, masks, images[:, 0]).logits, expected)
    assert calls == [1, 1]  # two images, each once, as supports and as a query


def test_memory_tells_transformers_apart_by_their_blocks():
    net = timm.create_model("test_vit", dynamic_img_size=True)
    memory, images = fs.FeatureMemory(2**24), torch.randn(1, 3, 64, 64)
    found = []
    for blocks in ((2, 3, 5), (0, 1, 4)):
        model = fs.build_scnet(fs.WholeTimmBackbone(net, blocks=blocks), **SETTINGS).eval()
        model.memory = memory
        found.append(model.encode_query(images).high)
        assert_close(found[-1], model.backbone.mid_and_high(images)[1])
    assert not torch.allclose(*found)
