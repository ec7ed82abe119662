"""The settings of the training-free model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from fewshotseg._checks import check_at_least, check_choice, check_number
from fewshotseg.models.config import check_settings, checked_images
from fewshotseg.ops.kmeans import MAX_CLUSTERS, MAX_ITERS
from fewshotseg.ops.scores import MAX_FACTOR, MAX_KAPPA

KIND = "prototypes"
"""The entry ``kind`` of a saved `PrototypeConfig`."""

FITTED = {"density": (16.0, -1.1), "cosine": (10.0, -0.9), "kmeans": (12.0, -0.6)}
"""Score -> scale and bias that turn it into log-odds, fitted with EfficientNet-Lite0: see docs/segmenter.md."""


@dataclass(frozen=True, kw_only=True)
class PrototypeConfig:
    """All settings of `PrototypeSegmenter`; the defaults were chosen with EfficientNet-Lite0.

    Attributes:
        backbone: Name of the backbone for `build_prototype_segmenter`; None if the backbone is your own module.
        score: How a location is compared with the foreground and background of the supports: ``"density"``, the
            density of their points around it (see `density_logits`); ``"cosine"``, its cosine with their mean;
            ``"kmeans"``, its largest cosine with one of several prototypes.
        kappa: Concentration of the kernel for ``"density"``: how fast the influence of a point falls with the angle.
            Above 0.
        num_prototypes: Number of foreground prototypes for ``"kmeans"``.
        num_background_prototypes: Number of background prototypes for ``"kmeans"``.
        kmeans_iters: Rounds of k-means.
        features: Map of the backbone to compare: the deepest ``"mid"``-level or the ``"high"``-level one. None uses
            ``"mid"`` for a `Backbone` and ``"high"`` for a `WholeBackbone`.
        scale: Factor of the score difference in the log-odds of the foreground; above 0. None uses the fitted value
            of the score, see `FITTED`.
        bias: Log-odds of the foreground where both scores are equal; likewise.
        image_size: Side in pixels of the square that images are resized to, for example by `FewShotPredictor`.
        mean: Mean of red, green and blue, from 0 to 1, to normalise images by; None uses the backbone's.
        std: Standard deviation, likewise.
        threshold: Probability above which a pixel is foreground, between 0 and 1.
        peak_threshold: Probability, from 0 to 1, that a region above ``threshold`` must exceed somewhere to be in
            `Prediction.mask` (hysteresis thresholding). It goes with ``threshold``: another threshold that is given to
            `FewShotPredictor.predict` is applied alone.
        min_presence: Presence, from 0 to 1, below which nothing of a class is in `Prediction.mask`. It goes with
            ``threshold`` likewise.
        presence: Scale and bias of the presence score, which says whether an image shows the object at all; see
            `Prediction`. The default is not fitted to data.
        example_window: If not 0, `FewShotPredictor` encodes each example twice: the whole photograph, and a square
            window around the object whose side is this many times the object's, where it and its parts are larger.

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
    peak_threshold: float = 0.0
    min_presence: float = 0.0
    presence: tuple[float, float] = (1.0, 0.0)
    example_window: float = 0.0

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
        """Return all fields and the kind of model as plain values, for JSON and for `from_dict`."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": KIND, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from fields; those that are missing have their defaults.

        Raises:
            ValueError: As the class.
            TypeError: As the class, or if ``values`` is not a mapping, or a field is unknown.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"config must be a mapping of settings, got {type(values).__name__}")
        settings = {name: value for name, value in values.items() if (name, value) != ("kind", KIND)}
        check_settings(settings, cls)
        return cls(**settings)
