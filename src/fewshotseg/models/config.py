"""The settings of SCNet; with the weights, all that is needed to rebuild a model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, Self

from fewshotseg._checks import check_at_least, check_choice, check_flag, check_number, check_numbers, check_share, shown
from fewshotseg.ops.kmeans import MAX_CLUSTERS, MAX_ITERS
from fewshotseg.ops.square import MAX_SQUARE

MAX_CHANNELS = 2**16
MAX_SCALES = 32
MAX_CELLS = 4096


@dataclass(frozen=True, kw_only=True)
class SCNetConfig:
    """All settings of SCNet; the defaults are the paper's, and PFENet's where the paper does not say.

    Attributes:
        backbone: Name of the backbone for `build_scnet`; None if the backbone is your own module.
        hidden_channels: C, the number of channels of prototypes and of every layer of the comparison head.
        bins: Scales of the comparison head, from fine to coarse: cells along a side, or up to 1 the share of the
            feature map's sides. PFENet uses (60, 30, 15, 8) on PASCAL-5i and (1.0, 0.5, 0.25, 0.125) on COCO-20i.
        num_prototypes: n, the number of background regions of a query; 0 makes the model PFENet.
        kmeans_iters: Rounds of k-means.
        grid_bins: Split queries by a grid of this many rows and columns instead of k-means (Table 6); n is then its
            square.
        self_contrast_weight: Lambda of Eq. 9, from 0 to 1; 0 makes the model PFENet.
        aux_weight: Weight of the deep supervision in the loss of each branch.
        reducer_dropout: Dropout probability for the channels of the reduced features.
        classifier_dropout: Dropout probability for the channels before each classifier.
        norm_stats: ``"frozen"`` keeps the backbone's norm statistics; ``"batch"`` uses and updates batch statistics in
            training, as PFENet does.
        background_source: ``"query"``, or ``"support"`` to take the background prototype from the support (Table 4;
            n = 1 only).
        background_reducer: Whose reduced features background prototypes are pooled from; the paper does not say.
        background_prior: The prior of the class-agnostic branch: ``"zeros"``, the supports' prior (``"shared"``), or 1
            minus it (``"complement"``); the paper does not say.
        prior: The prior of the class-specific branch: ``"similarity"``, PFENet's largest cosine of high-level features
            with the masked supports, scaled to 0..1 in every image; or ``"density"``, the probability from the
            densities of all points of all supports (`density_logits` at kappa 40, divided by 2).
        learned_points: Learn a linear map of the points that densities compare (`PointMap`), with a loss of its own,
            and remember points of training images as further background. At inference ``density_weight`` then weighs
            the density that this gives. The prior keeps the points as they are.
        image_size: Side in pixels of the square that images are resized to, for example by `FewShotPredictor`.
        mean: Mean of red, green and blue, from 0 to 1, to normalise images by; None uses the backbone's.
        std: Standard deviation, likewise.
        threshold: Probability above which a pixel is foreground, between 0 and 1.
        peak_threshold: Probability, from 0 to 1, that a region above ``threshold`` must exceed somewhere to be in
            `Prediction.mask` (hysteresis thresholding). It goes with ``threshold``: another threshold that is given to
            `FewShotPredictor.predict` is applied alone.
        min_presence: Presence, from 0 to 1, below which nothing of a class is in `Prediction.mask`. It goes with
            ``threshold`` likewise.
        density_weight: Weight, 0 or more, of the density score that is added to the foreground logit at inference:
            `density_logits` of foreground minus background at kappa 40, over all points of all supports; with
            ``learned_points``, that of `PointMap`. It helps with several supports, of which the comparison head sees
            only the mean prototype. Without ``learned_points`` it needs no training and is not part of the loss.
        presence: Scale and bias of the presence score, which says whether an image shows the object at all; see
            `Prediction`. The default is not fitted to data.
        example_window: If not 0, `FewShotPredictor` encodes each example twice: the whole photograph, and a square
            window around the object whose side is this many times the object's, where it and its parts are larger.

    Raises:
        ValueError: If a number is out of range, a choice is unknown, or choices exclude each other.
        TypeError: If a value is of the wrong type.

    Example:
        >>> SCNetConfig(num_prototypes=5).self_contrast_weight
        0.5
    """

    backbone: str | None = None
    hidden_channels: int = 256
    bins: tuple[float, ...] = (60, 30, 15, 8)
    num_prototypes: int = 3
    kmeans_iters: int = 10
    grid_bins: int | None = None
    self_contrast_weight: float = 0.5
    aux_weight: float = 1.0
    reducer_dropout: float = 0.5
    classifier_dropout: float = 0.1
    norm_stats: Literal["frozen", "batch"] = "frozen"
    background_source: Literal["query", "support"] = "query"
    background_reducer: Literal["query", "support"] = "query"
    background_prior: Literal["zeros", "shared", "complement"] = "zeros"
    prior: Literal["similarity", "density"] = "similarity"
    learned_points: bool = False
    image_size: int = 473
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    threshold: float = 0.5
    density_weight: float = 0.0
    peak_threshold: float = 0.0
    min_presence: float = 0.0
    presence: tuple[float, float] = (1.0, 0.0)
    example_window: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self._checked_numbers().items():
            object.__setattr__(self, name, value)
        check_choice("norm_stats", self.norm_stats, ("frozen", "batch"))
        check_choice("background_source", self.background_source, ("query", "support"))
        check_choice("background_reducer", self.background_reducer, ("query", "support"))
        check_choice("background_prior", self.background_prior, ("zeros", "shared", "complement"))
        check_choice("prior", self.prior, ("similarity", "density"))
        if self.background_source == "support" and (self.num_prototypes > 1 or self.grid_bins is not None):
            raise ValueError(
                "background_source='support' must go with num_prototypes=1 and no grid_bins, "
                f"got num_prototypes={self.num_prototypes} and grid_bins={self.grid_bins}"
            )

    def _checked_numbers(self) -> dict[str, Any]:
        """Check all numbers, and return them as Python numbers."""
        checked: dict[str, Any] = {
            **checked_images(self),
            "hidden_channels": check_at_least("hidden_channels", self.hidden_channels, 1, MAX_CHANNELS),
            "bins": checked_bins(self.bins),
            "num_prototypes": check_at_least("num_prototypes", self.num_prototypes, 0, MAX_CLUSTERS),
            "kmeans_iters": check_at_least("kmeans_iters", self.kmeans_iters, 0, MAX_ITERS),
            "aux_weight": check_number("aux_weight", self.aux_weight, 0),
            "learned_points": check_flag("learned_points", self.learned_points),
            "density_weight": check_number("density_weight", self.density_weight, 0, 1000),
        }
        for name in ("self_contrast_weight", "reducer_dropout", "classifier_dropout"):
            checked[name] = check_number(name, getattr(self, name), 0, 1)
        if self.grid_bins is not None:
            checked["grid_bins"] = check_at_least("grid_bins", self.grid_bins, 1, 256)
        return checked

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, for JSON and for `from_dict`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from fields; those that are missing have their defaults.

        Raises:
            ValueError: As the class.
            TypeError: As the class, or if ``values`` is not a mapping, or a field is unknown.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"config must be a mapping of settings, got {type(values).__name__}")
        check_settings(values)
        return cls(**values)


def checked_images(config: Any) -> dict[str, Any]:
    """Check the settings that all models share, and return them as Python values."""
    if config.backbone is not None and not isinstance(config.backbone, str):
        raise TypeError(f"backbone must be a name or None, got {type(config.backbone).__name__}")
    checked: dict[str, Any] = {
        "image_size": check_at_least("image_size", config.image_size, 32, MAX_SQUARE),
        "threshold": check_share("threshold", config.threshold, open_ends=True),
        "peak_threshold": check_share("peak_threshold", config.peak_threshold),
        "min_presence": check_share("min_presence", config.min_presence),
        "presence": checked_presence(config.presence),
        "example_window": check_number("example_window", config.example_window, 0, 100),
    }
    for name, lowest in (("mean", 0), ("std", 0.001)):
        if getattr(config, name) is not None:
            checked[name] = check_numbers(name, getattr(config, name), 3, lowest, 1)
    return checked


def check_settings(names: Mapping[str, Any], kind: type = SCNetConfig) -> None:
    """Raise `TypeError` for the first name that is not a field of that config, and suggest a similar one."""
    known = [field.name for field in fields(kind)]
    for name in names:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else f", which are {', '.join(known)}"
            raise TypeError(f"settings must be fields of {kind.__name__}, got {shown(name)}{meant}")


def checked_presence(presence: Any) -> tuple[float, ...]:
    """Return scale and bias of the presence score; raise unless both are finite and the scale is not negative."""
    scale, bias = check_numbers("presence", presence, 2, -1000, 1000)
    check_number("the scale of presence", scale, 0, 1000)
    return scale, bias


def checked_bins(bins: Any) -> tuple[float, ...]:
    """Return the scales of the comparison head; raise unless each is a share up to 1 or a whole number of cells."""
    if isinstance(bins, (str, bytes)) or not isinstance(bins, Sequence):
        raise TypeError(f"bins must be a sequence of numbers, got {type(bins).__name__}")
    if not 1 <= len(bins) <= MAX_SCALES:
        raise ValueError(f"bins must be 1 to {MAX_SCALES} scales, got {len(bins)}")
    return tuple(map(_checked_bin, bins))


def _checked_bin(value: float) -> float:
    side = check_number("every number of bins", value, 0, MAX_CELLS)
    if side == 0 or (side > 1 and side != int(side)):
        raise ValueError(
            f"every number of bins must be a share up to 1 or a whole number of cells up to {MAX_CELLS}, got {value}"
        )
    return side if side <= 1 else int(side)
