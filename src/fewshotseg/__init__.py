"""Few-shot segmentation in PyTorch: reusable components, and SCNet built from them."""

from importlib.metadata import PackageNotFoundError, version

from fewshotseg.annotations import cutout, overlay, read_annotations, to_coco, to_labelme, to_yolo
from fewshotseg.evaluation import evaluate
from fewshotseg.losses import (
    SelfContrastiveLoss,
    SelfContrastivePairs,
    background_target,
    segmentation_loss,
    self_contrastive_pairs,
)
from fewshotseg.metrics import FewShotIoU, IoUReport
from fewshotseg.models import (
    Backbone,
    ComparisonHead,
    FeatureMemory,
    Query,
    SCNet,
    SCNetConfig,
    SCNetOutput,
    SegmentationModel,
    Support,
    TimmBackbone,
    WholeBackbone,
    WholeTimmBackbone,
    build_scnet,
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
    cosine_kmeans,
    cosine_logits,
    density_logits,
    expand_prototypes,
    masked_average_pool,
    prior_mask,
    sample_centroids,
)
from fewshotseg.prediction import Prediction
from fewshotseg.predictor import FewShotPredictor
from fewshotseg.results import mean_and_interval

try:
    __version__ = version("fewshotseg")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

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
    "assign_prototypes",
    "background_regions",
    "background_target",
    "build_scnet",
    "cosine_kmeans",
    "cosine_logits",
    "cutout",
    "density_logits",
    "evaluate",
    "expand_prototypes",
    "list_backbones",
    "list_pretrained",
    "load_model",
    "load_weights",
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
    "to_coco",
    "to_labelme",
    "to_yolo",
]
