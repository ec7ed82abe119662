"""Exported programs answer as the model they were made of, with ONNX Runtime and with torch.export."""

import json
import re

import export_onnx
import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _lite import install
from _models import tiny
from fewshotseg.models import pretrained, save_pretrained
from fewshotseg.models.backbones import image_statistics

onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install "fewshotseg[onnx]"')
pytest.importorskip("onnxscript", reason='needs pip install "fewshotseg[onnx]"')

SIDE = 49


def episode(shots):
    """Other images and masks than those that the example compares on."""
    generator = torch.Generator().manual_seed(7)
    images, queries = (torch.rand(n, 3, SIDE, SIDE, generator=generator) for n in (shots, 3))
    masks = torch.zeros(1, shots, SIDE, SIDE, dtype=torch.long)
    masks[..., 10:30, 5:40] = 1
    masks[..., 8:10, :] = 255
    return images[None], masks, queries


def run_onnx(folder, images, masks, queries):
    support, query = (
        onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        for name in ("support.onnx", "query.onnx")
    )
    names = [output.name for output in support.get_outputs()]
    known = dict(zip(names, support.run(None, {"images": images.numpy(), "masks": masks.numpy()}), strict=True))
    (logits,) = query.run(["logits"], {"images": queries.numpy(), **known})
    return torch.from_numpy(logits), query.get_modelmeta().custom_metadata_map


def run_pt2(folder, images, masks, queries):
    support, query = (torch.export.load(folder / name).module() for name in ("support.pt2", "query.pt2"))
    return query(queries, *support(images, masks))[0].detach()


def answers(model, images, masks, queries):
    with torch.no_grad():
        batch = len(queries)
        return model(images.expand(batch, -1, -1, -1, -1), masks.expand(batch, -1, -1, -1), queries).logits


@pytest.mark.parametrize(("bins", "shots"), [((1.0, 0.5), 1), ((5, 9), 2)], ids=["shares", "cells"])
def test_exported_programs_answer_as_the_model(tmp_path, bins, shots):
    model = tiny(bins=bins)
    differences = export_onnx.export(model, tmp_path, size=SIDE, shots=shots)
    assert differences.keys() == {"onnx", "pt2"}
    assert max(differences.values()) < 1e-4

    tensors = episode(shots)
    expected = answers(model, *tensors)
    logits, metadata = run_onnx(tmp_path, *tensors)
    assert_close(logits, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert_close(run_pt2(tmp_path, *tensors), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    for name, value in image_statistics(model.backbone).items():
        assert json.loads(metadata[name]) == list(value)

    # Not because nothing matters: another mask is another answer, and another model is refused.
    other, _ = run_onnx(tmp_path, tensors[0], 1 - tensors[1].clamp(max=1), tensors[2])
    assert (other - expected).abs().max() > 1e-3 * expected.abs().max()
    with torch.no_grad():
        model.head.classifier[-1].bias += expected.abs().max()
    with pytest.raises(ArithmeticError, match="logits of the onnx files must be the model's"):
        export_onnx.check(model, tmp_path, size=SIDE, shots=shots)


def test_command_line(tmp_path, monkeypatch, capsys):
    install(monkeypatch, tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    config = fs.SCNetConfig(hidden_channels=8, bins=(1.0,))
    model = fs.build_scnet("efficientnet_lite0", backbone_weights="package", hidden_channels=8, bins=(1.0,))
    save_pretrained(model, tmp_path / "mine.pth", backbone="efficientnet_lite0", config=config, size=65, origin={})
    export_onnx.main(["mine", "--size", str(SIDE), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert len(re.findall(r"(?:support|query)\.(?:onnx|pt2): \d+\.\d MiB\n", printed)) == 4
    assert len(re.findall(r": logits differ from the model.s by \d\.\de-\d\d of the largest\n", printed)) == 2
    tensors = episode(1)
    expected = answers(export_onnx.open_model("mine")[0], *tensors)
    logits, _ = run_onnx(tmp_path / "out", *tensors)
    assert_close(logits, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "name must be a .pth file or one of"),
        (["none.pth"], "No such file"),
    ],
)
def test_what_cannot_be_exported_ends_in_one_sentence(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        export_onnx.main([*arguments, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_shot_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shots must be at least 1, got 0"):
        export_onnx.export(fs.build_scnet("mobilenet_v2", hidden_channels=8), tmp_path, size=SIDE, shots=0)
