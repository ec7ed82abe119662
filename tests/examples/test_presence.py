"""The study of presence: numbers that were planted are found again."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

import fewshotseg as fs
import presence
from presence import Answer, auroc, calibration, fit, interval, report


def answers(count, scale=1.5, bias=-1.0, classes=8, seed=0):
    """Of a model whose presence is a logistic function of its evidence; as many with as without on average."""
    draw = torch.Generator().manual_seed(seed)
    evidence = 3 * torch.randn(count, generator=draw) - bias / scale
    there = torch.rand(count, generator=draw) < torch.sigmoid(scale * evidence + bias)
    return [
        Answer(f"class {number % classes}", float(value), 0.5 if shown else 0.0, 0.25, 0.35)
        for number, (value, shown) in enumerate(zip(evidence, there, strict=True))
    ]


def test_scale_and_bias_are_found():
    found = answers(20_000)
    assert fit(found) == pytest.approx((1.5, -1.0), abs=0.06)
    rows = calibration(found, (1.5, -1.0))
    assert len(rows) == 5
    assert all(abs(row["said"] - row["present"]) < 0.02 for row in rows)
    assert rows[0]["said"] < 0.1 < rows[2]["said"] < 0.9 < rows[4]["said"]


def test_both_kinds_of_photographs_weigh_the_same():
    found = answers(20_000)
    draw = random.Random(0)
    fewer = [a for a in found if a.share > 0 or draw.random() < 0.2]
    assert fit(fewer) == pytest.approx((1.5, -1.0), abs=0.15)


def test_evidence_that_means_nothing_gives_no_negative_scale():
    against = [a._replace(evidence=-a.evidence) for a in answers(500)]
    assert fit(against)[0] == 0


def test_the_area_under_the_curve():
    there = [Answer("a", value, 0.1, 0.5, 0.5) for value in (1.0, 2.0, 3.0)]
    absent = [Answer("b", value, 0.0, 0.0, 0.5) for value in (0.0, 2.0)]
    assert auroc([*there, *absent]) == pytest.approx(4.5 / 6)
    low, high = interval(answers(400), draws=200)
    assert 0.8 < low < auroc(answers(400)) < high < 1


def test_one_half_is_fitted_and_the_other_tested():
    good = answers(800, classes=8)
    odd = ("class 1", "class 3", "class 5", "class 7")
    mixed = [a._replace(evidence=-a.evidence) if a.class_name in odd else a for a in good]
    found = report(mixed)
    assert found["presence"] == pytest.approx((1.5, -1.0), abs=0.4)
    assert found["AUROC, objects from 2 %"][0] < 0.2
    assert found["IoU elsewhere by IoU at home"]["0.3-0.4"] == [sum(a.share > 0 for a in good), pytest.approx(0.25)]
    assert found["IoU elsewhere by IoU at home"]["0.6-1.0"][0] == 0
    small = [a._replace(share=0.01) if a.share > 0 else a for a in mixed if a.class_name in odd]
    rest = [a for a in good if a.class_name in odd]
    again = report([*[a for a in good if a.class_name not in odd], *rest, *small])
    assert again["AUROC, objects from 2 %"][0] > 0.8 > again["AUROC, objects of all sizes"][0]


def test_a_model_is_asked_by_examples_of_other_photographs(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    (tmp_path / "images").mkdir()
    pictures, boxes = [], []
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        pictures.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 80})
        outline = [10, 10, 50, 10, 50, 40, 10, 40]
        boxes.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "segmentation": [outline],
                      "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0})  # fmt: skip
    names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}]
    content = {"images": pictures, "annotations": boxes, "categories": names}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,), image_size=65, presence=(0.5, 0.5))
    fs.save_model(model, tmp_path / "model.pth")
    arguments = [tmp_path / "images", tmp_path / "instances.json", "--model", tmp_path / "model.pth"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        presence.main([str(each) for each in [*arguments, "--examples", 2, "--out", tmp_path / "found.json"]])
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["answers"]) == 2 * 2 * 4
    rows = [Answer(*row) for row in found["answers"]]
    assert sum(row.share == 0 for row in rows) == 8
    assert {round(row.share, 2) for row in rows if row.share > 0} <= {0.25, 0.26}
    assert found["fitted to"]["classes"] == found["tested on"]["classes"] == 1
    assert "fork: 16 answers" in capsys.readouterr().out
