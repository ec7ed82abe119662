"""The fields of the configs as keyword arguments, so that type checkers know what `build_scnet` takes."""

from typing import Literal, TypedDict


class ImageSettings(TypedDict, total=False):
    """What every model is told about images and answers."""

    image_size: int
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    threshold: float
    peak_threshold: float
    min_presence: float
    presence: tuple[float, float]
    example_window: float


class SCNetSettings(ImageSettings, total=False):
    """Fields of `SCNetConfig`, without the backbone."""

    hidden_channels: int
    bins: tuple[float, ...]
    num_prototypes: int
    kmeans_iters: int
    grid_bins: int | None
    self_contrast_weight: float
    aux_weight: float
    reducer_dropout: float
    classifier_dropout: float
    norm_stats: Literal["frozen", "batch"]
    background_source: Literal["query", "support"]
    background_reducer: Literal["query", "support"]
    background_prior: Literal["zeros", "shared", "complement"]
    prior: Literal["similarity", "density"]
    learned_points: bool
    density_weight: float


class PrototypeSettings(ImageSettings, total=False):
    """Fields of `PrototypeConfig`, without the backbone."""

    score: Literal["density", "cosine", "kmeans"]
    kappa: float
    num_prototypes: int
    num_background_prototypes: int
    kmeans_iters: int
    features: Literal["mid", "high"] | None
    scale: float | None
    bias: float | None
