"""Background regions (Eq. 5), and maps of prototypes: E^s (Eq. 2) and E^q (Eq. 7)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshotseg._checks import check_at_least, check_labels, check_size, check_sizes, check_tensor, check_void
from fewshotseg.ops._values import look_at_indices
from fewshotseg.ops.kmeans import MAX_CLUSTERS


def background_regions(labels: Tensor, masks: Tensor, num_regions: int, *, ignore_index: int = 255) -> Tensor:
    r"""Remove the foreground and void from each region.

    $$\bar M_k \leftarrow \bar M_k - \bar M_k \cap M$$

    Args:
        labels: ``(B, H, W)`` integers, the region of every location, from 0 to K - 1.
        masks: ``(B, H, W)`` label masks: 1 foreground, ``ignore_index`` void, anything else background.
        num_regions: K, from 1 to 65536.
        ignore_index: The label of void, neither 0 nor 1.

    Returns:
        ``(B, K, H, W)`` bool. A region that lies within the foreground is empty.

    Raises:
        ValueError: If a shape or a device does not fit, a number is out of range, or labels on a CPU are not from 0 to
            K - 1.
        TypeError: If ``labels`` or ``masks`` hold neither integers nor bools, or a number is not an integer.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[[0, 0, 1, 1]]])
        >>> background_regions(labels, torch.tensor([[[0, 1, 1, 255]]]), 2).int()
        tensor([[[[1, 0, 0, 0]],
        <BLANKLINE>
                 [[0, 0, 0, 0]]]], dtype=torch.int32)
    """
    check_tensor("labels", labels, "B H W")
    check_labels("labels", labels)
    check_tensor("masks", masks, "B H W")
    check_labels("masks", masks)
    check_sizes("masks", masks, "B H W", labels, "labels")
    num_regions = check_at_least("num_regions", num_regions, 1, MAX_CLUSTERS)
    ignore_index = check_void("ignore_index", ignore_index)
    labels, masks = labels.long(), masks.long()  # small integers would wrap ignore_index round
    look_at_indices("labels", labels, num_regions)
    regions = labels[:, None] == torch.arange(num_regions, device=labels.device)[:, None, None]
    background = (masks != 1) & (masks != ignore_index)
    return regions & background[:, None]


def expand_prototypes(prototypes: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat one prototype at every location: E^s of Eq. 2.

    Args:
        prototypes: ``(B, C)``.
        size: ``(H, W)`` of the map.

    Returns:
        ``(B, C, H, W)``, a view that takes no memory. Differentiable.

    Raises:
        ValueError: If ``prototypes`` is not two-dimensional, or ``size`` is not two numbers from 1 to 65536.

    Example:
        >>> import torch
        >>> expand_prototypes(torch.tensor([[1.0, 2.0]]), (2, 3)).shape
        torch.Size([1, 2, 2, 3])
    """
    check_tensor("prototypes", prototypes, "B C")
    return prototypes[:, :, None, None].expand(-1, -1, *check_size("size", size))


def assign_prototypes(prototypes: Tensor, labels: Tensor) -> Tensor:
    """Put at every location the prototype of its label: E^q of Eq. 7.

    Args:
        prototypes: ``(B, K, C)``.
        labels: ``(B, H, W)`` int64, from 0 to K - 1.

    Returns:
        ``(B, C, H, W)``. Differentiable in ``prototypes``.

    Raises:
        ValueError: If a shape or a device does not fit, or labels on a CPU are not from 0 to K - 1.
        TypeError: If ``labels`` is not int64.

    Example:
        >>> import torch
        >>> prototypes = torch.tensor([[[1.0], [2.0]]])
        >>> assign_prototypes(prototypes, torch.tensor([[[0, 1, 1]]]))
        tensor([[[[1., 2., 2.]]]])
    """
    check_tensor("prototypes", prototypes, "B K C")
    check_tensor("labels", labels, "B H W")
    check_sizes("labels", labels, "B H W", prototypes, "prototypes", "B K C")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {labels.dtype}")
    look_at_indices("labels", labels, prototypes.shape[1])
    batch, count, _ = prototypes.shape
    firsts = count * torch.arange(batch, device=labels.device)[:, None, None]  # B 1 1
    # The gradient of an embedding sums sorted rows: on a GPU many times faster than that of gather, which adds each
    # number atomically to one of a few prototypes.
    return F.embedding(labels + firsts, prototypes.flatten(0, 1)).movedim(3, 1)
