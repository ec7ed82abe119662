"""Cross entropy over the labelled pixels of a batch; void pixels change neither its value nor its gradient."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg.ops._precision import at_least_float32, without_autocast
from fewshotseg.ops._values import all_finite
from fewshotseg.ops.resizing import resize_bilinear, resize_by_products, resizing_weights


def cross_entropies(logits: Sequence[Tensor], targets: Tensor, ignore_index: int) -> Tensor:
    """Compute the mean over the labelled pixels of each target, for several logits at once.

    Args:
        logits: S tensors ``(T * B, 2, h, w)`` of any sizes: those of the first target first.
        targets: ``(T, B, H, W)`` int64.
        ignore_index: The label of void.

    Returns:
        ``(S, T)``, 0 for a target without labelled pixels.
    """
    labelled = targets != ignore_index  # T B H W
    with without_autocast(targets):
        resized = _resized([at_least_float32(each) for each in logits], labelled.flatten(0, 1))  # S T*B 2 H W
        repeated = targets.flatten(0, 1).repeat(len(logits), 1, 1)  # S*T*B H W
        # Not reduction="sum", which is not deterministic on an accelerator.
        losses = F.cross_entropy(resized.flatten(0, 1), repeated, ignore_index=ignore_index, reduction="none")
        totals = losses.view(len(logits), targets.shape[0], -1).sum(dim=2)  # S T
        return totals / labelled.flatten(1).sum(dim=1).clamp_min(1)


def _resized(logits: Sequence[Tensor], labelled: Tensor) -> Tensor:
    """Resize logits ``(B, 2, h, w)`` to the size of ``labelled`` and stack them: ``(S, B, 2, H, W)``."""
    size = (labelled.shape[1], labelled.shape[2])
    if all(all_finite(each) for each in logits):
        return torch.stack([resize_bilinear(each, size) for each in logits])
    resized = torch.stack([_resize_where_labelled(each, labelled) for each in logits])
    return torch.where(labelled[:, None], resized, 0)


def _resize_where_labelled(logits: Tensor, labelled: Tensor) -> Tensor:
    """Resize logits; those without weight in any labelled pixel count as 0, so that NaN in them has no effect.

    NaN elsewhere makes the loss NaN, wherever resizing spreads it to.
    """
    old, new = (logits.shape[2], logits.shape[3]), (labelled.shape[1], labelled.shape[2])
    if old == new:
        return logits
    rows, columns = resizing_weights(old, new, logits)
    weights = rows.mT @ labelled.to(logits.dtype) @ columns  # B h w
    logits = torch.where(weights[:, None] > 0, logits, 0)
    return resize_by_products(logits, rows, columns)
