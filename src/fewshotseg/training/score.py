"""Measure a model on episodes, shared by all processes."""

from collections.abc import Callable, Iterable, Sequence

import torch

from fewshotseg._io import progress_bar
from fewshotseg.data import EpisodeDataset, EvaluationProtocol
from fewshotseg.evaluation import evaluate
from fewshotseg.metrics import FewShotIoU, IoUReport
from fewshotseg.models import SegmentationModel
from fewshotseg.training.processes import ProcessInfo

AMP = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of matrix products, by name."""

READERS = 4
"""Threads that read images while an accelerator is busy; a CPU has no hands free."""


def score(
    model: SegmentationModel,
    episodes: EpisodeDataset,
    class_ids: Sequence[int],
    protocol: EvaluationProtocol,
    process: ProcessInfo,
    *,
    batch: int = 1,
    threshold: float | None = None,
    wrap: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> IoUReport:
    """Measure a model, each process on its share of the episodes.

    Args:
        model: What to measure.
        episodes: As `draw_test` gives them.
        class_ids: The classes to average over.
        protocol: Says where pixels are counted.
        process: Of which the first shows a progress bar.
        batch: Episodes at once.
        threshold: Probability from which on a pixel counts as foreground; by default the model's own.
        wrap: Goes around the numbers of the episodes, and may end the measuring by an exception.
    """
    names = episodes.source.class_names
    metric = FewShotIoU(class_ids, class_names={class_id: names[class_id] for class_id in class_ids})
    return evaluate(
        model,
        episodes,
        metric,
        scoring=protocol.scoring,
        batch_size=batch,
        workers=0 if process.device.type == "cpu" else READERS,
        threshold=threshold,
        progress=lambda numbers: progress_bar(wrap(numbers), "testing", show=process.shows_progress),
    )
