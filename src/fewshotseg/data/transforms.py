"""Transforms of an image and its episode mask, as presets named after the methods that use them.

All are compositions of `torchvision.transforms.v2`; print one to see its settings. They take an image as
``tv_tensors.Image`` (uint8, ``(3, H, W)``) and a mask as ``tv_tensors.Mask`` (int64, ``(H, W)``, 1 foreground,
0 background, 255 void) and return the normalised float32 image and the int64 mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_number, check_numbers
from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD
from fewshotseg.data._pairs import check_image, check_pair
from fewshotseg.data.geometry import Blur, FitSquare, ForegroundCrop, RandomScale
from fewshotseg.data.sources.source import VOID
from fewshotseg.ops.square import MAX_SQUARE


class Preset(v2.Compose):  # type: ignore[misc]  # torchvision has no types
    """A ``v2.Compose`` for an image and its mask.

    Random numbers come from torch's default CPU generator, even if another device is the default.
    """

    @override
    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask | None = None) -> Any:
        """Transform an image and its mask.

        Args:
            image: ``(3, H, W)``, uint8 or floating point.
            mask: ``(H, W)`` label mask; presets for evaluation also accept an image without a mask.

        Returns:
            Image and mask, or only the image.

        Raises:
            ValueError: If a shape does not fit, or a side is empty.
            TypeError: If they are not ``tv_tensors.Image`` and ``tv_tensors.Mask``, or of another dtype.
        """
        if mask is None and not any(isinstance(each, RandomScale | ForegroundCrop) for each in self.transforms):
            check_image(image)
        else:
            check_pair(image, mask)
        if image.shape[0] != 3:
            raise ValueError(f"image must have 3 channels, got shape {tuple(image.shape)}")
        with torch.device("cpu"):
            return super().forward(image) if mask is None else super().forward(image, mask)


def _normalize(mean: Sequence[float], std: Sequence[float]) -> v2.Normalize:
    return v2.Normalize(list(check_numbers("mean", mean, 3, 0, 1)), list(check_numbers("std", std, 3, 0.001, 1)))


def pfenet_train(
    size: int = 473,
    *,
    scale: tuple[float, float] | None = (0.9, 1.1),
    degrees: float = 10.0,
    rotate_p: float = 0.5,
    blur_kernel: int = 5,
    blur_sigma: float = 1.1,
    blur_p: float = 0.5,
    flip_p: float = 0.5,
    keep: float = 0.85,
    max_redraws: int = 31,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preset:
    """Make PFENet's augmentation: random scale, rotation, blur, mirroring and a crop that keeps the object.

    The defaults are PFENet's for PASCAL-5i; for COCO-20i it uses ``size=641, scale=(0.8, 1.25)``. Pixels that rotation
    and padding uncover get the mean colour (0 after normalisation) and are void in the mask.

    Args:
        size: Side of the square crop in pixels, up to 16384.
        scale: Smallest and largest factor of a random resize, from 0.01 to 10; None does not resize.
        degrees: Largest angle of the rotation about the centre, in either direction, 0 to 180.
        rotate_p: Probability of the rotation.
        blur_kernel: Side of the Gaussian kernel, odd, up to 99 pixels. Images of at most half its side are not blurred.
        blur_sigma: Standard deviation of the Gaussian kernel, from 0.01 to 100 pixels.
        blur_p: Probability of the blur.
        flip_p: Probability of mirroring left to right.
        keep: See `ForegroundCrop`.
        max_redraws: See `ForegroundCrop`.
        mean: Mean of red, green and blue, from 0 to 1, to normalise by; also the colour of the padding.
        std: Standard deviation of red, green and blue, from 0.001 to 1, to normalise by.

    Returns:
        The transform, for example for an `EpisodeDataset`.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.zeros(3, 60, 80, dtype=torch.uint8))
        >>> mask = tv_tensors.Mask(torch.zeros(60, 80, dtype=torch.long))
        >>> image, mask = pfenet_train(size=65)(image, mask)
        >>> image.shape, image.dtype, mask.shape, mask.dtype
        (torch.Size([3, 65, 65]), torch.float32, torch.Size([65, 65]), torch.int64)
    """
    normalize = _normalize(mean, std)
    fill = {tv_tensors.Image: list(normalize.mean), tv_tensors.Mask: VOID}
    degrees = check_number("degrees", degrees, 0, 180)
    rotate = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
    return Preset(
        [
            v2.ToDtype(torch.float32, scale=True),
            *([] if scale is None else [RandomScale(scale)]),
            v2.RandomApply([rotate], p=check_number("rotate_p", rotate_p, 0, 1)),
            v2.RandomApply([Blur(blur_kernel, blur_sigma)], p=check_number("blur_p", blur_p, 0, 1)),
            v2.RandomHorizontalFlip(check_number("flip_p", flip_p, 0, 1)),
            ForegroundCrop(size, keep=keep, max_redraws=max_redraws, color=normalize.mean),
            normalize,
        ]
    )


def scnet_train(
    size: int = 473,
    *,
    degrees: float = 10.0,
    rotate_p: float = 0.5,
    flip_p: float = 0.5,
    keep: float = 0.85,
    max_redraws: int = 31,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preset:
    """Make the augmentation that the SCNet paper describes (Sec. 4.2): `pfenet_train` without scale and blur.

    Args:
        size: Side of the square crop in pixels; 473 for both benchmarks.
        degrees: Largest angle of the rotation, in either direction.
        rotate_p: Probability of the rotation.
        flip_p: Probability of mirroring left to right.
        keep: See `ForegroundCrop`.
        max_redraws: See `ForegroundCrop`.
        mean: Mean of red, green and blue, from 0 to 1, to normalise by; also the colour of the padding.
        std: Standard deviation of red, green and blue, from 0.001 to 1, to normalise by.

    Returns:
        The transform.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> len(scnet_train().transforms), len(pfenet_train().transforms)
        (6, 7)
    """
    return pfenet_train(
        size,
        scale=None,
        degrees=degrees,
        rotate_p=rotate_p,
        blur_p=0.0,
        flip_p=flip_p,
        keep=keep,
        max_redraws=max_redraws,
        mean=mean,
        std=std,
    )


def pfenet_eval(
    size: int = 473,
    *,
    multiple: int = 8,
    color: Sequence[float] = (0.0, 0.0, 0.0),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preset:
    """Make PFENet's resize for evaluation: into the top-left corner of a black square.

    Sides are rounded down to multiples of 8, so the longer one fills 472 of 473 pixels (640 of 641). The padding is
    black before normalisation, so it is not 0 afterwards.

    Args:
        size: Side of the square in pixels.
        multiple: See `fitted_size`.
        color: Colour of the padding: red, green and blue from 0 to 1.
        mean: Mean of red, green and blue, from 0 to 1, to normalise by.
        std: Standard deviation of red, green and blue, from 0.001 to 1, to normalise by.

    Returns:
        The transform, without randomness; `restore_size` inverts it for maps.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.full((3, 50, 100), 255, dtype=torch.uint8))
        >>> image, mask = pfenet_eval(65)(image, tv_tensors.Mask(torch.ones(50, 100, dtype=torch.long)))
        >>> image.shape, [int((mask == label).sum()) for label in (1, 255)] == [32 * 64, 65 * 65 - 32 * 64]
        (torch.Size([3, 65, 65]), True)
    """
    return Preset(
        [
            v2.ToDtype(torch.float32, scale=True),
            FitSquare(size, multiple=multiple, color=check_numbers("color", color, 3, 0, 1), antialias=False),
            _normalize(mean, std),
        ]
    )


def padded_eval(
    size: int = 473,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preset:
    """Make a resize for evaluation: the longer side becomes ``size``, and the rest of the square the mean colour.

    Args:
        size: Side of the square in pixels.
        mean: Mean of red, green and blue, from 0 to 1, to normalise by; also the colour of the padding, which is 0
            after normalisation.
        std: Standard deviation of red, green and blue, from 0.001 to 1, to normalise by.

    Returns:
        The transform, without randomness; `restore_size` inverts it for maps.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.full((3, 50, 100), 255, dtype=torch.uint8))
        >>> image, mask = padded_eval(65)(image, tv_tensors.Mask(torch.ones(50, 100, dtype=torch.long)))
        >>> int((mask == 1).sum()) == 32 * 65, image[:, 40, 40].tolist()
        (True, [0.0, 0.0, 0.0])
    """
    normalize = _normalize(mean, std)
    return Preset([v2.ToDtype(torch.float32, scale=True), FitSquare(size, color=normalize.mean), normalize])


def hsnet_eval(
    size: int = 400,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preset:
    """Make HSNet's resize, which it also uses in training: every image is stretched to a square, with its mask.

    Args:
        size: Side of the square in pixels.
        mean: Mean of red, green and blue, from 0 to 1, to normalise by.
        std: Standard deviation of red, green and blue, from 0.001 to 1, to normalise by.

    Returns:
        The transform, without randomness.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> import torch
        >>> image = tv_tensors.Image(torch.zeros(3, 50, 100, dtype=torch.uint8))
        >>> hsnet_eval()(image, tv_tensors.Mask(torch.ones(50, 100, dtype=torch.long)))[1].shape
        torch.Size([400, 400])
    """
    size = check_at_least("size", size, 1, MAX_SQUARE)
    return Preset(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((size, size), antialias=True),
            _normalize(mean, std),
        ]
    )
