import json
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from _inputs import normal
from _metric_processes import CLASSES, count_share, episodes, label_maps, n_way_episodes
from _processes import run_together
from fewshotseg.metrics import BaseNovelIoU, FewShotIoU, NWayIoU


def naive_report(predictions, targets, class_ids, classes=CLASSES, ignore_index=255):
    """One pixel after the other: class IoU, FB-IoU and the mean of the episodes' IoU."""
    inter = {(c, label): 0 for c in classes for label in (0, 1)}
    union = dict(inter)
    own = []
    for prediction, target, class_id in zip(predictions, targets, class_ids, strict=True):
        episode_inter = episode_union = 0
        for p, t in zip(np.ravel(prediction), np.ravel(target), strict=True):
            if t == ignore_index:
                continue
            for label in (0, 1):
                predicted, true = (p == 1) == label, (t == 1) == label
                inter[class_id, label] += predicted and true
                union[class_id, label] += predicted or true
            episode_inter += p == 1 and t == 1
            episode_union += p == 1 or t == 1
        if episode_union:
            own.append(episode_inter / episode_union)
    per_class = {c: inter[c, 1] / union[c, 1] for c in classes if union[c, 1]}
    both = [sum(inter[c, label] for c in classes) / sum(union[c, label] for c in classes) for label in (0, 1)]
    return sum(per_class.values()) / len(per_class), sum(both) / 2, per_class, sum(own) / len(own)


def assert_report(report, expected):
    miou, fb_iou, per_class, episode_miou = expected
    assert report.miou == pytest.approx(miou, abs=1e-12)
    assert report.fb_iou == pytest.approx(fb_iou, abs=1e-12)
    assert report.per_class == pytest.approx(per_class, abs=1e-12)
    assert report.episode_miou == pytest.approx(episode_miou, abs=1e-9)


@given(seed=st.integers(0, 10_000), count=st.integers(3, 12), batch=st.integers(1, 5))
def test_equal_to_a_loop_over_pixels_for_any_batches(seed, count, batch):
    predictions, targets, classes = episodes(count, seed)
    metric = FewShotIoU(CLASSES)
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        metric.update(predictions[part], targets[part], classes[part])
    report = metric.compute()
    assert_report(report, naive_report(predictions.numpy(), targets.numpy(), classes.tolist()))
    assert report.episodes == count
    assert report.episodes_per_class == {c: classes.tolist().count(c) for c in CLASSES}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_logits_count_like_the_labels_that_they_mean(dtype):
    _, targets, classes = episodes(6)
    logits = normal(6, 2, 5, 7, dtype=dtype)
    metric, expected = FewShotIoU(CLASSES), FewShotIoU(CLASSES)
    metric.update(logits, targets, classes)
    expected.update(logits.argmax(dim=1), targets, classes)
    assert metric.compute() == expected.compute()


def test_a_tie_is_background():
    metric = FewShotIoU([1])
    metric.update(torch.zeros(1, 2, 2, 2), torch.tensor([[[1, 0], [0, 0]]]), 1)
    assert metric.compute().per_class == {1: 0.0}


@pytest.mark.parametrize("kind", ["list", "tuple", "tensor", "int32", "bool masks", "one class"])
def test_all_forms_of_input_count_the_same(kind):
    predictions, targets, classes = episodes(6)
    if kind == "one class":
        classes[:] = 8
    expected = FewShotIoU(CLASSES)
    metric = FewShotIoU(CLASSES)
    if kind == "bool masks":
        targets = (targets == 1).long()
    expected.update(predictions, targets, classes)
    if kind == "list":
        metric.update(predictions, targets, classes.tolist())
    elif kind == "tuple":
        metric.update(predictions, targets, tuple(classes.tolist()))
    elif kind == "tensor":
        metric.update(predictions, targets, classes)
    elif kind == "int32":
        metric.update(predictions.to(torch.uint8), targets.to(torch.int32), classes.to(torch.int32))
    elif kind == "bool masks":
        metric.update(predictions == 1, targets == 1, classes)
    else:
        metric.update(predictions, targets, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = metric.compute(), expected.compute()
    np.testing.assert_equal(first.to_dict(), second.to_dict())
    assert first.episodes == 6


def test_void_is_not_counted_wherever_it_is_predicted():
    target = torch.tensor([[[1, 0, 255, 255]]])
    for void in ([0, 0], [1, 1], [1, 0]):
        metric = FewShotIoU([1])
        metric.update(torch.tensor([[[1, 0, *void]]]), target, 1)
        report = metric.compute()
        assert (report.miou, report.fb_iou, report.episode_miou) == (1.0, 1.0, 1.0)


def test_another_value_can_be_void():
    metric = FewShotIoU([1], ignore_index=-1)
    metric.update(torch.tensor([[[1, 0, 0]]]), torch.tensor([[[1, -1, 0]]]), 1)
    assert metric.compute().fb_iou == 1.0


def test_pixels_add_up_before_the_division():
    metric = FewShotIoU([4])
    metric.update(torch.tensor([[[1, 1, 1, 1, 0]]]), torch.tensor([[[1, 1, 1, 1, 0]]]), 4)
    metric.update(torch.tensor([[[1, 1, 0, 0, 0]]]), torch.tensor([[[0, 1, 0, 0, 0]]]), 4)
    report = metric.compute()
    assert report.miou == 5 / 6
    assert report.episode_miou == 0.75
    assert report.fb_iou == (5 / 6 + 4 / 5) / 2


def test_an_episode_without_union_counts_for_the_background_only():
    metric = FewShotIoU([4])
    metric.update(torch.tensor([[[1, 0]], [[0, 0]]]), torch.tensor([[[1, 1]], [[0, 0]]]), 4)
    report = metric.compute()
    assert report.miou == report.episode_miou == 0.5
    assert report.fb_iou == (1 / 2 + 2 / 3) / 2
    assert report.episodes == 2


def test_a_class_never_drawn_is_nan_left_out_and_warned_about():
    metric = FewShotIoU(CLASSES, class_names={3: "cat", 8: "dog", 11: "cow"})
    predictions, targets, _ = episodes(2)
    metric.update(predictions, targets, [3, 11])
    with pytest.warns(UserWarning, match="nothing to score for dog: NaN"):
        report = metric.compute()
    assert math.isnan(report.per_class[8])
    assert report.episodes_per_class == {3: 1, 8: 0, 11: 1}
    assert report.miou == (report.per_class[3] + report.per_class[11]) / 2


def test_a_class_with_void_only_is_nan_too():
    metric = FewShotIoU([3, 8])
    metric.update(torch.ones(2, 2, 2).long(), torch.tensor([[[1, 0]] * 2, [[255, 255]] * 2]), [3, 8])
    with pytest.warns(UserWarning, match="nothing to score for 8:"):
        report = metric.compute()
    assert report.miou == 0.5
    assert report.episodes_per_class == {3: 1, 8: 1}


def test_nothing_counted_is_nan_with_a_warning():
    metric = FewShotIoU([3, 8])
    with pytest.warns(UserWarning, match="nothing to score for 3, 8, background"):
        report = metric.compute()
    assert math.isnan(report.miou)
    assert math.isnan(report.fb_iou)
    assert math.isnan(report.episode_miou)
    assert report.episodes == 0
    assert report.to_dict()["miou"] is None


def test_an_empty_batch_counts_nothing():
    predictions, targets, classes = episodes(4)
    metric = FewShotIoU(CLASSES)
    metric.update(predictions[:0], targets[:0], classes[:0])
    metric.update(predictions, targets, classes)
    assert metric.compute().episodes == 4


def test_reset_forgets():
    predictions, targets, classes = episodes(9)
    metric, fresh = FewShotIoU(CLASSES), FewShotIoU(CLASSES)
    metric.update(predictions[:4], targets[:4], classes[:4])
    metric.reset()
    for each in (metric, fresh):
        each.update(predictions[:3], targets[:3], classes[:3])
    assert metric.compute() == fresh.compute()


def test_updates_may_run_with_and_without_inference_mode():
    predictions, targets, classes = episodes(6)
    metric, expected = FewShotIoU(CLASSES), FewShotIoU(CLASSES)
    with torch.inference_mode():
        metric.update(predictions[:3], targets[:3], classes[:3])
    metric.update(predictions[3:], targets[3:], classes[3:])
    expected.update(predictions, targets, classes)
    assert metric.compute() == expected.compute()


def test_reports_print_percentages_and_become_json():
    metric = FewShotIoU([3, 8], class_names={3: "cat", 5: "elsewhere"})
    metric.update(torch.tensor([[[1, 0, 0]], [[1, 1, 1]]]), torch.tensor([[[1, 1, 0]], [[1, 1, 0]]]), [3, 8])
    report = metric.compute()
    assert str(report).splitlines() == [
        "mIoU           58.3  (2 episodes)",
        "FB-IoU         46.7  (2 episodes)",
        "episode mIoU   58.3  (2 episodes)",
        "object >10%    58.3  (2 episodes)",
        "cat            50.0  (1 episodes)",
        "class 8        66.7  (1 episodes)",
    ]
    content = json.loads(json.dumps(report.to_dict()))
    assert content["per_class"] == {"cat": 0.5, "8": 2 / 3}
    assert content["episodes_per_class"] == {"cat": 1, "8": 1}
    assert content["episodes"] == 2
    assert content["fb_iou"] == (3 / 5 + 1 / 3) / 2
    assert content["by_size"][">10%"] == {"miou": content["miou"], "episode_miou": pytest.approx(7 / 12), "episodes": 2}
    assert content["by_size"]["<2%"] == {"miou": None, "episode_miou": None, "episodes": 0}


def test_large_counts_do_not_overflow():
    metric = FewShotIoU([1])
    metric.update(torch.ones(1, 2000, 2000, dtype=torch.bool), torch.ones(1, 2000, 2000, dtype=torch.int64), 1)
    metric.update(torch.tensor([[[0]]]), torch.tensor([[[0]]]), 1)
    assert metric.compute()[:2] == (1.0, 1.0)
    assert metric.compute().episode_miou == 1.0


@pytest.mark.parametrize(("both", "either"), [(2, 3), (1, 3), (1, 7), (1, 2**20 - 1), (3, 4), (5, 5), (0, 9)])
def test_an_episodes_own_iou_is_rounded_to_the_nearest(both, either):
    # Cut off, 2/3 would be too small by 2/3 of the unit, and the mean over many episodes by half a unit.
    prediction, target = torch.zeros(2, 1, 1, either, dtype=torch.int64)
    prediction[..., :both] = 1
    target[...] = 1
    metric = FewShotIoU([1])
    metric.update(prediction, target, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no background
        assert abs(metric.compute().episode_miou - both / either) <= 2**-33


def test_update_never_waits_for_an_accelerator():
    with FakeTensorMode():
        metric = FewShotIoU(CLASSES)
        logits = torch.empty(4, 2, 9, 9, device="cuda")
        target = torch.empty(4, 9, 9, dtype=torch.int64, device="cuda")
        for _ in range(2):
            metric.update(logits, target, torch.empty(4, dtype=torch.int64, device="cuda"))
            metric.update(logits, target, [3, 8, 8, 11])
            metric.update(logits, target, [3, 8, 8, 11], object_shares=torch.empty(4, device="cuda"))
        with pytest.raises(DataDependentOutputException):  # reading a number is what would wait
            metric.compute()


def test_an_unknown_class_on_an_accelerator_is_found_by_compute():
    metric = FewShotIoU(CLASSES)
    predictions, targets, _ = episodes(3)
    metric.update(predictions, targets, CLASSES)
    metric._counts[-1] = metric._counts[0]  # what an id that is not looked at leaves behind
    with pytest.raises(ValueError, match=r"must be among \(3, 8, 11\), got 1 episodes of other classes"):
        metric.compute()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prediction": torch.zeros(2, 5)}, ValueError, r"prediction must have shape \(B, 2, H, W\) or \(B, H, W\)"),
        ({"prediction": torch.zeros(2, 5, 7)}, TypeError, "prediction of shape .* must hold integers or bools"),
        ({"prediction": torch.zeros(2, 3, 5, 7)}, ValueError, r"logits \(B, 2, H, W\), got torch.float32 of shape"),
        ({"prediction": torch.zeros(2, 2, 5, 7, dtype=torch.int64)}, ValueError, "floating-point logits"),
        ({"prediction": torch.zeros(2, 2, 5, 8)}, ValueError, "target must have the W of prediction, 8"),
        ({"prediction": torch.zeros(3, 2, 5, 7)}, ValueError, "target must have the B of prediction, 3"),
        ({"prediction": np.zeros((2, 5, 7))}, TypeError, "prediction must be a tensor"),
        ({"target": torch.zeros(2, 5, 7)}, TypeError, "target must hold integers or bools"),
        ({"target": torch.zeros(2, 1, 5, 7).long()}, ValueError, "target must have shape"),
        ({"class_ids": [3]}, ValueError, r"one class, or 2 for the batch, got shape \(1,\)"),
        ({"class_ids": [[3, 3]]}, ValueError, r"one class, or 2 for the batch, got shape \(1, 2\)"),
        ({"class_ids": [3, 4]}, ValueError, r"class_ids must be among \(3, 8, 11\), got \[3, 4\]"),
        ({"class_ids": 4}, ValueError, r"class_ids must be among \(3, 8, 11\), got 4"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_counts_nothing(change, error, message):
    predictions, targets, _ = episodes(2)
    metric = FewShotIoU(CLASSES)
    with pytest.raises(error, match=message):
        metric.update(**{"prediction": predictions, "target": targets, "class_ids": [3, 8], **change})
    with pytest.warns(UserWarning, match="nothing to score"):
        assert metric.compute().episodes == 0


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="class_ids must be at least one class, got none"):
        FewShotIoU([])
    with pytest.raises(ValueError, match=r"class_ids must be different, got \(3, 3\)"):
        FewShotIoU([3, 3])
    with pytest.raises(ValueError, match="class_names must be different"):
        FewShotIoU([1, 2], class_names={1: "cat", 2: "cat"})


# Sizes of objects

BANDS = {"<2%": (0, 0.02), "2-10%": (0.02, 0.1), ">10%": (0.1, 1)}


def band_of(area, pixels):
    """By fractions, so that nothing is rounded."""
    if area == 0:
        return None
    return (
        "<2%"
        if Fraction(area, pixels) < Fraction(2, 100)
        else ">10%"
        if Fraction(area, pixels) > Fraction(1, 10)
        else "2-10%"
    )


def of_sizes(areas, pixels=100):
    """A target for each area, and predictions that are right, a pixel too many, or one too few."""
    targets = torch.zeros(len(areas), 10, pixels // 10, dtype=torch.int64)
    predictions = torch.zeros_like(targets)
    for row, area in enumerate(areas):
        targets[row].view(-1)[:area] = 1
        predictions[row].view(-1)[: max(area + row % 3 - 1, 0)] = 1
    return predictions, targets


def test_scores_by_size_are_those_of_the_episodes_of_that_size():
    areas = [0, 1, 2, 3, 9, 10, 11, 60, 1, 10, 11, 0, 2]
    predictions, targets = of_sizes(areas)
    classes = [(3, 8)[row % 2] for row in range(len(areas))]
    metric = FewShotIoU([3, 8])
    for part in (slice(0, 4), slice(4, 13)):
        metric.update(predictions[part], targets[part], classes[part])
    report = metric.compute()
    assert list(report.by_size) == list(BANDS)
    for name, found in report.by_size.items():
        rows = [row for row, area in enumerate(areas) if band_of(area, 100) == name]
        expected = naive_report(predictions[rows], targets[rows], [classes[row] for row in rows], classes=(3, 8))
        assert found.episodes == len(rows)
        assert found.miou == pytest.approx(expected[0], abs=1e-12)
        assert found.episode_miou == pytest.approx(expected[3], abs=1e-9)
    assert [found.episodes for found in report.by_size.values()] == [2, 6, 3]


def test_the_borders_belong_to_the_middle():
    for area, name in [(1, "<2%"), (2, "2-10%"), (10, "2-10%"), (11, ">10%")]:
        for shares in (None, torch.tensor([area / 100]), torch.tensor([area / 100], dtype=torch.float64)):
            metric = FewShotIoU([1])
            metric.update(*of_sizes([area]), 1, object_shares=shares)
            assert [size for size, found in metric.compute().by_size.items() if found.episodes] == [name]


def test_sizes_that_are_given_count_instead_of_those_of_the_target():
    predictions, targets = of_sizes([60, 60, 60, 60])
    metric = FewShotIoU([1])
    metric.update(predictions, targets, 1, object_shares=torch.tensor([0.001, 0.05, 0.2, 0.0]))
    assert [found.episodes for found in metric.compute().by_size.values()] == [1, 1, 1]
    assert metric.compute().episodes == 4


@pytest.mark.parametrize(
    ("shares", "error", "message"),
    [
        (torch.zeros(3), ValueError, "object_shares must be 2 for the batch, got 3"),
        (torch.zeros(2, 1), ValueError, r"object_shares must have shape \(B\)"),
        (torch.zeros(2, dtype=torch.int64), TypeError, "object_shares must be a floating-point tensor"),
        ([0.1, 0.2], TypeError, "object_shares must be a tensor"),
    ],
)
def test_shares_that_make_no_sense_are_refused(shares, error, message):
    with pytest.raises(error, match=message):
        FewShotIoU([1]).update(*of_sizes([1, 2]), 1, object_shares=shares)


# Several processes


def test_uneven_processes_report_exactly_what_one_process_reports(tmp_path):
    run_together(count_share, 2, str(tmp_path))
    predictions, targets, classes = episodes(7)
    metric = FewShotIoU(CLASSES)
    expected = []
    for part in (slice(0, 5), slice(5, 7), slice(0, 3)):
        metric.update(predictions[part], targets[part], classes[part])
        expected += [metric.compute().to_dict()] * 2
    for rank, own_episodes in enumerate([5 + 3 + 3, 2 + 3]):  # after an update, until the next sync
        reports = json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        assert reports == [*expected, own_episodes]
        assert "class_ids must be equal in all processes" in (tmp_path / f"{rank}.txt").read_text(encoding="utf-8")


def test_one_process_alone_needs_no_sync():
    predictions, targets, classes = episodes(6)
    metric = FewShotIoU(CLASSES)
    metric.update(predictions, targets, classes)
    before = metric.compute()
    metric.sync()
    assert metric.compute() == before


@pytest.mark.filterwarnings("ignore:nothing to score")
@pytest.mark.parametrize("name", ["base_novel", "n_way"])
def test_an_update_after_sync_counts(monkeypatch, name):
    monkeypatch.setattr(f"fewshotseg.metrics.{name}.sum_over_processes", lambda class_ids, counts: counts)
    metric, images = {
        "base_novel": (BaseNovelIoU([1, 2], [5, 7]), label_maps(4)),
        "n_way": (NWayIoU((3, 8, 11, 20)), n_way_episodes(4, 2)),
    }[name]
    metric.update(*images)
    metric.sync()
    before = metric.compute()
    metric.update(*images)
    counted = "images" if name == "base_novel" else "episodes"
    assert getattr(metric.compute(), counted) == 2 * getattr(before, counted)
