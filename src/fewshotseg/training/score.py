"""Evaluates a model under a protocol; processes share the episodes."""

from collections.abc import Callable, Iterable, Sequence

import torch

from fewshotseg._io import progress_bar
from fewshotseg.data import EpisodeDataset, EvaluationProtocol
from fewshotseg.evaluation import evaluate
from fewshotseg.metrics import FewShotIoU, IoUReport
from fewshotseg.models import SegmentationModel
from fewshotseg.training.processes import ProcessInfo

AMP = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Name -> dtype of automatic mixed precision."""

READERS = 4
"""Threads that read images while an accelerator computes; none on a CPU, which is busy itself."""


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
    """Evaluate a model, with each process on its share of the episodes.

    Args:
        model: The model.
        episodes: Episodes of `draw_test`.
        class_ids: The classes to average over.
        protocol: The protocol, which says where pixels are counted.
        process: This process; rank 0 shows a progress bar.
        batch: Episodes in a batch.
        threshold: Probability above which a pixel is foreground; by default the model's own.
        wrap: Wraps the numbers of the episodes, and may raise to stop the evaluation.
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
        progress=lambda numbers: wrap(progress_bar(numbers, "testing", show=process.shows_progress)),
    )
