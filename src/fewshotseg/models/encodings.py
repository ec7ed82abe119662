"""The encodings that SCNet's stages exchange, its output, and checks of their inputs."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import check_floating, check_labels, check_sizes, check_tensor
from fewshotseg.ops._precision import is_eager_cpu

SMALLEST_SIDE = 32
"""Smallest side of an image in pixels; below it the feature grid has hardly a cell."""


IMAGES_AT_ONCE = 16
"""Supports that an accelerator encodes in one pass: enough to keep it busy, with bounded memory."""


class Support(NamedTuple):
    """Annotated examples of one class, encoded; reusable for any number of queries.

    Attributes:
        prototype: ``(B, C)``, the mean of the shots' foreground prototypes.
        high: ``(B, S, C', h, w)`` high-level features of the masked supports; None with ``prior="density"``, which does
            not use them.
        weights: ``(B, S, h, w)``, the masks resized to the grid of the features that are compared, from 0 to 1.
        background: ``(B, C)``, the mean of the shots' background prototypes; None unless the model's
            ``background_source`` is the support (Table 4).
        points: ``(B, S, N, C'')`` of unit length, the backbone's features at all N locations of each shot. Like the
            next two it is None unless the model uses densities: a ``density_weight`` above 0, or ``prior="density"``.
        point_foreground: ``(B, S, N)``, the share of each location's pixels that is foreground.
        point_background: ``(B, S, N)``, likewise for the background.
    """

    prototype: Tensor
    high: Tensor | None
    weights: Tensor
    background: Tensor | None = None
    points: Tensor | None = None
    point_foreground: Tensor | None = None
    point_background: Tensor | None = None


class Query(NamedTuple):
    """Images to segment, encoded; reusable for any number of supports.

    Attributes:
        features: ``(B, C, h, w)``, the features that are compared with prototypes.
        high: ``(B, C', h', w')`` high-level features; None with ``prior="density"`` unless asked for.
        size: Height and width of the images.
        maps: ``(B, C'', h, w)`` mid-level maps of the backbone; None unless asked for.
        deepest: The deepest mid-level map, which is compared with the supports' points; None if the model uses none.
    """

    features: Tensor
    high: Tensor | None
    size: tuple[int, int]
    maps: Tensor | None = None
    deepest: Tensor | None = None


class SCNetOutput(NamedTuple):
    """The output of `SCNet`.

    Attributes:
        logits: ``(B, 2, H, W)`` at the query's size, channel 1 foreground.
        loss: Eq. 9, and that of learned points if there are any, a scalar tensor; None without query masks.
        losses: The parts of the loss by name, tensors before their weights: ``main`` and ``aux`` of the class-specific
            branch; of the class-agnostic branch, if there is one, ``self_contrast_main`` and ``self_contrast_aux``; and
            with ``learned_points``, ``points``.
    """

    logits: Tensor
    loss: Any = None  # a type checker cannot know whether there were query masks
    losses: Any = None


def shot_by_shot(
    encode: Callable[[Tensor, Tensor], Support], images: Tensor, masks: Tensor, *, at_once: bool = True
) -> Support:
    """Encode ``(B, S, 3, H, W)`` images and ``(B, S, H, W)`` masks as one support.

    On a CPU shots are encoded one by one, which takes as long and less memory; on an accelerator several at a time.

    Args:
        encode: Encodes ``(B', 3, H, W)`` images and their masks as supports of one shot each.
        images: The images of all shots.
        masks: The masks of all shots.
        at_once: Whether several shots may pass the backbone in one batch.
    """
    batch, shots = masks.shape[:2]
    count = max(1, IMAGES_AT_ONCE // max(batch, 1)) if at_once and not is_eager_cpu(images) else 1

    def encoded() -> Iterator[Support]:
        for some, their_masks in zip(torch.split(images, count, dim=1), torch.split(masks, count, dim=1), strict=True):
            together = encode(some.flatten(0, 1), their_masks.flatten(0, 1))
            shape = (batch, some.shape[1])
            parts = [None if part is None else part.reshape(*shape, *part.shape[1:]) for part in together]
            for number in range(some.shape[1]):
                yield Support._make(None if part is None else part[:, number] for part in parts)

    return merged(encoded(), shots)


def merged(shots: Iterable[Support], count: int) -> Support:
    """Merge ``count`` supports of one shot each; if they come from a generator, only one is in memory at a time."""
    if count == 1:
        return next(iter(shots))
    prototypes, weights, backgrounds, points, high = [], [], [], [], None
    for number, shot in enumerate(shots):
        if shot.high is not None:
            if high is None:
                high = shot.high.new_empty(shot.high.shape[0], count, *shot.high.shape[2:])
            high[:, number : number + 1] = shot.high
        prototypes.append(shot.prototype)
        weights.append(shot.weights)
        if shot.background is not None:
            backgrounds.append(shot.background)
        if shot.points is not None:
            points.append((shot.points, shot.point_foreground, shot.point_background))
    background = torch.stack(backgrounds).mean(dim=0) if backgrounds else None
    together = Support(torch.stack(prototypes).mean(dim=0), high, torch.cat(weights, dim=1), background)
    if not points:
        return together
    joined = [torch.cat(parts, dim=1) for parts in zip(*points, strict=True)]
    return together._replace(points=joined[0], point_foreground=joined[1], point_background=joined[2])


def in_kind(encoding: Any, parts: Iterable[Any]) -> Any:
    """Make a tuple of the same type as ``encoding`` from other parts."""
    return encoding._make(parts) if hasattr(encoding, "_make") else tuple(parts)


def repeated(encoding: Any, count: int) -> Any:
    """Expand an encoding from batch 1 to batch ``count`` without a copy; one of batch ``count`` is unchanged."""
    return in_kind(
        encoding, [part.expand(count, *part.shape[1:]) if isinstance(part, Tensor) else part for part in encoding]
    )


def check_batch(support: Tensor, batch: int) -> None:
    """Raise `ValueError` unless a tensor of supports has batch 1 or that of the query."""
    if support.shape[0] not in (1, batch):
        raise ValueError(f"support must have batch 1 or the query's, {batch}, got {support.shape[0]}")


def check_annotated(images: Tensor, masks: Tensor, *, kind: str = "", axes: str = "B") -> None:
    """Raise unless images ``(*axes, 3, H, W)`` and masks ``(*axes, H, W)`` fit; messages call them ``kind`` images."""
    check_tensor(f"{kind}images", images, f"{axes} 3 H W")
    check_tensor(f"{kind}masks", masks, f"{axes} H W")
    check_sizes(f"{kind}masks", masks, f"{axes} H W", images, f"{kind}images", f"{axes} 3 H W")


def check_images(name: str, images: Tensor, weight: Tensor) -> None:
    """Raise unless ``images`` are ``(..., 3, H, W)`` floating-point tensors with sides of at least 32 pixels.

    They must have the device of ``weight`` and, unless autocast is on, its dtype. On a CPU they must be finite, too.
    """
    check_floating(name, images)
    if images.device != weight.device:
        raise ValueError(f"{name} must be on the model's device, {weight.device}, got {images.device}")
    if images.dtype != weight.dtype and not torch.is_autocast_enabled(images.device.type):
        raise TypeError(f"{name} must have the model's dtype, {weight.dtype}, got {images.dtype}")
    if images.shape[-3] != 3 or min(images.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"{name} must have 3 channels and sides of at least {SMALLEST_SIDE} pixels, got {tuple(images.shape)}"
        )
    if is_eager_cpu(images) and not bool(images.isfinite().all()):
        raise ValueError(f"{name} must hold finite numbers, got NaN or infinity")


def check_episodes(support_images: Tensor, query_images: Tensor, query_masks: Tensor | None) -> None:
    """Raise unless queries, their masks and the supports have fitting shapes and the same batch."""
    check_tensor("query_images", query_images, "B 3 H W")
    if query_masks is not None:
        check_tensor("query_masks", query_masks, "B H W")
        check_labels("query_masks", query_masks)
        check_sizes("query_masks", query_masks, "B", query_images, "query_images")
    check_tensor("support images", support_images, "B S 3 H W")
    check_sizes("support images", support_images, "B", query_images, "query_images")
