import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from _inputs import normal
from _metric_processes import count_base_novel, label_maps
from _processes import run_together
from fewshotseg.metrics import BaseNovelIoU

BASE, NOVEL = (2, 1), (7, 5)


def naive(predictions, targets, void=255):
    """One class after the other, over all pixels that are scored."""
    scored = targets != void
    iou = {}
    for label in (0, *BASE, *NOVEL):
        found, true = (predictions == label) & scored, targets == label
        iou[label] = (found & true).sum() / (found | true).sum()
    base, novel = (np.mean([iou[label] for label in group]) for group in (BASE, NOVEL))
    return {
        "base": base,
        "novel": novel,
        "mean": (base + novel) / 2,
        "harmonic": 2 / (1 / base + 1 / novel),
        "miou": np.mean(list(iou.values())),
        "background_iou": iou[0],
    }, {label: iou[label] for label in (*BASE, *NOVEL)}


@given(seed=st.integers(0, 10_000), batch=st.integers(1, 5))
def test_equal_to_one_class_after_the_other_for_any_batches(seed, batch):
    predictions, targets = label_maps(7, seed)
    metric = BaseNovelIoU(BASE, NOVEL)
    for start in range(0, 7, batch):
        metric.update(predictions[start : start + batch], targets[start : start + batch])
    report = metric.compute()
    scores, per_class = naive(predictions.numpy(), targets.numpy())
    assert {name: report._asdict()[name] for name in scores} == pytest.approx(scores, abs=1e-12)
    assert report.per_class == pytest.approx(per_class, abs=1e-12)
    assert list(report.per_class) == [*BASE, *NOVEL]
    assert report.images == 7


def test_known_answers():
    metric = BaseNovelIoU([1], [2])
    metric.update(torch.tensor([[[1, 1, 0, 2, 2, 1]]]), torch.tensor([[[1, 0, 0, 2, 1, 255]]]))
    report = metric.compute()
    assert report.per_class == {1: 1 / 3, 2: 1 / 2}
    assert report.background_iou == 1 / 2
    assert report.harmonic == pytest.approx(0.4)
    assert report.mean == pytest.approx(5 / 12)
    assert report.miou == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)


def test_nothing_right_has_a_harmonic_mean_of_zero():
    metric = BaseNovelIoU([1], [2])
    metric.update(torch.tensor([[[1, 2]]]), torch.tensor([[[2, 1]]]))
    with_nothing = metric.compute()
    assert (with_nothing.harmonic, with_nothing.base, with_nothing.novel) == (0, 0, 0)


def test_logits_count_like_the_labels_that_they_mean():
    _, targets = label_maps(6)
    logits = normal(6, 5, 5, 7)
    metric, expected = BaseNovelIoU(BASE, NOVEL), BaseNovelIoU(BASE, NOVEL)
    metric.update(logits, targets)
    expected.update(torch.tensor((0, *BASE, *NOVEL))[logits.argmax(dim=1)].to(torch.uint8), targets.to(torch.uint8))
    assert metric.compute() == expected.compute()


def test_a_class_that_is_nowhere_is_left_out_with_a_warning():
    metric = BaseNovelIoU([1, 3], [2], class_names={3: "cat"})
    metric.update(torch.tensor([[[1, 2, 3]]]), torch.tensor([[[1, 2, 255]]]))
    with pytest.warns(UserWarning, match="nothing to score for cat: NaN"):
        report = metric.compute()
    assert (report.base, report.novel) == (1, 1)
    assert math.isnan(report.per_class[3])
    assert report.to_dict()["per_class"] == {"1": 1.0, "cat": None, "2": 1.0}
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    metric.reset()
    with pytest.warns(UserWarning, match="nothing to score for 1, cat, 2"):
        assert metric.compute().images == 0


def test_labels_under_void_do_not_matter():
    metric = BaseNovelIoU([1], [2], ignore_index=-1)
    metric.update(torch.tensor([[[1, 2, 99]]]), torch.tensor([[[1, 2, -1]]]))
    assert metric.compute().miou == 1


def test_update_never_waits_for_an_accelerator():
    with FakeTensorMode():
        metric = BaseNovelIoU(BASE, NOVEL)
        target = torch.empty(4, 9, 9, dtype=torch.int64, device="cuda")
        metric.update(torch.empty(4, 5, 9, 9, device="cuda"), target)
        metric.update(target, target)


def test_unknown_labels_on_an_accelerator_are_found_by_compute():
    metric = BaseNovelIoU(BASE, NOVEL)
    metric.update(*label_maps(2))
    metric._counts[-1] = 3  # what labels that are not looked at leave behind
    with pytest.raises(ValueError, match=r"labels must be among \(0, 2, 1, 7, 5\), got others at 6 pixels"):
        metric.compute()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prediction": torch.zeros(2, 4, 5, 7)}, ValueError, r"floating-point logits \(B, 5, H, W\)"),
        ({"prediction": torch.full((2, 5, 5, 7), math.nan)}, ValueError, "prediction must not hold NaN"),
        ({"prediction": torch.zeros(2, 5, 7)}, TypeError, "prediction of shape .* must hold integers"),
        ({"prediction": torch.full((2, 5, 7), 3)}, ValueError, "labels in prediction must be among .*, got 3"),
        ({"prediction": torch.full((2, 5, 7), -1)}, ValueError, "labels in prediction must be among .*, got -1"),
        ({"target": torch.full((2, 5, 7), 300)}, ValueError, "labels in target must be among .*, got 300"),
        ({"target": torch.zeros(2, 5, 8).long()}, ValueError, "target must have the W of prediction"),
        ({"target": torch.zeros(2, 5, 7)}, TypeError, "target must hold integers"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_counts_nothing(change, error, message):
    predictions, targets = label_maps(2)
    metric = BaseNovelIoU(BASE, NOVEL)
    with pytest.raises(error, match=message):
        metric.update(**{"prediction": predictions, "target": targets, **change})
    assert metric._counts is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": []}, "base must be at least one class, got none"),
        ({"novel": []}, "novel must be at least one class, got none"),
        ({"novel": [1]}, r"novel must not hold base classes, got \[1\]"),
        ({"base": [1, 10**12]}, "base must be class ids up to 65536, got 1000000000000"),
        ({"base": [0]}, "every number of base must be at least 1"),
        ({"ignore_index": 5}, "ignore_index must be the label of no class, got 5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BaseNovelIoU(**{"base": [1, 2], "novel": [5], **settings})


def test_processes_report_what_one_process_reports(tmp_path):
    run_together(count_base_novel, 2, str(tmp_path))
    metric = BaseNovelIoU([1, 2], [5, 7])
    metric.update(*label_maps(7))
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) == metric.compute().to_dict()
