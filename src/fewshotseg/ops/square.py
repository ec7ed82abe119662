"""Sizes of images that are fitted into a square, and resizing of maps back to the original size."""

from torch import Tensor

from fewshotseg._checks import check_at_least, check_floating, check_size, check_tensor
from fewshotseg.ops.resizing import resize_bilinear

MAX_SQUARE = 2**14
"""Largest side of a crop or square, in pixels."""


def fitted_size(original: tuple[int, int], size: int, *, multiple: int = 1) -> tuple[int, int]:
    """Compute the size of an image after resizing it to fit into a square with its aspect ratio kept.

    Args:
        original: Height and width of the image.
        size: Side of the square, up to 16384.
        multiple: Both sides are rounded down to a multiple of this, but are at least this.

    Returns:
        Height and width; the longer one is ``size``, rounded down to a multiple.

    Raises:
        ValueError: If ``multiple`` is below 1, ``size`` below ``multiple``, or a number is too large.
        TypeError: If a number is not an integer, or ``original`` is not two integers.

    Example:
        >>> fitted_size((375, 500), 473, multiple=8)
        (352, 472)
        >>> fitted_size((375, 500), 473)
        (354, 473)
    """
    original = check_size("original", original)
    size, multiple = check_square(size, multiple)
    longest = max(original)
    # The ratio first, as in PFENet: rounding decides where a side is nearly a multiple.
    ratio = size / longest
    height, width = (size if side == longest else int(side * ratio) for side in original)
    return max(height // multiple, 1) * multiple, max(width // multiple, 1) * multiple


def restore_size(maps: Tensor, original: tuple[int, int], *, inner: tuple[int, int] | None = None) -> Tensor:
    """Resize maps of the padded square back to the original image, bilinearly with aligned corners.

    Args:
        maps: ``(B, C, S, S)``, such as logits for the square of `pfenet_eval` or `padded_eval`.
        original: Height and width of the image before it was fitted.
        inner: Height and width of the image inside the square, from `fitted_size`: the padding is cropped and the rest
            resized. None does as PFENet: the whole square is resized to the image's longer side and then cropped, as if
            the image had filled the longer side (it fills 472 of 473 pixels).

    Returns:
        ``(B, C, H, W)``.

    Raises:
        ValueError: If ``maps`` is not four-dimensional, or not square and ``inner`` is missing; if ``inner`` is larger
            than ``maps``, or a size is out of range.
        TypeError: If ``maps`` is not floating point, or a size not two integers.

    Example:
        >>> import torch
        >>> restore_size(torch.rand(1, 2, 65, 65), (375, 500), inner=fitted_size((375, 500), 65)).shape
        torch.Size([1, 2, 375, 500])
        >>> restore_size(torch.rand(1, 2, 65, 65), (375, 500)).shape
        torch.Size([1, 2, 375, 500])
    """
    check_tensor("maps", maps, "B C H W")
    check_floating("maps", maps)
    height, width = check_size("original", original)
    if inner is not None:
        inner = check_size("inner", inner)
        if inner[0] > maps.shape[2] or inner[1] > maps.shape[3]:
            raise ValueError(f"inner must lie inside maps of shape {tuple(maps.shape)}, got {inner}")
        return resize_bilinear(maps[..., : inner[0], : inner[1]], (height, width))
    if maps.shape[2] != maps.shape[3]:
        raise ValueError(f"maps must be square, got shape {tuple(maps.shape)}")
    longest = max(height, width)
    return resize_bilinear(maps, (longest, longest))[..., :height, :width]


def check_square(size: int, multiple: int) -> tuple[int, int]:
    """Return both numbers; raise unless ``multiple`` is at least 1 and ``size`` at least ``multiple``."""
    multiple = check_at_least("multiple", multiple, 1, MAX_SQUARE)
    return check_at_least("size", size, multiple, MAX_SQUARE), multiple
