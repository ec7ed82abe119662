"""Convolutional feature extractors of timm as backbones."""

from typing import Any

from torch import nn

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD
from fewshotseg.models.backbones.staged import StagedBackbone, numbered


class TimmBackbone(StagedBackbone):
    """A convolutional feature extractor of timm as a `Backbone`.

    Of its last three maps the first two are mid-level, the last is high-level. State dict keys are the extractor's with
    the prefix ``extractor``.

    Args:
        extractor: A result of ``timm.create_model(name, features_only=True)``; with ``output_stride=8``, if timm
            supports it for the model, maps are as fine as PFENet's.

    Raises:
        ValueError: If the extractor has fewer than three maps, does not run its stages one after the other, or has
            channels-last maps. ``build_scnet("timm/<name>")`` accepts many of these models too.

    Example:
        >>> import timm, torch
        >>> backbone = TimmBackbone(timm.create_model("resnet18", features_only=True, output_stride=8))
        >>> [tuple(features.shape) for features in backbone.mid(torch.zeros(1, 3, 64, 64))]
        [(1, 256, 8, 8), (1, 128, 8, 8)]
    """

    def __init__(self, extractor: nn.Module) -> None:
        info: Any = getattr(extractor, "feature_info", None)
        kind = type(extractor).__name__
        if info is None or not callable(getattr(info, "channels", None)) or len(info.channels()) < 3:
            raise ValueError(
                "extractor must be made with timm.create_model(..., features_only=True) and give at least three maps, "
                f"got {kind}"
            )
        names: list[str] = []
        for name, child in extractor.named_children():
            names += numbered("blocks", 0, len(list(child.children()))) if name == "blocks" else [name]
        taps = [name if name in names else name.replace(".", "_") for name in info.module_name()[-3:]]
        if not _is_chain(extractor) or not set(taps) <= set(names):
            raise ValueError(f"extractor must run its stages one after the other and tap them, which {kind} does not")
        if getattr(getattr(extractor, "output_fmt", None), "value", "NCHW") != "NCHW":
            raise ValueError(f"extractor must give maps (B, C, h, w), got a {kind} whose channels are last")
        first, second, third = (names.index(tap) + 1 for tap in taps)
        paths = [f"extractor.{name}" for name in names]
        config = getattr(extractor, "pretrained_cfg", None) or {}
        super().__init__(
            {"extractor": extractor},
            shallow=paths[:first],
            mid=paths[first:second],
            high=paths[second:third],
            mid_channels=sum(info.channels()[-3:-1]),
            mean=config.get("mean", IMAGENET_MEAN),
            std=config.get("std", IMAGENET_STD),
        )


def _is_chain(extractor: Any) -> bool:
    """Whether an extractor calls its children in order, and its maps are outputs of children."""
    from timm.models import FeatureListNet
    from timm.models.efficientnet import EfficientNetFeatures
    from timm.models.mobilenetv3 import MobileNetV3Features

    if isinstance(extractor, (EfficientNetFeatures, MobileNetV3Features)):
        return extractor.feature_hooks is None
    return isinstance(extractor, FeatureListNet)
