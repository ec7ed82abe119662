"""PANet's alignment loss: the query's prediction, used as a support mask, must segment the supports."""

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_number, check_sizes, check_tensor, check_void
from fewshotseg.ops import cosine_logits, masked_average_pool, resize_bilinear
from fewshotseg.ops._cross_entropy import cross_entropies
from fewshotseg.ops._values import check_label_masks, check_logits
from fewshotseg.ops.scores import MAX_FACTOR


def alignment_loss(
    query_features: Tensor,
    query_logits: Tensor,
    support_features: Tensor,
    support_masks: Tensor,
    *,
    scale: float = 20.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Compute the cross entropy of segmenting the supports by prototypes that are pooled from the query's prediction.

    $$\mathcal{L} = \operatorname{CE}\big(s\,[\cos(F^s, p_0), \cos(F^s, p_1)],\, M^s\big), \qquad
    p_k = \operatorname{MAP}(F^q, [\hat M^q = k])$$

    This is PANet's prototype alignment regularisation (Wang et al., ICCV 2019).

    Args:
        query_features: ``(B, C, h, w)``, floating point.
        query_logits: ``(B, 2, h', w')``, the model's prediction, channel 1 foreground; resized to ``h x w``.
        support_features: ``(B, S, C, h'', w'')``.
        support_masks: ``(B, S, H, W)`` label masks: 1 foreground, 0 background, ``ignore_index`` void.
        scale: $s$, the factor of the cosines; 20 in PANet.
        ignore_index: The label of void, neither 0 nor 1.

    Returns:
        The mean over all labelled pixels of all shots, a scalar of at least float32. As in PANet, the supports of a
        query without predicted foreground are left out; 0 if all are. Differentiable in both features, not in
        ``query_logits``.

    Raises:
        ValueError: If a shape or a device does not fit, a number is out of range, or masks on a CPU hold other labels
            than 0, 1 and void.
        TypeError: If features or logits are not floating point, or masks hold neither integers nor bools.

    Example:
        >>> import torch
        >>> query, support = torch.rand(2, 8, 9, 9), torch.rand(2, 1, 8, 9, 9)
        >>> logits, masks = torch.rand(2, 2, 9, 9), torch.randint(0, 2, (2, 1, 65, 65))
        >>> alignment_loss(query, logits, support, masks).shape
        torch.Size([])
    """
    check_tensor("query_features", query_features, "B C H W")
    check_floating("query_features", query_features)
    check_logits("query_logits", query_logits)
    check_sizes("query_logits", query_logits, "B", query_features, "query_features")
    check_tensor("support_features", support_features, "B S C H W")
    check_floating("support_features", support_features)
    check_sizes("support_features", support_features, "B S C", query_features, "query_features", "B C")
    check_tensor("support_masks", support_masks, "B S H W")
    check_sizes("support_masks", support_masks, "B S", support_features, "support_features")
    scale = check_number("scale", scale, 0, MAX_FACTOR)
    ignore_index = check_void("ignore_index", ignore_index)
    targets = check_label_masks("support_masks", support_masks.flatten(0, 1), void=ignore_index)  # BS H W

    shots, size = support_features.shape[1], (query_features.shape[2], query_features.shape[3])
    is_foreground = resize_bilinear(query_logits, size).argmax(dim=1) == 1  # B h w
    prototypes = masked_average_pool(query_features, torch.stack([~is_foreground, is_foreground], dim=1))  # B 2 C
    logits = cosine_logits(support_features.flatten(0, 1), prototypes.repeat_interleave(shots, dim=0), scale=scale)
    found = is_foreground.flatten(1).any(dim=1).repeat_interleave(shots)[:, None, None]
    return cross_entropies([logits], torch.where(found, targets, ignore_index)[None], ignore_index)[0, 0]
