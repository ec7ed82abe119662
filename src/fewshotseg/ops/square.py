"""Images fitted into a square, and maps of the square brought back to the images' own size."""

from torch import Tensor

from fewshotseg._checks import check_at_least, check_floating, check_size, check_tensor
from fewshotseg.ops.resizing import resize_bilinear

MAX_SQUARE = 2**14
"""Of the sides of crops and squares, in pixels."""


def fitted_size(original: tuple[int, int], size: int, *, multiple: int = 1) -> tuple[int, int]:
    """The size of an image after it was fitted into a square, keeping its proportions.

    Args:
        original: Height and width.
        size: Side of the square, up to 16384.
        multiple: Both sides are rounded down to a multiple of this, but not to less than it.

    Returns:
        Height and width; the longer one is ``size``, rounded down.

    Raises:
        ValueError: If ``multiple`` is below 1, ``size`` below ``multiple``, or a number too large.
        TypeError: If a number is no integer, or ``original`` not two of them.

    Example:
        >>> fitted_size((375, 500), 473, multiple=8)
        (352, 472)
        >>> fitted_size((375, 500), 473)
        (354, 473)
    """
    original = check_size("original", original)
    size, multiple = check_square(size, multiple)
    longest = max(original)
    # The ratio first, as PFENet computes it: float rounding decides when a side is nearly a multiple.
    ratio = size / longest
    height, width = (size if side == longest else int(side * ratio) for side in original)
    return max(height // multiple, 1) * multiple, max(width // multiple, 1) * multiple


def restore_size(maps: Tensor, original: tuple[int, int], *, inner: tuple[int, int] | None = None) -> Tensor:
    """Bring maps from the padded square back to the size that the image had, bilinearly with aligned corners.

    Args:
        maps: ``(B, C, S, S)``, such as logits for the square of `pfenet_eval` or `padded_eval`.
        original: Height and width of the image before it was fitted.
        inner: Height and width of the image inside the square, from `fitted_size`: what lies outside is cut off, the
            rest resized. By default PFENet's way: the whole square is resized to a square of the image's longer
            side and then cut, as if the longer side had filled it (it has 472 of 473 pixels).

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
    """Raise unless ``size`` is the side of a square that a multiple of ``multiple`` fits into."""
    multiple = check_at_least("multiple", multiple, 1, MAX_SQUARE)
    return check_at_least("size", size, multiple, MAX_SQUARE), multiple
