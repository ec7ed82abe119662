"""Geometric transforms of an image and its episode mask that torchvision lacks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_flag, check_number, check_numbers
from fewshotseg.data._pairs import check_color, check_image, check_pair, fill_for
from fewshotseg.data.sources.source import VOID
from fewshotseg.ops.square import MAX_SQUARE, check_square, fitted_size


class RandomScale(nn.Module):
    """Resize by a random factor: the image bilinearly without antialiasing, the mask by nearest sampling.

    Args:
        scale: Smallest and largest factor, from 0.01 to 10.

    Raises:
        ValueError: If the factors are out of range or not in order.
        TypeError: If they are not two numbers.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.rand(3, 60, 80))
        >>> mask = tv_tensors.Mask(torch.ones(60, 80, dtype=torch.long))
        >>> [each.shape[-2:] for each in RandomScale((0.5, 0.5))(image, mask)]
        [torch.Size([30, 40]), torch.Size([30, 40])]
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        low, high = check_numbers("scale", scale, 2, 0.01, 10)
        if low > high:
            raise ValueError(f"scale must be two factors, the smaller first, got {(low, high)}")
        self.scale = (low, high)

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor]:
        """Resize image and mask by the same factor."""
        check_pair(image, mask)
        low, high = self.scale
        factor = low + (high - low) * float(torch.rand((), dtype=torch.float32, device="cpu"))
        size = [max(round(side * factor), 1) for side in mask.shape]
        return F.resize(image, size, antialias=False), F.resize(mask, size)

    @override
    def extra_repr(self) -> str:
        return f"{self.scale}"


class ForegroundCrop(nn.Module):
    """Crop a random square, and draw again while the crop loses too much of the foreground.

    Sides that are too short are first padded equally on both sides, with an odd pixel at the bottom or right: the image
    with ``color``, the mask with void. For a mask without foreground the first crop is taken.

    Args:
        size: Side of the crop in pixels, up to 16384.
        color: Colour of the padding, one number for each channel or for all, in the units of the image.
        keep: Smallest share, from 0 to 1, of the image's foreground pixels (labels above 0 except void) in the crop.
        max_redraws: Largest number of further draws, up to 10000; the last crop is always accepted.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

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
        self.size = check_at_least("size", size, 1, MAX_SQUARE)
        self.color = check_color(color)
        self.keep = check_number("keep", keep, 0, 1)
        self.max_redraws = check_at_least("max_redraws", max_redraws, 0, 10_000)

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor]:
        """Pad and crop image and mask alike."""
        check_pair(image, mask)
        below, right = (max(self.size - side, 0) for side in mask.shape)
        padding = [right // 2, below // 2, right - right // 2, below - below // 2]
        image = F.pad(image, padding, fill=fill_for(image, self.color))
        mask = F.pad(mask, padding, fill=VOID)
        top, left = self._place((mask > 0) & (mask != VOID))
        return (
            F.crop(image, top, left, self.size, self.size),
            F.crop(mask, top, left, self.size, self.size),
        )

    def _place(self, foreground: Tensor) -> tuple[int, int]:
        enough = self.keep * int(foreground.sum())
        rows, columns = (side - self.size + 1 for side in foreground.shape)
        for _ in range(1 + self.max_redraws):
            top, left = (int(torch.randint(count, (), device="cpu")) for count in (rows, columns))
            if int(foreground[top : top + self.size, left : left + self.size].sum()) >= enough:
                break
        return top, left

    @override
    def extra_repr(self) -> str:
        return f"{self.size}, color={self.color}, keep={self.keep}, max_redraws={self.max_redraws}"


class FitSquare(nn.Module):
    """Resize into the top-left corner of a square and pad: the image bilinearly, the mask by nearest sampling.

    Args:
        size: Side of the square in pixels, up to 16384.
        color: Colour of the padding, one number for each channel or for all, in the units of the image. The mask is
            padded with void.
        multiple: See `fitted_size`.
        antialias: Whether to smooth the image when it shrinks; OpenCV, and so PFENet, does not.

    Raises:
        ValueError: If ``multiple`` is below 1, ``size`` below ``multiple``, or a number is out of range.
        TypeError: If an argument is of a wrong type.

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
        self.size, self.multiple = check_square(size, multiple)
        self.color = check_color(color)
        self.antialias = check_flag("antialias", antialias)

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Resize and pad image and mask alike; without a mask only the image is returned."""
        if mask is None:
            check_image(image)
        else:
            check_pair(image, mask)
        height, width = fitted_size((image.shape[-2], image.shape[-1]), self.size, multiple=self.multiple)
        padding = [0, 0, self.size - width, self.size - height]
        fitted: Tensor = F.pad(self._resized(image, height, width), padding, fill=fill_for(image, self.color))
        if mask is None:
            return fitted
        return fitted, F.pad(F.resize(mask, [height, width]), padding, fill=VOID)

    def _resized(self, image: Tensor, height: int, width: int) -> Tensor:
        if width == 1:  # torch's antialiased resize to one column is wrong (it repeats the first row); to one row right
            column: Tensor = F.resize(image.mT, [1, height], antialias=self.antialias).mT
            return column
        resized: Tensor = F.resize(image, [height, width], antialias=self.antialias)
        return resized

    @override
    def extra_repr(self) -> str:
        return f"{self.size}, color={self.color}, multiple={self.multiple}, antialias={self.antialias}"


class Blur(v2.GaussianBlur):  # type: ignore[misc]  # torchvision has no types
    """Apply torchvision's Gaussian blur, except to images that are too small for its mirrored padding.

    Args:
        kernel_size: Side of the Gaussian kernel, odd, up to 99 pixels.
        sigma: Standard deviation of the Gaussian kernel, from 0.01 to 100 pixels.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is not a number.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.rand(3, 2, 2))
        >>> Blur(5, 1.1)(image) is image
        True
    """

    def __init__(self, kernel_size: int, sigma: float) -> None:
        kernel_size = check_at_least("blur_kernel", kernel_size, 1, 99)
        if kernel_size % 2 == 0:
            raise ValueError(f"blur_kernel must be odd, got {kernel_size}")
        super().__init__(kernel_size, sigma=check_number("blur_sigma", sigma, 0.01, 100))

    @override
    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Blur an image; a mask is returned unchanged."""
        return inpt if min(inpt.shape[-2:]) <= self.kernel_size[0] // 2 else super().transform(inpt, params)
