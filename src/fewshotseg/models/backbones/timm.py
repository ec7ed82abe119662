"""Feature extractors of timm as backbones."""

from typing import Any

from torch import nn

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD
from fewshotseg.models.backbones.staged import StagedBackbone, numbered


class TimmBackbone(StagedBackbone):
    """A convolutional feature extractor of timm, cut where a support's mask has to go in.

    Of its last three maps the middle and the first are mid-level, the last is high-level. State dict keys are the
    extractor's below ``extractor``.

    Args:
        extractor: What ``timm.create_model(name, features_only=True)`` gives; with ``output_stride=8``, where timm
            offers it, maps are as fine as PFENet's.

    Raises:
        ValueError: If the extractor gives fewer than three maps or is not a plain chain of stages.

    Example:
        >>> import timm, torch
        >>> backbone = TimmBackbone(timm.create_model("resnet18", features_only=True, output_stride=8))
        >>> [tuple(features.shape) for features in backbone.mid(torch.zeros(1, 3, 64, 64))]
        [(1, 256, 8, 8), (1, 128, 8, 8)]
    """

    def __init__(self, extractor: nn.Module) -> None:
        info: Any = getattr(extractor, "feature_info", None)
        if info is None or len(info.channels()) < 3:
            raise ValueError(
                "extractor must be made with timm.create_model(..., features_only=True) and give at least three maps, "
                f"got {type(extractor).__name__}"
            )
        names: list[str] = []
        for name, child in extractor.named_children():
            names += numbered("blocks", 0, len(list(child.children()))) if name == "blocks" else [name]
        taps = [name if name in names else name.replace(".", "_") for name in info.module_name()[-3:]]
        if not set(taps) <= set(names):
            raise ValueError(f"extractor must be a chain of stages {taps}, got {sorted(names)}")
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
