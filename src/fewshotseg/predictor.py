"""Segments your own images from a few annotated examples."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, overload

import torch
from torch import Tensor

from fewshotseg._checks import check_at_least, check_flag, check_path, checked_device
from fewshotseg._examples import Examples, Shots, encode_seen, fitted_shots, is_several, own_iou
from fewshotseg._inference import at_once, example_weight, inference
from fewshotseg._io import StrPath
from fewshotseg.data.transforms import padded_eval
from fewshotseg.images import ImageLike, to_image
from fewshotseg.models import FrozenBackboneModel, SegmentationModel, hub
from fewshotseg.models.backbones import AnyBackbone, image_statistics
from fewshotseg.models.checkpoints import check_savable
from fewshotseg.models.encodings import repeated
from fewshotseg.models.fast.backbone import FastBackbone
from fewshotseg.models.segmentation_model import check_model, evidence_of, in_fast_form, threshold_of
from fewshotseg.prediction import Prediction, prediction_of
from fewshotseg.support_files import Encoder, encoder_of, load_examples, save_examples


class FewShotPredictor:
    """Segments any number of images by one or a few annotated examples, which are encoded once.

    Images may have any size: each is resized so that its longer side has ``size`` pixels, and padded to a square, as in
    evaluation; predictions are resized to the image's own size. EXIF orientation is applied to files and PIL images,
    see `fewshotseg.images.to_image`.

    Args:
        model: A model of `build_scnet` or `load_model`, with trained weights; or another `SegmentationModel`. It is
            moved to ``device``; its training mode is not changed.
        size: Side of the square in pixels, best that of training; ``"model"`` uses ``model.config.image_size``.
        device: Device to compute on; by default the model's.
        check_examples: Segment each example's own photograph, and warn if the example is not found; see `set_support`.

    Raises:
        ValueError: If ``size`` is below 32, or there is no such device.
        TypeError: If ``size`` is not an integer, or ``device`` not a device.

    Example:
        >>> import numpy as np, fewshotseg
        >>> predictor = fewshotseg.FewShotPredictor(fewshotseg.build_scnet("mobilenet_v2", hidden_channels=16), size=65)
        >>> photo, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), bool)
        >>> mask[20:40, 30:50] = True
        >>> predictor.set_support(photo, mask)
        >>> predictor.predict(np.zeros((50, 40, 3), np.uint8)).mask.shape
        torch.Size([50, 40])
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        size: int | Literal["model"] = "model",
        device: torch.device | str | None = None,
        check_examples: bool = False,
    ) -> None:
        check_model(model)
        config: Any = getattr(model, "config", None)
        self.size: int = getattr(config, "image_size", 473) if size == "model" else size
        check_at_least("size", self.size, 32)
        self.check_examples = check_flag("check_examples", check_examples)
        network: Any = model
        self.model = network if device is None else network.to(checked_device(device))
        statistics = image_statistics(getattr(model, "backbone", None) if config is None else config)
        self._fast = FastBackbone(self.model.backbone) if isinstance(model, FrozenBackboneModel) else None
        self._transform = padded_eval(self.size, **statistics)
        self._window: float = getattr(config, "example_window", 0.0)
        self._examples: Examples | None = None  # one attribute, as another thread may replace it during predict

    @classmethod
    def from_pretrained(
        cls,
        name: StrPath = hub.DEFAULT_MODEL,
        *,
        size: int | Literal["model"] = "model",
        device: torch.device | str | None = None,
        check_examples: bool = True,
        backbone: AnyBackbone | None = None,
    ) -> Self:
        """Make a predictor with a trained model.

        Args:
            name: ``"scnet-lite2"``, the faster ``"scnet-lite0"`` or the training-free ``"prototypes-lite0"``, models in
                the package (they need the extra ``lite``); a file or folder of `save_model` or `save_pretrained`; or
                ``"owner/name"`` on the Hugging Face hub (extra ``hub``), which is downloaded once and then used from
                the cache, also offline.
            size: As above.
            device: As above; the CPU by default.
            check_examples: As above.
            backbone: If the model was built on your own module: a module of the same kind; see `load_model`.

        Raises:
            ValueError: If there is no such model, its file is damaged, or as above.
            FileNotFoundError: If there is no such file.
            ImportError: If a package that the model needs is not installed.
        """
        model = hub.load_pretrained(name, backbone=backbone)
        return cls(model, size=size, device=device, check_examples=check_examples)

    def save_pretrained(self, folder: StrPath, *, origin: dict[str, Any] | None = None) -> None:
        """Save the model, with this predictor's size, as a folder for `from_pretrained`.

        Args:
            folder: The folder for ``config.json``, ``model.safetensors`` and the model card, ``README.md``.
            origin: A record of how the weights were trained, in plain values; shown on the card.

        Raises:
            ImportError: If the extra ``hub`` is not installed.
            TypeError: If the model is not a model of this package.
        """
        hub.save_pretrained(self._to_save(), folder, origin=origin)

    def push_to_hub(self, name: str, *, private: bool = False, origin: dict[str, Any] | None = None) -> str:
        """Upload the model, with this predictor's size, to the Hugging Face hub; log in by ``hf auth login`` first.

        Args:
            name: ``"owner/name"`` of the repository, which is created if it does not exist.
            private: Whether a new repository is visible to its owner only.
            origin: As above.

        Returns:
            The address of the uploaded commit.

        Raises:
            ImportError: If the extra ``hub`` is not installed.
            ValueError: If the name is not ``owner/name``, or the upload fails.
            TypeError: If the model is not a model of this package.
        """
        return hub.push_to_hub(self._to_save(), name, private=private, origin=origin)

    def set_support(self, images: Shots | Mapping[Any, Shots], masks: Shots | Mapping[Any, Shots]) -> None:
        """Set the annotated examples of what to segment, replacing earlier ones.

        A model with the setting ``example_window`` sees each of them twice, see `SCNetConfig`.

        With ``check_examples`` each example's own photograph is segmented, using all examples of its class. If the IoU
        with its mask is below 0.3, a warning names the example: results on other photographs will be no better. Mark it
        tighter, use a photograph that shows it larger, or give more examples.

        Args:
            images: One image or several, of one class; for several classes, a mapping from class names to these.
            masks: The mask of each image, of the same size: bool, or 1 foreground, 0 background, 255 void; or a
                drawing, see `fewshotseg.images.to_mask`. For several classes, a mapping with the same names.

        Raises:
            ValueError: If there is no image, numbers or sizes differ, or a mask holds other values or no foreground.
            TypeError: If something is not an image.
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
            names = tuple(images)
            encoded = [self._encode(images[name], masks[name], f"[{name!r}]") for name in names]
            self._keep(encoded, names)
        elif not isinstance(images, Mapping) and not isinstance(masks, Mapping):
            self._keep([self._encode(images, masks, "")], None)

    def save_support(self, path: StrPath) -> None:
        """Save the encoded examples and the class names, for `load_support` with the same model.

        Args:
            path: The file, usually ending in ``.fss``, in an existing folder; an existing file is replaced atomically.
                It holds features of the photographs, not the photographs.

        Raises:
            RuntimeError: If there are no examples yet.
            TypeError: If a class name is neither a string nor a number.
            OSError: If the file cannot be written.
        """
        if self._examples is None:
            raise RuntimeError("set_support must be called before save_support")
        save_examples(self._examples, self._encoder(), check_path("path", path))

    def load_support(self, path: StrPath) -> None:
        """Load examples of `save_support`, replacing earlier ones; no code in the file is executed.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, of another format, or of a model with other weights, settings or size. The
                earlier examples are then kept.
        """
        path = check_path("path", path)
        blank = torch.zeros(1, 1, 3, self.size, self.size).to(example_weight(self.model))
        with inference(self.model):
            like = in_fast_form(self.model, self._fast).encode_support(blank, torch.ones_like(blank[:, :, 0]).long())
        self._examples = load_examples(path, self._encoder(), like)

    def _encoder(self) -> Encoder:
        return encoder_of(self.model, self.size, example_weight(self.model).dtype)

    @property
    def class_names(self) -> tuple[Any, ...]:
        """The class names of `set_support` or `load_support`, in the order of their labels 1, 2, ...

        Empty if there are no examples, or one class without a name.
        """
        return () if self._examples is None else self._examples.names or ()

    @property
    def example_iou(self) -> tuple[tuple[float, ...], ...]:
        """For each class the IoU of each example's mask with the prediction for its own photograph.

        Empty if ``check_examples`` is off, see `set_support`, and after `load_support`, whose file does not hold it.
        """
        return () if self._examples is None else self._examples.iou

    @overload  # a string is a path, though it is a sequence of strings too
    def predict(self, image: ImageLike, *, threshold: float | None = None) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, image: Sequence[ImageLike], *, threshold: float | None = None) -> list[Prediction]: ...

    def predict(
        self, image: ImageLike | Sequence[ImageLike], *, threshold: float | None = None
    ) -> Prediction | list[Prediction]:
        """Segment an image, or several.

        Args:
            image: A path, a PIL image, an array or a tensor, of any size; or a list of these, of different sizes and
                kinds. The images of a list are read one after the other, and segmented in small batches on a GPU.
            threshold: Probability above which a pixel belongs to the class, between 0 and 1; by default
                ``model.config.threshold``, or 0.5, with the model's ``peak_threshold`` and ``min_presence``.

        Returns:
            The mask, the probabilities and the presence; for a list, a list of them in order. Several classes are
            segmented one by one; a pixel gets the most probable class, or 0 if none is above the threshold.

        Raises:
            RuntimeError: If there are no examples yet.
            ValueError: If an image has an impossible shape or values, or the threshold is out of range. In a list, one
                unreadable image fails the whole call.
            TypeError: If something is not an image.
            OSError: If there is no such file.
        """
        examples = self._examples
        if examples is None:
            raise RuntimeError("set_support must be called before predict")
        threshold = threshold_of(self.model, threshold)
        if not is_several(image):
            return self._predict(examples, threshold, [to_image("image", image)])[0]
        step = at_once(example_weight(self.model))
        found: list[Prediction] = []
        for first in range(0, len(image), step):
            few = image[first : first + step]
            pixels = [to_image(f"image[{first + number}]", each) for number, each in enumerate(few)]
            found += self._predict(examples, threshold, pixels)
        return found

    def _predict(self, examples: Examples, threshold: float, images: Sequence[Tensor]) -> list[Prediction]:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        with inference(self.model):
            model = in_fast_form(self.model, self._fast)
            squares = torch.stack([self._transform(image) for image in images])  # B 3 S S
            query = model.encode_query(squares.to(example_weight(model)))
            supports = [repeated(support, len(images)) for support in examples.supports]
            logits = torch.stack([model.segment(support, query) for support in supports], dim=1).float()  # B K 2 S S
            evidence = evidence_of(model, supports, query)
            return [
                prediction_of(
                    self.model,
                    logits[number],
                    size,
                    self.size,
                    threshold,
                    several=examples.names is not None,
                    evidence=None if evidence is None else evidence[number],
                )
                for number, size in enumerate(sizes)
            ]

    def _encode(self, images: Shots, masks: Shots, which: str) -> tuple[Any, tuple[float, ...]]:
        """Encode the examples of a class; with ``check_examples`` also compute the IoU on their own photographs."""
        squares, fitted = fitted_shots(images, masks, which, self._transform, self.size, self._window)  # 1 S ...
        squares = squares.to(example_weight(self.model))
        with inference(self.model):
            model = in_fast_form(self.model, self._fast)
            support = encode_seen(model, squares, fitted)
            if not self.check_examples:
                return support, ()
            whole = len(images) if is_several(images) else 1
            return support, own_iou(model, support, squares[0, :whole], fitted[0, :whole], threshold_of(model, None))

    def _keep(self, encoded: Sequence[tuple[Any, tuple[float, ...]]], names: tuple[Any, ...] | None) -> None:
        supports, iou = zip(*encoded, strict=True)
        examples = Examples(supports, names, iou if self.check_examples else ())
        if examples.poor():
            warnings.warn(examples.poor(), stacklevel=3)
        self._examples = examples

    def _to_save(self) -> Any:
        """Copy the model, sharing all weights, with this predictor's size in its config."""
        check_savable(self.model)
        model = copy.copy(self.model)
        model.config = replace(model.config, image_size=self.size)
        return model
