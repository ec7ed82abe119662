"""Cross entropy over the labelled pixels of a batch; void pixels change neither its value nor its gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg.ops._precision import at_least_float32, without_autocast
from fewshotseg.ops._values import all_finite
from fewshotseg.ops.resizing import resize_bilinear


def cross_entropy(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Compute the mean over labelled pixels, 0 without any: ``(B, 2, h, w)``, ``(B, H, W)`` int64 -> scalar."""
    labelled = target != ignore_index  # B H W
    with without_autocast(logits):
        resized = _resize_logits(at_least_float32(logits), labelled)  # B 2 H W
        # On an accelerator reduction="sum" is not deterministic, and raises under use_deterministic_algorithms.
        reduction = "sum" if logits.device.type == "cpu" else "none"
        total = F.cross_entropy(resized, target, ignore_index=ignore_index, reduction=reduction).sum()
        return total / labelled.sum().clamp_min(1)


def _resize_logits(logits: Tensor, labelled: Tensor) -> Tensor:
    """Resize logits to the size of ``labelled``; if some are not finite, unlabelled pixels get 0."""
    size = (labelled.shape[1], labelled.shape[2])
    if all_finite(logits):
        return resize_bilinear(logits, size)
    # 0 * NaN is NaN, so interpolation spreads NaN even with a weight of 0. Resize without NaN, then put it back.
    if size != (logits.shape[2], logits.shape[3]):
        finite = logits.isfinite()
        reached = resize_bilinear((~finite).to(logits.dtype), size) > 0
        logits = resize_bilinear(torch.where(finite, logits, 0), size).masked_fill(reached, torch.nan)
    return torch.where(labelled[:, None], logits, 0)
