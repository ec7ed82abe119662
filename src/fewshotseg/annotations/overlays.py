"""Draws masks on photographs, and cuts objects out of them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor
from torchvision import tv_tensors
from torchvision.utils import draw_segmentation_masks

from fewshotseg._checks import as_list, check_at_least, check_share, shown
from fewshotseg.annotations.labels import ClassMask, class_ids, present_classes
from fewshotseg.images import ImageLike, to_image
from fewshotseg.images.mask_rule import VOID

Colour = tuple[int, int, int]

# fmt: off
COLOURS: list[Colour] = [
    (228, 0, 43), (0, 114, 178), (240, 180, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233),
    (148, 80, 200),
]
# fmt: on
"""Colours of the first classes, chosen to be told apart also by colour-blind people; later classes repeat them."""


def overlay(
    image: ImageLike, mask: ClassMask, *, colours: Sequence[Colour] = COLOURS, alpha: float = 0.4
) -> tv_tensors.Image:
    """Tint a photograph inside its mask, and draw the mask's outline with a width in proportion to the size.

    Args:
        image: The photograph.
        mask: ``(H, W)`` bool or integers: 0 background, 1, 2, ... classes; 255 void is not drawn.
        colours: Red, green and blue from 0 to 255 of each class; repeated if there are more classes.
        alpha: Opacity of the tint, from 0 to 1; the outline is opaque.

    Returns:
        ``(3, H, W)`` uint8.

    Raises:
        ValueError: If the sizes differ, or an argument is out of range.
        TypeError: If ``image`` is not an image, or ``colours`` are not numbers.

    Example:
        >>> overlay(np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=bool)).shape
        torch.Size([3, 4, 4])
    """
    picture = draw_overlay(image, mask, colours=colours, alpha=alpha)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).as_subclass(tv_tensors.Image)


def draw_overlay(
    image: ImageLike, mask: ClassMask, *, colours: Sequence[Colour] = COLOURS, alpha: float = 0.4
) -> Image.Image:
    """Draw as `overlay` does, and return a PIL image."""
    check_share("alpha", alpha)
    colours = _checked(colours)
    ids = class_ids(mask)
    pixels = _pixels(image)
    _check_size(pixels, ids)
    width = max(2, round(max(ids.shape) / 400))
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    for class_id, where in present_classes(ids):
        colour = colours[(class_id - 1) % len(colours)]
        area = Image.fromarray(255 * where.astype(np.uint8))
        inside = area.filter(ImageFilter.BoxBlur(width)).point([0] * 255 + [255])  # farther than width from the edge
        picture.paste(picture.point(_tints(colour, alpha)), mask=area)
        picture.paste(colour, mask=ImageChops.subtract(area, inside))
    return picture


def _checked(colours: Sequence[Colour]) -> list[Colour]:
    """Return the colours as tuples of Python integers; raise unless there is one, and each is three from 0 to 255."""
    listed = [as_list("every colour", colour, "three numbers") for colour in as_list("colours", colours, "a list")]
    if not listed or not all(len(colour) == 3 for colour in listed):
        raise ValueError(f"colours must be one or more of three numbers each, got {shown(listed)}")
    checked = [[check_at_least("every number of colours", value, 0, 255) for value in colour] for colour in listed]
    return [(red, green, blue) for red, green, blue in checked]


def _tints(colour: Colour, alpha: float) -> list[int]:
    """Make torchvision's tint as a lookup table for red, green and blue, which is faster than drawing all pixels."""
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    tints: list[int] = (
        draw_segmentation_masks(values, torch.ones(1, 256, dtype=torch.bool), alpha=alpha, colors=colour)
        .flatten()
        .tolist()
    )
    return tints


def cutout(image: ImageLike, mask: ClassMask) -> Image.Image:
    """Make everything but the objects of a photograph transparent; returns a PIL image of mode RGBA.

    Args:
        image: The photograph.
        mask: ``(H, W)`` bool or integers: 0 background, 1, 2, ... classes, 255 void, which is transparent too.

    Raises:
        ValueError: If the sizes differ.
        TypeError: If ``image`` is not an image.
    """
    ids = class_ids(mask)
    pixels = _pixels(image)
    _check_size(pixels, ids)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.putalpha(Image.fromarray(255 * ((ids > 0) & (ids != VOID)).astype(np.uint8)))
    return picture


def _pixels(image: ImageLike) -> Tensor:
    """Convert a photograph to ``(3, H, W)`` uint8, without a copy if it already is."""
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3:
        pixels: Tensor = image.cpu()
    else:
        pixels = (255 * to_image("image", image)).round().to(torch.uint8)
    plain: Tensor = pixels.as_subclass(Tensor)
    return plain


def _check_size(pixels: Tensor, ids: NDArray[np.uint8]) -> None:
    if tuple(pixels.shape[1:]) != ids.shape:
        raise ValueError(f"mask must have the size of its image, {tuple(pixels.shape[1:])}, got {ids.shape}")
