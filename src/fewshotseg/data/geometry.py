"""Moves of an image and its episode mask together that torchvision does not have."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg.data.sources.source import VOID
from fewshotseg.ops.square import fitted_size


class RandomScale(nn.Module):
    """Resize by a factor drawn uniformly: the image bilinearly without antialiasing, the mask to the nearest.

    Args:
        scale: Smallest and largest factor.

    Raises:
        ValueError: If the factors are not positive or not in order.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.rand(3, 60, 80))
        >>> mask = tv_tensors.Mask(torch.ones(60, 80, dtype=torch.long))
        >>> [each.shape[-2:] for each in RandomScale((0.5, 0.5))(image, mask)]
        [torch.Size([30, 40]), torch.Size([30, 40])]
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        low, high = scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be two positive factors, the smaller first, got {scale}")
        self.scale = (low, high)

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor]:
        """Resize both by the same factor."""
        low, high = self.scale
        factor = low + (high - low) * float(torch.rand(()))
        size = [max(round(side * factor), 1) for side in mask.shape]
        return F.resize(image, size, antialias=False), F.resize(mask, size)

    @override
    def extra_repr(self) -> str:
        return f"{self.scale}"


class ForegroundCrop(nn.Module):
    """A random square crop that is drawn again while it loses too much of the foreground.

    Sides that are too short are padded first, half on each side, an odd pixel below or right: with ``color``, and
    void in the mask. A mask without foreground takes the first crop.

    Args:
        size: Side of the crop, in pixels.
        color: Of the padding, one number for each channel, in the units of the image.
        keep: The share of the image's foreground pixels (label 1) that a crop must hold.
        max_redraws: How often to draw again at most; the last crop is taken as it is.

    Raises:
        ValueError: If ``size`` is below 1, ``keep`` not from 0 to 1 or ``max_redraws`` negative.

    Example:
        >>> import torch
        >>> image, mask = tv_tensors.Image(torch.rand(3, 99, 99)), torch.zeros(99, 99, dtype=torch.long)
        >>> mask[40:60, 40:60] = 1
        >>> image, mask = ForegroundCrop(70, color=(0.5, 0.5, 0.5))(image, tv_tensors.Mask(mask))
        >>> image.shape, int(mask.sum()) >= 0.85 * 400
        (torch.Size([3, 70, 70]), True)
    """

    def __init__(self, size: int, *, color: Sequence[float], keep: float = 0.85, max_redraws: int = 31) -> None:
        super().__init__()
        check_at_least("size", size, 1)
        check_at_least("max_redraws", max_redraws, 0)
        if not 0 <= keep <= 1:
            raise ValueError(f"keep must be from 0 to 1, got {keep}")
        self.size = size
        self.color = tuple(color)
        self.keep = keep
        self.max_redraws = max_redraws

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor]:
        """Pad and crop both alike."""
        below, right = (max(self.size - side, 0) for side in mask.shape)
        padding = [right // 2, below // 2, right - right // 2, below - below // 2]
        image = F.pad(image, padding, fill=list(self.color))
        mask = F.pad(mask, padding, fill=VOID)
        top, left = self._place(mask == 1)
        return (
            F.crop(image, top, left, self.size, self.size),
            F.crop(mask, top, left, self.size, self.size),
        )

    def _place(self, foreground: Tensor) -> tuple[int, int]:
        enough = self.keep * int(foreground.sum())
        rows, columns = (side - self.size + 1 for side in foreground.shape)
        for _ in range(1 + self.max_redraws):
            top, left = int(torch.randint(rows, ())), int(torch.randint(columns, ()))
            if int(foreground[top : top + self.size, left : left + self.size].sum()) >= enough:
                break
        return top, left

    @override
    def extra_repr(self) -> str:
        return f"{self.size}, color={self.color}, keep={self.keep}, max_redraws={self.max_redraws}"


class FitSquare(nn.Module):
    """Resize into the top-left corner of a square: the image bilinearly, the mask to the nearest, void beside it.

    Args:
        size: Side of the square, in pixels.
        color: Of the padding, one number for each channel, in the units of the image.
        multiple: See `fitted_size`.
        antialias: Whether the image is smoothed before it shrinks; OpenCV, and so PFENet, does not.

    Raises:
        ValueError: If ``multiple`` is below 1 or ``size`` below ``multiple``.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.rand(3, 1, 2))
        >>> mask = tv_tensors.Mask(torch.ones(1, 2, dtype=torch.long))
        >>> FitSquare(4, color=(0, 0, 0))(image, mask)[1]
        Mask([[  1,   1,   1,   1],
              [  1,   1,   1,   1],
              [255, 255, 255, 255],
              [255, 255, 255, 255]])
    """

    def __init__(self, size: int, *, color: Sequence[float], multiple: int = 1, antialias: bool = True) -> None:
        super().__init__()
        check_at_least("multiple", multiple, 1)
        check_at_least("size", size, multiple)
        self.size = size
        self.color = tuple(color)
        self.multiple = multiple
        self.antialias = antialias

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Resize and pad both alike; an image without a mask comes back alone."""
        height, width = fitted_size((image.shape[-2], image.shape[-1]), self.size, multiple=self.multiple)
        padding = [0, 0, self.size - width, self.size - height]
        fitted: Tensor = F.pad(self._resized(image, height, width), padding, fill=[*self.color])
        if mask is None:
            return fitted
        return fitted, F.pad(F.resize(mask, [height, width]), padding, fill=VOID)

    def _resized(self, image: Tensor, height: int, width: int) -> Tensor:
        if width == 1:  # torch's antialiased resize to one column repeats the first row; to one row it is right
            column: Tensor = F.resize(image.mT, [1, height], antialias=self.antialias).mT
            return column
        resized: Tensor = F.resize(image, [height, width], antialias=self.antialias)
        return resized

    @override
    def extra_repr(self) -> str:
        return f"{self.size}, color={self.color}, multiple={self.multiple}, antialias={self.antialias}"
