"""The adapter counts as the metric does, whatever torchmetrics does with it."""

import pickle
import subprocess
import sys
import warnings

import pytest
import torch

from _metric_processes import CLASSES, count_with_torchmetrics, episodes
from _processes import run_together
from fewshotseg.metrics import FewShotIoU
from fewshotseg.metrics.as_torchmetrics import FewShotIoUMetric

NAMES = ("miou", "fb_iou", "episode_miou")


def expected(*parts):
    metric = FewShotIoU(CLASSES)
    for part in parts:
        metric.update(*part)
    return metric.compute()


def part(start, stop):
    return tuple(each[start:stop] for each in episodes(9))


def assert_scores(found, report):
    assert list(found) == list(NAMES)
    for name in NAMES:
        torch.testing.assert_close(found[name], torch.tensor(getattr(report, name)))


def test_updates_reset_and_reports():
    metric = FewShotIoUMetric(CLASSES)
    for _ in range(2):
        metric.update(*part(0, 5))
        metric.update(*part(5, 9))
        assert_scores(metric.compute(), expected(part(0, 9)))
        assert metric.report() == expected(part(0, 9))
        metric.reset()
    metric.update(*part(0, 3))
    assert metric.report() == expected(part(0, 3))


def test_forward_gives_the_scores_of_a_batch_and_counts_it():
    metric = FewShotIoUMetric(CLASSES)
    for start, stop in [(0, 5), (5, 9)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class may be missing in a batch
            of_batch = expected(part(start, stop))
        assert_scores(metric(*part(start, stop)), of_batch)
        assert_scores(metric.compute(), expected(part(0, stop)))


def test_metrics_are_merged():
    one, other = FewShotIoUMetric(CLASSES), FewShotIoUMetric(CLASSES)
    one.update(*part(0, 5))
    other.update(*part(5, 9))
    one.merge_state(other)
    assert one.report() == expected(part(0, 9))


def test_sizes_are_passed_on():
    metric = FewShotIoUMetric([3])
    metric.update(torch.ones(1, 2, 2).long(), torch.tensor([[[1, 1], [0, 0]]]), 3, object_shares=torch.tensor([0.01]))
    assert metric.report().by_size["<2%"].episodes == 1


def test_another_void_label_is_passed_on():
    metric = FewShotIoUMetric([3], ignore_index=7)
    metric.update(torch.ones(1, 2, 2).long(), torch.tensor([[[1, 1], [0, 7]]]), 3)
    assert metric.report().per_class == {3: pytest.approx(2 / 3)}


def test_batches_may_lack_classes_without_a_warning():
    metric = FewShotIoUMetric([3, 8])
    metric.update(torch.ones(1, 2, 2).long(), torch.tensor([[[1, 1], [0, 0]]]), 3)
    assert metric.compute()["miou"] == 0.5  # a warning would be an error


def test_it_can_be_pickled_and_moved():
    metric = FewShotIoUMetric(CLASSES)
    metric.update(*part(0, 9))
    assert pickle.loads(pickle.dumps(metric)).report() == expected(part(0, 9))
    assert metric.to("cpu").half().counts.dtype == torch.int64


def test_what_is_refused_counts_nothing():
    metric = FewShotIoUMetric(CLASSES)
    metric.update(*part(0, 5))
    with pytest.raises(ValueError, match="class_ids must be among"):
        metric.update(*part(0, 2)[:2], [3, 4])
    assert metric.report() == expected(part(0, 5))


def test_processes_are_summed_by_torchmetrics(tmp_path):
    run_together(count_with_torchmetrics, 2, str(tmp_path))
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt")["miou"] == pytest.approx(expected(episodes(7)).miou)


def test_without_torchmetrics_it_says_what_to_install_and_all_else_works():
    program = """
import sys
sys.modules["torchmetrics"] = None
import fewshotseg.metrics
try:
    import fewshotseg.metrics.as_torchmetrics
except ImportError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "FewShotIoUMetric needs torchmetrics: pip install torchmetrics"
