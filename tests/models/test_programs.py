"""Exported programs answer as the model they were made of, with ONNX Runtime and with torch.export."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _models import TinyBackbone, tiny
from fewshotseg.models.programs import check_programs, export_programs

onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install "fewshotseg[onnx]"')
pytest.importorskip("onnxscript", reason='needs pip install "fewshotseg[onnx]"')

SIDE = 49


def episode(shots):
    """Other images and masks than those that the export compares on."""
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
    assert model.training
    differences = export_programs(model, tmp_path, size=SIDE, shots=shots)
    assert differences.keys() == {"onnx", "pt2"}
    assert max(differences.values()) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "query.onnx",
        "query.pt2",
        "support.onnx",
        "support.pt2",
    ]
    assert model.training
    model.eval()

    tensors = episode(shots)
    expected = answers(model, *tensors)
    logits, metadata = run_onnx(tmp_path, *tensors)
    assert_close(logits, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert_close(run_pt2(tmp_path, *tensors), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    for name in ("mean", "std"):
        assert json.loads(metadata[name]) == list(getattr(model.config, name))
    assert json.loads(metadata["threshold"]) == 0.5

    # Not because nothing matters: another mask is another answer, and another model is refused.
    other, _ = run_onnx(tmp_path, tensors[0], 1 - tensors[1].clamp(max=1), tensors[2])
    assert (other - expected).abs().max() > 1e-3 * expected.abs().max()
    with torch.no_grad():
        model.head.classifier[-1].bias += expected.abs().max()
    with pytest.raises(ArithmeticError, match="logits of the onnx files must be the model's"):
        check_programs(model, tmp_path, size=SIDE, shots=shots)


@pytest.mark.parametrize("score", ["density", "cosine", "kmeans"])
def test_exported_programs_answer_as_the_training_free_model(tmp_path, score):
    torch.manual_seed(0)
    model = fs.build_prototype_segmenter(TinyBackbone(), score=score, num_prototypes=2, num_background_prototypes=2)
    export_programs(model, tmp_path, size=SIDE, shots=2, kinds=("pt2",) if score == "kmeans" else ("onnx", "pt2"))
    model.eval()
    tensors = episode(2)
    with torch.no_grad():
        expected = model.segment(model.encode_support(*tensors[:2]), model.encode_query(tensors[2]))
    assert_close(run_pt2(tmp_path, *tensors), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    if score == "kmeans":
        return  # its rounds take the exporter minutes
    logits, metadata = run_onnx(tmp_path, *tensors)
    assert_close(logits, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert json.loads(metadata["threshold"]) == 0.3


@pytest.mark.parametrize("learned_points", [False, True])
def test_exported_programs_have_the_points_of_supports(learned_points, tmp_path):
    torch.manual_seed(0)
    config = fs.SCNetConfig(hidden_channels=8, bins=(1.0,), density_weight=0.5, learned_points=learned_points)
    model = fs.SCNet(TinyBackbone(), config).eval()
    export_programs(model, tmp_path, size=SIDE, shots=2)
    tensors = episode(2)
    expected = answers(model, *tensors)
    logits, _ = run_onnx(tmp_path, *tensors)
    assert_close(logits, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert_close(run_pt2(tmp_path, *tensors), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    model.config = replace(model.config, density_weight=0.0)
    assert (answers(model, *tensors) - expected).abs().max() > 1e-2 * expected.abs().max()


def test_one_kind_alone_needs_no_onnx(tmp_path, monkeypatch):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        export_programs(tiny(bins=(1.0,)), tmp_path / "both", size=SIDE)
    assert not (tmp_path / "both").exists()
    assert export_programs(tiny(bins=(1.0,)), tmp_path, size=SIDE, kinds=["pt2"]).keys() == {"pt2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["query.pt2", "support.pt2"]


def test_nothing_is_left_of_programs_that_answer_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("fewshotseg.models.programs.TOLERANCE", -1.0)
    (tmp_path / "query.pt2").write_bytes(b"of before")
    with pytest.raises(ArithmeticError, match="logits of the pt2 files must be the model's"):
        export_programs(tiny(bins=(1.0,)), tmp_path, size=SIDE, kinds=["pt2"])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of before"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"size": 31}, "size must be at least 32, got 31"),
        ({"kinds": ["onnx", "tflite"]}, "kinds must be one of 'onnx', 'pt2', got 'tflite'"),
    ],
)
def test_what_cannot_be_exported_is_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_programs(
            fs.build_scnet("mobilenet_v2", hidden_channels=8), tmp_path / "out", **{"size": SIDE, **settings}
        )
    assert not (tmp_path / "out").exists()
