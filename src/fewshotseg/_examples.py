"""Annotated examples on their way to a model: from what people have to squares, to encodings, for one query or many."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import TypeIs

from fewshotseg.images import ImageLike, keep_location, keep_object, to_image, to_mask
from fewshotseg.models import Support
from fewshotseg.ops import fitted_size

Shots = ImageLike | Sequence[ImageLike]


class Examples(NamedTuple):
    """What a predictor was shown.

    Attributes:
        supports: The encoding of each class, of batch 1.
        names: Of the classes; None for one class without a name.
    """

    supports: Sequence[Any]
    names: tuple[Any, ...] | None


def is_several(images: object) -> TypeIs[Sequence[ImageLike]]:
    """Whether this is a list of images rather than one."""
    return isinstance(images, Sequence) and not isinstance(images, str | bytes)


def fitted_shots(
    images: Shots, masks: Shots, which: str, transform: Callable[..., Any], size: int
) -> tuple[Tensor, Tensor]:
    """Bring the examples of a class to squares.

    Args:
        images: One or several, as people have them.
        masks: As many.
        which: Of the classes it is, for messages.
        transform: Takes an image and its mask to the square.
        size: Of the square.

    Returns:
        ``(1, S, 3, size, size)`` images and ``(1, S, size, size)`` masks, none of which has lost its object.

    Raises:
        ValueError: If there is no image, numbers or sizes differ, or something cannot be read as what it should be.
        TypeError: If something is no image.
    """
    images = images if is_several(images) else [images]
    masks = masks if is_several(masks) else [masks]
    if len(images) != len(masks) or not images:
        raise ValueError(
            f"images{which} and masks{which} must be equally many, at least one, got {len(images)} and {len(masks)}"
        )
    shots = []
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pixels = to_image(f"images{which}[{number}]", image)
        labels = to_mask(f"masks{which}[{number}]", mask)
        if pixels.shape[1:] != labels.shape:
            raise ValueError(
                f"masks{which}[{number}] must have the size of its image, {tuple(pixels.shape[1:])}, "
                f"got {tuple(labels.shape)}"
            )
        square, fitted = transform(pixels, labels)
        height, width = fitted_size((labels.shape[0], labels.shape[1]), size)
        fitted[:height, :width] = keep_object(labels, fitted[:height, :width])
        shots.append((square, fitted))
    squares, fitted_masks = (torch.stack(part)[None] for part in zip(*shots, strict=True))
    return squares, fitted_masks


def encode_seen(model: Any, images: Tensor, masks: Tensor) -> Any:
    """Encode supports; those whose object falls between the locations of the feature grid, at the nearest location."""
    support = model.encode_support(images, masks.to(images.device))
    if isinstance(support, Support):
        grid = (support.weights.shape[2], support.weights.shape[3])
        seen = torch.stack([keep_location(mask, grid) for mask in masks[0]])[None]
        if not torch.equal(seen, masks):
            support = model.encode_support(images, seen.to(images.device))
    return support


def repeated(encoding: Any, count: int) -> Any:
    """An encoding of batch 1 for ``count`` queries; nothing is copied."""
    if count == 1:
        return encoding
    parts = [part.expand(count, *part.shape[1:]) if isinstance(part, Tensor) else part for part in encoding]
    return encoding._make(parts) if hasattr(encoding, "_make") else tuple(parts)
