import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from _inputs import choice, normal
from _metric_processes import count_n_way, n_way_episodes
from _processes import run_together
from fewshotseg.metrics import FewShotIoU, NWayIoU

CLASSES = (3, 8, 11, 20)


def naive(predictions, targets, class_ids, *, skip_absent):
    """Sets of pixels: for each class their right ones, wrong ones and missed ones, summed over episodes."""
    counts = {}
    for prediction, target, classes in zip(predictions, targets, class_ids, strict=True):
        for label, class_id in enumerate([0, *classes]):
            found = {place for place, value in np.ndenumerate(prediction) if value == label and target[place] != 255}
            true = {place for place, value in np.ndenumerate(target) if value == label}
            row = counts.setdefault(class_id, [0, 0, 0])
            if true or not skip_absent:
                row[0] += len(found & true)
                row[1] += len(found - true)
                row[2] += len(true - found)
    iou = {
        c: right / (right + wrong + missed) for c, (right, wrong, missed) in counts.items() if right + wrong + missed
    }
    right, all_three = (sum(sum(row[:n]) for c, row in counts.items() if c) for n in (1, 3))
    background = iou.pop(0)
    return sum(iou.values()) / len(iou), (background + right / all_three) / 2, iou, background


@pytest.mark.filterwarnings("ignore:nothing to score")
@given(seed=st.integers(0, 10_000), ways=st.integers(1, 4), batch=st.integers(1, 5), skip_absent=st.booleans())
def test_equal_to_sets_of_pixels_for_any_batches(seed, ways, batch, skip_absent):
    predictions, targets, classes = n_way_episodes(7, ways, seed=seed, classes=CLASSES)
    metric = NWayIoU(CLASSES, skip_absent=skip_absent)
    for start in range(0, 7, batch):
        part = slice(start, start + batch)
        metric.update(predictions[part], targets[part], classes[part])
    report = metric.compute()
    miou, binary, per_class, background = naive(
        predictions.numpy(), targets.numpy(), classes.tolist(), skip_absent=skip_absent
    )
    assert report.miou == pytest.approx(miou, abs=1e-12)
    assert report.binary_miou == pytest.approx(binary, abs=1e-12)
    assert {c: iou for c, iou in report.per_class.items() if not math.isnan(iou)} == pytest.approx(per_class, abs=1e-12)
    assert report.background_iou == pytest.approx(background, abs=1e-12)
    assert report.episodes == 7
    assert report.episodes_per_class == {c: classes.flatten().tolist().count(c) for c in CLASSES}


def test_a_class_that_is_not_there_counts_unless_it_is_skipped():
    prediction, target = torch.tensor([[[1, 2, 2, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
    for skip_absent, iou in [(False, 0.0), (True, math.nan)]:
        metric = NWayIoU([3, 8], skip_absent=skip_absent)
        metric.update(prediction, target, [[3, 8]])
        metric.update(prediction[:, :, :1], target[:, :, :1], [[3, 8]])
        if skip_absent:
            with pytest.warns(UserWarning, match="nothing to score for 8: NaN"):
                report = metric.compute()
        else:
            report = metric.compute()
        assert report.per_class == pytest.approx({3: 1.0, 8: iou}, nan_ok=True)
        assert report.background_iou == 1 / 3


def test_one_way_is_few_shot_iou():
    predictions, targets, classes = n_way_episodes(9, 1, classes=CLASSES)
    classes[:4, 0] = torch.tensor(CLASSES)
    metric, expected = NWayIoU(CLASSES), FewShotIoU(CLASSES)
    metric.update(predictions, targets, classes)
    expected.update(predictions, targets, classes[:, 0])
    assert metric.compute().miou == expected.compute().miou
    assert metric.compute().per_class == expected.compute().per_class
    assert metric.compute().binary_miou == expected.compute().fb_iou


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_logits_count_like_the_labels_that_they_mean(dtype):
    _, targets, classes = n_way_episodes(8, 2, classes=CLASSES)
    logits = normal(8, 3, 5, 7, dtype=dtype)
    metric, expected = NWayIoU(CLASSES), NWayIoU(CLASSES)
    metric.update(logits, targets, classes)
    expected.update(logits.argmax(dim=1).to(torch.uint8), targets.to(torch.uint8), classes.tolist())
    assert metric.compute() == expected.compute()


def test_other_void_reset_names_and_json():
    metric = NWayIoU([3, 8], ignore_index=-1, class_names={3: "cat"})
    metric.update(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[1, -1, 0]]]), [[8, 3]])
    with pytest.warns(UserWarning, match="nothing to score for cat"):
        report = metric.compute()
    assert report.to_dict() == json.loads(json.dumps(report.to_dict()))
    assert report.to_dict()["per_class"] == {"cat": None, "8": 1.0}
    assert str(report).splitlines() == [
        "mIoU         100.0  (1 episodes)",
        "binary mIoU  100.0  (1 episodes)",
        "background   100.0  (1 episodes)",
        "cat            nan  (1 episodes)",
        "class 8      100.0  (1 episodes)",
    ]
    metric.reset()
    with pytest.warns(UserWarning, match="nothing to score for cat, 8"):
        assert metric.compute().episodes == 0


def test_update_never_waits_for_an_accelerator():
    with FakeTensorMode():
        metric = NWayIoU(CLASSES)
        target = torch.empty(4, 9, 9, dtype=torch.int64, device="cuda")
        for classes in (torch.empty(4, 2, dtype=torch.int64, device="cuda"), [[3, 8]] * 4):
            metric.update(torch.empty(4, 3, 9, 9, device="cuda"), target, classes)
            metric.update(target, target, classes)


def test_an_unknown_class_on_an_accelerator_is_found_by_compute():
    metric = NWayIoU(CLASSES)
    metric.update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2).long(), [[3, 8]])
    metric._counts[len(CLASSES)] = metric._counts[0]  # what ids that are not looked at leave behind
    with pytest.raises(ValueError, match=r"must be among \(3, 8, 11, 20\), got others in 1 places"):
        metric.compute()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prediction": torch.zeros(2, 4, 5, 7)}, ValueError, r"logits \(B, 3, H, W\), for the background"),
        ({"prediction": torch.zeros(2, 3, 5, 7).long()}, ValueError, "floating-point logits"),
        ({"prediction": torch.zeros(2, 5, 7)}, TypeError, "prediction of shape .* must hold integers"),
        ({"prediction": torch.full((2, 5, 7), 3)}, ValueError, "labels in prediction must be from 0 to 2, got 3"),
        ({"prediction": torch.full((2, 3, 5, 7), math.nan)}, ValueError, "prediction must not hold NaN"),
        ({"target": torch.full((2, 5, 7), 3)}, ValueError, "labels in target must be from 0 to 2, got 3"),
        ({"target": torch.zeros(2, 5, 8).long()}, ValueError, "target must have the W of prediction"),
        ({"target": torch.zeros(2, 5, 7)}, TypeError, "target must hold integers"),
        ({"class_ids": [3, 8]}, ValueError, r"class_ids must have shape \(B, N\), got \(2,\)"),
        ({"class_ids": [[3, 8]]}, ValueError, r"class_ids must be of shape \(2, 2\), got shape \(1, 2\)"),
        ({"class_ids": [[3, 8], [8]]}, TypeError, r"class_ids must be integers, \(B, N\)"),
        ({"class_ids": [[3, 8], [4, 8]]}, ValueError, r"class_ids must be among \(3, 8, 11, 20\)"),
        ({"class_ids": [[3, 8], [8, 8]]}, ValueError, "class_ids must be different in an episode"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_counts_nothing(change, error, message):
    predictions, targets = choice([0, 1, 2], 2, 5, 7), choice([0, 1, 2, 255], 2, 5, 7, seed=1)
    metric = NWayIoU(CLASSES)
    with pytest.raises(error, match=message):
        metric.update(**{"prediction": predictions, "target": targets, "class_ids": [[3, 8], [8, 11]], **change})
    assert metric._counts is None


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="class_ids must be at least one class"):
        NWayIoU([])
    with pytest.raises(ValueError, match="ignore_index must be no label that a class can have, got 7"):
        NWayIoU([3], ignore_index=7)
    with pytest.raises(TypeError, match="skip_absent must be True or False"):
        NWayIoU([3], skip_absent="yes")


def test_processes_report_what_one_process_reports(tmp_path):
    run_together(count_n_way, 2, str(tmp_path))
    metric = NWayIoU(CLASSES)
    metric.update(*n_way_episodes(7, 2, classes=CLASSES))
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) == metric.compute().to_dict()
