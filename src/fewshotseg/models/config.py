"""Every number and choice that makes a model; with the weights, all that it takes to make it again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, Self

from fewshotseg._checks import check_at_least, check_choice, check_number, check_numbers, check_share, shown
from fewshotseg.ops.kmeans import MAX_CLUSTERS, MAX_ITERS
from fewshotseg.ops.square import MAX_SQUARE

MAX_CHANNELS = 2**16
MAX_SCALES = 32
MAX_CELLS = 4096


@dataclass(frozen=True, kw_only=True)
class SCNetConfig:
    """Every number and choice of SCNet; the defaults are the paper's, and PFENet's where the paper is silent.

    Attributes:
        backbone: The name from which `build_scnet` makes the backbone; None for a module of one's own.
        hidden_channels: C, of prototypes and of every layer of the head.
        bins: Scales of the head, fine to coarse: cells a side, or shares of the feature map's sides up to 1.
            PFENet takes (60, 30, 15, 8) on PASCAL-5i and (1.0, 0.5, 0.25, 0.125) on COCO-20i.
        num_prototypes: n, background regions of a query; 0 is PFENet.
        kmeans_iters: Rounds of k-means.
        grid_bins: Regions from a grid of that many rows and columns in place of k-means (Table 6); its square then
            stands for n.
        self_contrast_weight: Lambda of Eq. 9, from 0 to 1; 0 is PFENet.
        aux_weight: Weight of the deep supervision within each branch.
        reducer_dropout: Probability that a channel of the reduced features is dropped in training.
        classifier_dropout: Probability that a channel is dropped in front of each classifier in training.
        norm_stats: ``"frozen"`` leaves the backbone's norm statistics alone; ``"batch"`` uses and updates batch
            statistics in training, as PFENet does.
        background_source: ``"support"`` takes the one background prototype from the support (Table 4; n = 1 only).
        background_reducer: Which reducer's features background prototypes are pooled from; the paper is silent.
        background_prior: What the class-agnostic branch gets as prior: zeros, the supports' (``"shared"``), or 1
            minus it (``"complement"``); the paper is silent.
        prior: Where the head is told to look: ``"similarity"``, PFENet's largest cosine of high-level features with the
            masked supports, from 0 to 1 in every image; or ``"density"``, the probability that the densities of all
            points of all supports give (`density_logits` at kappa 40, divided by 2).
        image_size: Side in pixels of the square that images are brought to, by `FewShotPredictor` for one.
        mean: Of red, green and blue from 0 to 1, for the images' normalisation; None takes the backbone's.
        std: Likewise.
        threshold: The probability from which on a pixel counts as foreground, between 0 and 1.
        density_weight: What the ratio of `density_logits`, foreground minus background of all points of all supports,
            adds to the foreground's logit, at kappa 40; 0 or more. It needs no training, is no part of the loss, and
            lets a head gain from several supports, which it sees as one mean prototype.
        presence: Scale and bias of the score that says whether an image shows the object at all, see `Prediction`. The
            default is not fitted to anything.

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
    image_size: int = 473
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    threshold: float = 0.5
    density_weight: float = 0.0
    presence: tuple[float, float] = (1.0, 0.0)

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
        """All numbers as Python's own."""
        checked: dict[str, Any] = {
            **checked_images(self),
            "hidden_channels": check_at_least("hidden_channels", self.hidden_channels, 1, MAX_CHANNELS),
            "bins": checked_bins(self.bins),
            "num_prototypes": check_at_least("num_prototypes", self.num_prototypes, 0, MAX_CLUSTERS),
            "kmeans_iters": check_at_least("kmeans_iters", self.kmeans_iters, 0, MAX_ITERS),
            "aux_weight": check_number("aux_weight", self.aux_weight, 0),
            "density_weight": check_number("density_weight", self.density_weight, 0, 1000),
        }
        for name in ("self_contrast_weight", "reducer_dropout", "classifier_dropout"):
            checked[name] = check_number(name, getattr(self, name), 0, 1)
        if self.grid_bins is not None:
            checked["grid_bins"] = check_at_least("grid_bins", self.grid_bins, 1, 256)
        return checked

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON and for `from_dict`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that these fields make; those left out have their defaults.

        Raises:
            ValueError: As the class, or if a field is unknown.
            TypeError: As the class, or if ``values`` is no mapping.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"config must be a mapping of settings, got {type(values).__name__}")
        check_settings(values)
        return cls(**values)


def checked_images(config: Any) -> dict[str, Any]:
    """What configs of all models hold, as Python's own: backbone, images and threshold; raise unless it is right."""
    if config.backbone is not None and not isinstance(config.backbone, str):
        raise TypeError(f"backbone must be a name or None, got {type(config.backbone).__name__}")
    checked: dict[str, Any] = {
        "image_size": check_at_least("image_size", config.image_size, 32, MAX_SQUARE),
        "threshold": check_share("threshold", config.threshold, open_ends=True),
        "presence": checked_presence(config.presence),
    }
    for name, lowest in (("mean", 0), ("std", 0.001)):
        if getattr(config, name) is not None:
            checked[name] = check_numbers(name, getattr(config, name), 3, lowest, 1)
    return checked


def check_settings(names: Mapping[str, Any], kind: type = SCNetConfig) -> None:
    """Raise `TypeError` for the first name that is no field of that config, with the one that was probably meant."""
    known = [field.name for field in fields(kind)]
    for name in names:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else f", which are {', '.join(known)}"
            raise TypeError(f"settings must be fields of {kind.__name__}, got {shown(name)}{meant}")


def checked_presence(presence: Any) -> tuple[float, ...]:
    """Scale and bias of the score of presence; raise unless the score is finite and rises with what was found."""
    scale, bias = check_numbers("presence", presence, 2, -1000, 1000)
    check_number("the scale of presence", scale, 0, 1000)
    return scale, bias


def checked_bins(bins: Any) -> tuple[float, ...]:
    """The scales of a head, each a share up to 1 or a whole number of cells; raise unless they are."""
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
