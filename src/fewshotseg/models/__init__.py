"""Networks: backbones, the comparison head, SCNet that wires them, its builder and checkpoints."""

from fewshotseg.models.backbones import BACKBONES, Backbone, TimmBackbone
from fewshotseg.models.build import SCNetConfig, build_scnet
from fewshotseg.models.checkpoints import load_weights, remap_pfenet_state_dict, save_weights
from fewshotseg.models.comparison import Comparison, ComparisonHead
from fewshotseg.models.encodings import Query, SCNetOutput, Support
from fewshotseg.models.fast.feature_memory import FeatureMemory
from fewshotseg.models.pretrained import Pretrained, load_pretrained, save_pretrained
from fewshotseg.models.scnet import SCNet

__all__ = [
    "BACKBONES",
    "Backbone",
    "Comparison",
    "ComparisonHead",
    "FeatureMemory",
    "Pretrained",
    "Query",
    "SCNet",
    "SCNetConfig",
    "SCNetOutput",
    "Support",
    "TimmBackbone",
    "build_scnet",
    "load_pretrained",
    "load_weights",
    "remap_pfenet_state_dict",
    "save_pretrained",
    "save_weights",
]
