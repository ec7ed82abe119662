"""Few-shot segmentation in PyTorch: reusable components, and SCNet built from them."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fewshotseg._version import VERSION

if TYPE_CHECKING:
    from fewshotseg.annotations import cutout, overlay, read_annotations, to_coco, to_labelme, to_yolo
    from fewshotseg.evaluation import evaluate
    from fewshotseg.losses import (
        SelfContrastiveLoss,
        SelfContrastivePairs,
        alignment_loss,
        background_target,
        segmentation_loss,
        self_contrastive_pairs,
    )
    from fewshotseg.metrics import FewShotIoU, IoUReport
    from fewshotseg.models import (
        Backbone,
        ComparisonHead,
        FeatureMemory,
        PrototypeConfig,
        PrototypeSegmenter,
        Query,
        SCNet,
        SCNetConfig,
        SCNetOutput,
        SegmentationModel,
        Support,
        TimmBackbone,
        WholeBackbone,
        WholeTimmBackbone,
        build_backbone,
        build_prototype_segmenter,
        build_scnet,
        feature_maps,
        list_backbones,
        list_pretrained,
        load_model,
        load_weights,
        remap_pfenet_state_dict,
        save_model,
        save_weights,
    )
    from fewshotseg.ops import (
        CosineKMeans,
        GridPartition,
        KMeansResult,
        assign_prototypes,
        background_regions,
        correlation,
        cosine_kmeans,
        cosine_logits,
        density_logits,
        expand_prototypes,
        gram_distance,
        local_prototypes,
        masked_average_pool,
        prior_mask,
        sample_centroids,
        self_support_masks,
        vote_shots,
    )
    from fewshotseg.prediction import Prediction
    from fewshotseg.predictor import FewShotPredictor
    from fewshotseg.results import mean_and_interval

__version__ = VERSION

__all__ = [
    "Backbone",
    "ComparisonHead",
    "CosineKMeans",
    "FeatureMemory",
    "FewShotIoU",
    "FewShotPredictor",
    "GridPartition",
    "IoUReport",
    "KMeansResult",
    "Prediction",
    "PrototypeConfig",
    "PrototypeSegmenter",
    "Query",
    "SCNet",
    "SCNetConfig",
    "SCNetOutput",
    "SegmentationModel",
    "SelfContrastiveLoss",
    "SelfContrastivePairs",
    "Support",
    "TimmBackbone",
    "WholeBackbone",
    "WholeTimmBackbone",
    "alignment_loss",
    "assign_prototypes",
    "background_regions",
    "background_target",
    "build_backbone",
    "build_prototype_segmenter",
    "build_scnet",
    "correlation",
    "cosine_kmeans",
    "cosine_logits",
    "cutout",
    "density_logits",
    "evaluate",
    "expand_prototypes",
    "feature_maps",
    "gram_distance",
    "list_backbones",
    "list_pretrained",
    "load_model",
    "load_weights",
    "local_prototypes",
    "masked_average_pool",
    "mean_and_interval",
    "overlay",
    "prior_mask",
    "read_annotations",
    "remap_pfenet_state_dict",
    "sample_centroids",
    "save_model",
    "save_weights",
    "segmentation_loss",
    "self_contrastive_pairs",
    "self_support_masks",
    "to_coco",
    "to_labelme",
    "to_yolo",
    "vote_shots",
]

_HOMES = ("ops", "losses", "metrics", "results", "models", "prediction", "predictor", "evaluation", "annotations")
"""Modules that hold the names, in the order in which they are searched: those first that import least."""


# Importing PyTorch takes seconds, so names are imported when they are first used: ``fewshotseg --help`` needs none.
if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in __all__:
            homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
            value = next(vars(home)[name] for home in homes if name in vars(home))
            return globals().setdefault(name, value)
        if not name.startswith("__") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
