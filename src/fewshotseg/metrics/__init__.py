"""Metrics: intersection over union as the few-shot benchmarks compute it."""

from fewshotseg.metrics.base_novel import BaseNovelIoU, BaseNovelReport
from fewshotseg.metrics.few_shot import FewShotIoU
from fewshotseg.metrics.n_way import NWayIoU, NWayReport
from fewshotseg.metrics.report import IoUReport, SizeIoU

__all__ = ["BaseNovelIoU", "BaseNovelReport", "FewShotIoU", "IoUReport", "NWayIoU", "NWayReport", "SizeIoU"]
