"""`FewShotIoU` as a metric of torchmetrics, for example for Lightning."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fewshotseg.metrics.few_shot import FewShotIoU
from fewshotseg.metrics.report import IoUReport
from fewshotseg.ops._devices import copy_to

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("FewShotIoUMetric needs torchmetrics: pip install torchmetrics") from error


class FewShotIoUMetric(Metric):
    """`FewShotIoU` as a metric of torchmetrics: the same counts, summed over processes by torchmetrics.

    Args:
        class_ids: As in `FewShotIoU`.
        ignore_index: As in `FewShotIoU`.
        class_names: As in `FewShotIoU`.
        **settings: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: As `FewShotIoU`.
        TypeError: As `FewShotIoU`.
        ImportError: If torchmetrics is not installed; raised when this module is imported.

    Example:
        >>> metric = FewShotIoUMetric([7, 9])
        >>> target = torch.tensor([[[1, 1, 0, 255]], [[0, 1, 1, 1]]])
        >>> metric.update(torch.tensor([[[1, 0, 0, 1]], [[0, 1, 1, 1]]]), target, [7, 9])
        >>> metric.compute()["miou"]
        tensor(0.7500)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Tensor

    def __init__(
        self,
        class_ids: Iterable[int],
        *,
        ignore_index: int = 255,
        class_names: Mapping[int, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._iou = FewShotIoU(class_ids, ignore_index=ignore_index, class_names=class_names)
        self.add_state("counts", default=torch.tensor(self._iou._tally(), device="cpu"), dist_reduce_fx="sum")

    @override
    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        class_ids: int | Sequence[int] | Tensor,
        *,
        object_shares: Tensor | None = None,
    ) -> None:
        """Count a batch of episodes; see `FewShotIoU.update`."""
        self._iou.reset()
        self._iou.update(prediction, target, class_ids, object_shares=object_shares)
        if self._iou._counts is not None:
            self.counts = self.counts + copy_to(self._iou._counts, self.counts.device)

    @override
    def compute(self) -> dict[str, Tensor]:
        """Compute ``miou``, ``fb_iou`` and ``episode_miou`` as scalars, to be logged; NaN if nothing was counted."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # most classes are missing in a batch
            report = self.report()
        return {name: torch.tensor(getattr(report, name), device="cpu") for name in ("miou", "fb_iou", "episode_miou")}

    def report(self) -> IoUReport:
        """Return the full report of `FewShotIoU.compute`, of this process's episodes."""
        self._iou.reset()
        self._iou._counts = self.counts
        return self._iou.compute()
