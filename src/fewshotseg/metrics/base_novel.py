"""Metrics of generalised few-shot segmentation, where one label map holds base and novel classes."""

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import check_labels, check_sizes, check_tensor, check_void, check_whole_numbers, shown
from fewshotseg.metrics.counting import (
    Counts,
    checked_names,
    has_nan,
    mean,
    or_none,
    predicted_labels,
    share,
    sum_over_processes,
    table,
)
from fewshotseg.ops._devices import copy_to
from fewshotseg.ops._precision import is_eager_cpu

MAX_LABEL = 2**16
"""Largest class id, as labels are looked up in a table."""


class BaseNovelReport(NamedTuple):
    """The scores of `BaseNovelIoU`, from 0 to 1; printed in percent.

    Attributes:
        base: Mean IoU of the base classes, without the background.
        novel: Mean IoU of the novel classes.
        mean: The mean of ``base`` and ``novel``, as in DIaM.
        harmonic: The harmonic mean of ``base`` and ``novel``, 0 if one of them is 0.
        miou: Mean IoU of all classes and the background.
        background_iou: IoU of label 0, which some papers count among the base classes.
        per_class: Class id -> IoU, base classes first; NaN for a class without a scored pixel in target or prediction.
        images: Number of images.
        class_names: Class id -> name, for printing; may be empty.
    """

    base: float
    novel: float
    mean: float
    harmonic: float
    miou: float
    background_iou: float
    per_class: Mapping[int, float]
    images: int
    class_names: Mapping[int, str]

    def to_dict(self) -> dict[str, object]:
        """Return the scores for JSON: classes by name, or by id without one; None for NaN."""
        scores = self._asdict()
        return {
            **{name: or_none(scores[name]) for name in ("base", "novel", "mean", "harmonic", "miou", "background_iou")},
            "per_class": {
                self.class_names.get(class_id, str(class_id)): or_none(iou) for class_id, iou in self.per_class.items()
            },
            "images": self.images,
        }

    def __str__(self) -> str:
        scores = {"base": self.base, "novel": self.novel, "mean": self.mean, "harmonic": self.harmonic}
        scores |= {"mIoU": self.miou, "background": self.background_iou}
        scores |= {self.class_names.get(each, f"class {each}"): iou for each, iou in self.per_class.items()}
        rows = [(name, iou, "") for name, iou in scores.items()]
        return f"{table(rows)}\n({self.images} images)"


class BaseNovelIoU:
    """Computes IoU over whole images whose label maps hold base and novel classes.

    Pixels of each class are summed over all images and divided at the end. Counts are int64 and stay on the device of
    the predictions; `update` needs no host-device synchronisation.

    Args:
        base: Base classes, at least one.
        novel: Novel classes, at least one; 0 is the background and in neither.
        ignore_index: The label of target pixels that are not scored.
        class_names: Class id -> name, for the report.

    Raises:
        ValueError: If a class or a name is repeated, a group is empty, or a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> metric = BaseNovelIoU(base=[1, 2], novel=[5], class_names={1: "cat", 2: "dog", 5: "cow"})
        >>> metric.update(torch.tensor([[[0, 1, 1, 5], [2, 2, 0, 5]]]), torch.tensor([[[0, 1, 5, 5], [2, 2, 2, 255]]]))
        >>> print(metric.compute())
        base         58.3
        novel        50.0
        mean         54.2
        harmonic     53.8
        mIoU         54.2
        background   50.0
        cat          50.0
        dog          66.7
        cow          50.0
        (1 images)
    """

    def __init__(
        self,
        base: Iterable[int],
        novel: Iterable[int],
        *,
        ignore_index: int = 255,
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        self.base = check_whole_numbers("base", base, 1)
        self.novel = check_whole_numbers("novel", novel, 1)
        for name, classes in {"base": self.base, "novel": self.novel}.items():
            if not classes:
                raise ValueError(f"{name} must be at least one class, got none")
            if max(classes) > MAX_LABEL:
                raise ValueError(f"{name} must be class ids up to {MAX_LABEL}, got {shown(max(classes))}")
        if both := sorted(set(self.base) & set(self.novel)):
            raise ValueError(f"novel must not hold base classes, got {shown(both)}")
        self.ignore_index = check_void("ignore_index", ignore_index)
        if self.ignore_index in (*self.base, *self.novel):
            raise ValueError(f"ignore_index must be the label of no class, got {self.ignore_index}")
        self.class_names = checked_names(class_names)
        self._labels = (0, *self.base, *self.novel)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._counts: Tensor | None = None  # labels and unknown ones in the target, the same in the prediction
        self._images = 0
        self._all_processes: Counts | None = None

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of images to the counts.

        Args:
            prediction: ``(B, H, W)`` class ids, 0 background; or ``(B, 1 + C, H, W)`` logits, channels in the order
                background, base classes, novel classes.
            target: ``(B, H, W)`` class ids, 0 background, ``ignore_index`` not scored.

        Raises:
            ValueError: If a shape or a device does not fit, or a scored pixel has an unknown label (on an accelerator,
                `compute` raises it). On a CPU also if a scored pixel has a logit that is NaN.
            TypeError: If an argument is of a wrong type or a tensor of a wrong dtype.
        """
        check_tensor("prediction", prediction, "B K H W", "B H W")
        check_tensor("target", target, "B H W")
        check_labels("target", target)
        found = predicted_labels(prediction, len(self._labels), "the background, base and novel classes")
        check_sizes("target", target, "B H W", found, "prediction")
        target = target.long()
        scored = target != self.ignore_index
        if prediction.ndim == 4 and has_nan(prediction, scored):
            raise ValueError("prediction must not hold NaN where a pixel is scored, got NaN")
        true = self._places("target", torch.where(scored, target, 0))
        if prediction.ndim == 3:
            found = self._places("prediction", torch.where(scored, found, 0))
        count = len(self._labels) + 1
        counts = self._counts
        if counts is None:
            counts = found.new_zeros(count * count, dtype=torch.int64)
        self._counts = counts.to(found.device).index_add(0, (true * count + found).flatten(), scored.flatten().long())
        self._images += len(found)
        self._all_processes = None

    def sync(self) -> None:
        """Add up the counts of all processes of `torch.distributed`; see `FewShotIoU.sync`.

        Raises:
            ValueError: If the processes score different classes.
        """
        self._all_processes = sum_over_processes(self._labels, self._tally())

    def compute(self) -> BaseNovelReport:
        """Compute the scores from all images so far; after `sync`, from those of all processes.

        Returns:
            The report. A class without any pixel is NaN and left out of the means, with a warning.

        Raises:
            ValueError: If unknown labels were counted.
        """
        images, *flat = self._tally() if self._all_processes is None else self._all_processes
        count = len(self._labels) + 1
        counts = [flat[start : start + count] for start in range(0, count * count, count)]
        in_target, in_prediction = [sum(row) for row in counts], [sum(column) for column in zip(*counts, strict=True)]
        if unknown := in_target[-1] + in_prediction[-1]:
            raise ValueError(f"labels must be among {shown(self._labels)}, got others at {unknown} pixels")
        iou = {
            label: share(counts[i][i], in_target[i] + in_prediction[i] - counts[i][i])
            for i, label in enumerate(self._labels)
        }
        missing = [str(self.class_names.get(label, label)) for label, each in iou.items() if label and math.isnan(each)]
        if missing:
            warnings.warn(f"nothing to score for {', '.join(missing)}: NaN, and left out of the means", stacklevel=2)
        base, novel = (mean([iou[label] for label in labels]) for labels in (self.base, self.novel))
        return BaseNovelReport(
            base=base,
            novel=novel,
            mean=(base + novel) / 2,
            harmonic=0.0 if base == novel == 0 else 2 * base * novel / (base + novel),
            miou=mean(list(iou.values())),
            background_iou=iou[0],
            per_class={label: each for label, each in iou.items() if label},
            images=images,
            class_names=self.class_names,
        )

    def _places(self, name: str, ids: Tensor) -> Tensor:
        """Return the position of each class id among the labels; for unknown ids the one after the last."""
        last = max(self._labels) + 1
        places = torch.full((last + 1,), len(self._labels), dtype=torch.int64, device="cpu")
        places[list(self._labels)] = torch.arange(len(self._labels), device="cpu")
        found = copy_to(places, ids.device)[torch.where((ids < 0) | (ids > last), last, ids)]
        if is_eager_cpu(found) and (strange := found == len(self._labels)).any():
            raise ValueError(
                f"labels in {name} must be among {shown(self._labels)} where a pixel is scored, "
                f"got {int(ids[strange][0])}"
            )
        return found

    def _tally(self) -> Counts:
        """Return the number of images and all counts in one list."""
        count = len(self._labels) + 1
        return [self._images, *([0] * (count * count) if self._counts is None else self._counts.tolist())]
