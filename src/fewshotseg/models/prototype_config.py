"""Every number and choice that makes a training-free model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from fewshotseg._checks import check_at_least, check_choice, check_number
from fewshotseg.models.config import check_settings, checked_images
from fewshotseg.ops.kmeans import MAX_CLUSTERS, MAX_ITERS
from fewshotseg.ops.scores import MAX_FACTOR, MAX_KAPPA

KIND = "prototypes"
"""Says in a file that the config is one of these."""

FITTED = {"density": (16.0, -1.1), "cosine": (10.0, -0.9), "kmeans": (12.0, -0.6)}
"""Scale and bias for each score that make probabilities of scores on EfficientNet-Lite0: see docs/segmenter.md."""


@dataclass(frozen=True, kw_only=True)
class PrototypeConfig:
    """Every number and choice of `PrototypeSegmenter`; the defaults were chosen with EfficientNet-Lite0.

    Attributes:
        backbone: The name from which `build_prototype_segmenter` makes the backbone; None for a module of one's own.
        score: How near a location is to the foreground and to the background of the supports: ``"density"``, how
            densely their points lie around it (see `density_logits`); ``"cosine"``, its cosine with their mean;
            ``"kmeans"``, its largest cosine with one of several prototypes.
        kappa: How fast the influence of a point falls with the angle, for ``"density"``; above 0.
        num_prototypes: Of the foreground, for ``"kmeans"``.
        num_background_prototypes: Of the background, likewise.
        kmeans_iters: Rounds of k-means.
        features: Which map of the backbone is compared: the deepest ``"mid"``-level one or the ``"high"``-level one.
            None takes the first of a backbone that can be cut, the second of one that cannot, see `WholeBackbone`.
        scale: What a difference of scores of 1 adds to the log odds of the foreground; above 0. None takes what was
            fitted for the score, see `FITTED`.
        bias: The log odds where both scores are equal; likewise.
        image_size: Side in pixels of the square that images are brought to, by `FewShotPredictor` for one.
        mean: Of red, green and blue from 0 to 1, for the images' normalisation; None takes the backbone's.
        std: Likewise.
        threshold: The probability from which on a pixel counts as foreground, between 0 and 1.
        presence: Scale and bias of the score that says whether an image shows the object at all, see `Prediction`. The
            default is not fitted to anything.

    Raises:
        ValueError: If a number is out of range or a choice is unknown.
        TypeError: If a value is of the wrong type.

    Example:
        >>> PrototypeConfig(score="kmeans").num_prototypes
        5
    """

    backbone: str | None = None
    score: Literal["density", "cosine", "kmeans"] = "density"
    kappa: float = 20.0
    num_prototypes: int = 5
    num_background_prototypes: int = 10
    kmeans_iters: int = 10
    features: Literal["mid", "high"] | None = None
    scale: float | None = None
    bias: float | None = None
    image_size: int = 321
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    threshold: float = 0.3
    presence: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        check_choice("score", self.score, ("density", "cosine", "kmeans"))
        if self.features is not None:
            check_choice("features", self.features, ("mid", "high"))
        checked = {
            **checked_images(self),
            "kappa": check_number("kappa", self.kappa, 0.01, MAX_KAPPA),
            "kmeans_iters": check_at_least("kmeans_iters", self.kmeans_iters, 0, MAX_ITERS),
        }
        for name, lowest in (("scale", 1e-3), ("bias", -MAX_FACTOR)):
            if getattr(self, name) is not None:
                checked[name] = check_number(name, getattr(self, name), lowest, MAX_FACTOR)
        for name in ("num_prototypes", "num_background_prototypes"):
            checked[name] = check_at_least(name, getattr(self, name), 1, MAX_CLUSTERS)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, and which kind of model they make; for JSON and for `from_dict`."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": KIND, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that these fields make; those left out have their defaults.

        Raises:
            ValueError: As the class.
            TypeError: As the class, or if ``values`` is no mapping, or a field is unknown.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"config must be a mapping of settings, got {type(values).__name__}")
        settings = {name: value for name, value in values.items() if (name, value) != ("kind", KIND)}
        check_settings(settings, cls)
        return cls(**settings)
