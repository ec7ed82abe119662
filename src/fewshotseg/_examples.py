"""Prepares a predictor's annotated examples: reads, resizes and encodes them, and checks how well they are found."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import crop
from typing_extensions import TypeIs

from fewshotseg._checks import name_some
from fewshotseg._regions import without_weak_regions
from fewshotseg.images import ImageLike, keep_location, keep_object, to_image, to_mask
from fewshotseg.models import Support
from fewshotseg.ops import fitted_size

Shots = ImageLike | Sequence[ImageLike]

POOR = 0.3
"""IoU of an example on its own photograph below which results on other photographs are poor: see docs/predictor.md."""


MIN_WINDOW = 64
"""Smallest side of a window around an object, in pixels of the photograph."""


class Examples(NamedTuple):
    """The encoded examples of a predictor.

    Attributes:
        supports: The encoding of each class, with batch 1.
        names: The names of the classes; None for one class without a name.
        iou: The IoU of each class and example, see `own_iou`; empty if it was not computed.
    """

    supports: Sequence[Any]
    names: tuple[Any, ...] | None
    iou: tuple[tuple[float, ...], ...] = ()

    def poor(self) -> str:
        """Write the warning about examples that are not found in their own photographs; empty if all are."""
        which = [""] if self.names is None else [f"[{name!r}]" for name in self.names]
        poor = [
            f"images{each}[{number}] (IoU {iou:.2f})"
            for each, found in zip(which, self.iou, strict=False)
            for number, iou in enumerate(found)
            if iou < POOR
        ]
        if not poor:
            return ""
        return (
            f"the example is not found in its own photograph: {name_some(poor)}; expect poor results, "
            "mark it tighter, use a photograph that shows it larger, or give more examples"
        )


def is_several(images: object) -> TypeIs[Sequence[ImageLike]]:
    """Whether ``images`` is a sequence of images, not a single one."""
    return isinstance(images, Sequence) and not isinstance(images, str | bytes)


def fitted_shots(
    images: Shots, masks: Shots, which: str, transform: Callable[..., Any], size: int, window: float
) -> tuple[Tensor, Tensor]:
    """Read the examples of a class and resize them into squares.

    Args:
        images: One image or several.
        masks: As many masks.
        which: The class, as messages add it to ``images`` and ``masks``.
        transform: Resizes an image and its mask into the square, and normalises the image.
        size: Side of the square in pixels.
        window: Side of the windows around the objects, in sides of the object; 0 makes none.

    Returns:
        ``(1, S, 3, size, size)`` images and ``(1, S, size, size)`` masks, each of which still shows its object: those
        of the examples, then those of their windows.

    Raises:
        ValueError: If there is no image, numbers or sizes differ, or an image or mask cannot be read.
        TypeError: If something is not an image.
    """
    images = images if is_several(images) else [images]
    masks = masks if is_several(masks) else [masks]
    if len(images) != len(masks) or not images:
        raise ValueError(
            f"images{which} and masks{which} must be equally many, at least one, got {len(images)} and {len(masks)}"
        )
    shots, closer = [], []
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pixels = to_image(f"images{which}[{number}]", image)
        labels = to_mask(f"masks{which}[{number}]", mask)
        if pixels.shape[1:] != labels.shape:
            raise ValueError(
                f"masks{which}[{number}] must have the size of its image, {tuple(pixels.shape[1:])}, "
                f"got {tuple(labels.shape)}"
            )
        shots.append(_fitted(pixels, labels, transform, size))
        if window:
            place = window_around(labels == 1, window)
            closer.append(_fitted(crop(pixels, *place), crop(labels, *place), transform, size))
    squares, fitted_masks = (torch.stack(part)[None] for part in zip(*shots, *closer, strict=True))
    return squares, fitted_masks


def window_around(mask: Tensor, sides: float) -> tuple[int, int, int, int]:
    """Find a square window around an object, as far as it lies in the image.

    Args:
        mask: ``(H, W)`` bool, where the object is; somewhere at least.
        sides: Side of the window, in sides of the object; at least `MIN_WINDOW` pixels.

    Returns:
        Top, left, height and width.

    Example:
        >>> mask = torch.zeros(200, 300, dtype=torch.bool)
        >>> mask[100:140, 270:300] = True
        >>> window_around(mask, 2.0)
        (80, 220, 80, 80)
    """
    lengths = mask.shape[0], mask.shape[1]
    spans = [torch.nonzero(mask.any(dim=1 - axis))[:, 0] for axis in (0, 1)]
    first, last = zip(*((int(span[0]), int(span[-1]) + 1) for span in spans), strict=True)
    object_side = max(end - start for start, end in zip(first, last, strict=True))
    side = max(round(object_side * sides), object_side, MIN_WINDOW)
    height, width = (min(side, length) for length in lengths)
    top, left = (
        min(max((start + end - extent) // 2, 0), length - extent)
        for start, end, extent, length in zip(first, last, (height, width), lengths, strict=True)
    )
    return top, left, height, width


def _fitted(pixels: Tensor, labels: Tensor, transform: Callable[..., Any], size: int) -> tuple[Tensor, Tensor]:
    square, fitted = transform(pixels, labels)
    height, width = fitted_size((labels.shape[0], labels.shape[1]), size)
    fitted[:height, :width] = keep_object(labels, fitted[:height, :width])
    return square, fitted


def encode_seen(model: Any, images: Tensor, masks: Tensor) -> Any:
    """Encode supports; an object that falls between the locations of the feature grid is moved to the nearest one."""
    support = model.encode_support(images, masks.to(images.device))
    if isinstance(support, Support):
        grid = (support.weights.shape[2], support.weights.shape[3])
        seen = torch.stack([keep_location(mask, grid) for mask in masks[0]])[None]
        if not torch.equal(seen, masks):
            support = model.encode_support(images, seen.to(images.device))
    return support


def own_iou(model: Any, support: Any, images: Tensor, masks: Tensor, threshold: float) -> tuple[float, ...]:
    """Segment the examples' own photographs, and compute the IoU with their masks.

    Args:
        model: The model.
        support: The encoding of the class.
        images: ``(S, 3, H, W)``, its examples.
        masks: ``(S, H, W)``, their label masks; void, such as padding, is ignored.
        threshold: Probability above which a pixel is the object.

    Returns:
        The IoU of each example.
    """
    found = []
    for image, mask in zip(images, masks.to(images.device), strict=True):
        probability = model.segment(support, model.encode_query(image[None])).float().softmax(dim=1)[:, 1]  # 1 H W
        answer = (without_weak_regions(model, probability, threshold)[0] > threshold) & (mask != 255)
        found.append(((answer & (mask == 1)).sum() / (answer | (mask == 1)).sum()).item())
    return tuple(found)
