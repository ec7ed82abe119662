"""SCNet, the training-free model, their backbones, and reading and writing of models."""

from fewshotseg.models.backbones import (
    BACKBONES,
    Backbone,
    StagedBackbone,
    TimmBackbone,
    WholeBackbone,
    WholeTimmBackbone,
    feature_maps,
    list_backbones,
)
from fewshotseg.models.build import build_backbone, build_prototype_segmenter, build_scnet
from fewshotseg.models.checkpoints import load_model, read_model, save_model
from fewshotseg.models.comparison import Comparison, ComparisonHead, ConcatConv1x1
from fewshotseg.models.config import SCNetConfig
from fewshotseg.models.convert import remap_pfenet_state_dict
from fewshotseg.models.encodings import Query, SCNetOutput, Support
from fewshotseg.models.fast.feature_memory import FeatureMemory
from fewshotseg.models.frozen_model import FrozenBackboneModel
from fewshotseg.models.hub import list_pretrained, load_pretrained, push_to_hub, save_pretrained
from fewshotseg.models.prototype_config import PrototypeConfig
from fewshotseg.models.saved_model import SavedModel
from fewshotseg.models.scnet import SCNet
from fewshotseg.models.segmentation_model import SegmentationModel
from fewshotseg.models.segmenter import PrototypeQuery, PrototypeSegmenter, PrototypeSupport
from fewshotseg.models.weights import load_weights, save_weights

__all__ = [
    "BACKBONES",
    "Backbone",
    "Comparison",
    "ComparisonHead",
    "ConcatConv1x1",
    "FeatureMemory",
    "FrozenBackboneModel",
    "PrototypeConfig",
    "PrototypeQuery",
    "PrototypeSegmenter",
    "PrototypeSupport",
    "Query",
    "SCNet",
    "SCNetConfig",
    "SCNetOutput",
    "SavedModel",
    "SegmentationModel",
    "StagedBackbone",
    "Support",
    "TimmBackbone",
    "WholeBackbone",
    "WholeTimmBackbone",
    "build_backbone",
    "build_prototype_segmenter",
    "build_scnet",
    "feature_maps",
    "list_backbones",
    "list_pretrained",
    "load_model",
    "load_pretrained",
    "load_weights",
    "push_to_hub",
    "read_model",
    "remap_pfenet_state_dict",
    "save_model",
    "save_pretrained",
    "save_weights",
]
