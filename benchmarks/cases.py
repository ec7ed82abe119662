"""Models and episodes to measure: two models with the same weights, and objects of a given size."""

import argparse
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fewshotseg as fs
from plain_pfenet import BINS, PlainPFENet

PROBE_SIZE = 65
"""Height and width of the images from which the statistics of the norms are computed."""


def make_plain(hidden: int = 256, bins: Sequence[int] = BINS, *, seed: int = 0) -> PlainPFENet:
    """Make the plain transcription with random weights that behave like trained ones.

    With PyTorch's initial weights, rounding errors grow in the backbone and the prediction is the same everywhere.
    Here residual branches are weak, the statistics of the norms fit the weights, the comparison head keeps the scale of
    its input, and about half of all pixels are predicted as foreground.
    """
    torch.manual_seed(seed)
    plain = PlainPFENet(hidden, bins)
    for name, weight in plain.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(weight, 0.2)
        elif weight.ndim == 4 and not name.startswith("backbone"):
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # averages over all batches
    with torch.no_grad():
        plain.backbone.layer4(plain.backbone.mid(smooth_noise(2, PROBE_SIZE))[1])
        logits = plain.eval()(*episode(PROBE_SIZE, seed=seed)[:3])
        plain.head["classifier"][-1].bias -= logits.flatten(2).median(dim=2).values[0]
    for norm in norms:
        norm.momentum = 0.1
    return plain.train()


def make_scnet(plain: PlainPFENet, **settings: Any) -> fs.SCNet:
    """Make an SCNet with the weights and on the device of ``plain``; ``self_contrast_weight=0`` computes the same."""
    model = build_scnet(plain.reduce_query[0].out_channels, bins=plain.bins, **settings)
    model.load_state_dict(plain.state_dict())
    return model.to(plain.reduce_query[0].weight.device)


def build_scnet(hidden: int, **settings: Any) -> fs.SCNet:
    """Make an SCNet on PFENet's ResNet-50 with random weights, its backbone fused."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the frozen backbone has random weights")
        return fs.build_scnet("resnet50s", hidden_channels=hidden, **settings).fuse()


def episode(
    size: int, *, shots: int = 1, batch: int = 1, area: float = 0.15, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make support images and masks, query images and masks; an ellipse covers the share ``area`` of each image."""
    torch.manual_seed(seed)
    images = smooth_noise(batch * (shots + 1), size).view(batch, shots + 1, 3, size, size)
    masks = torch.stack([ellipse(size, area) for _ in range(batch * (shots + 1))]).view(batch, shots + 1, size, size)
    return images[:, 1:].contiguous(), masks[:, 1:].contiguous(), images[:, 0].contiguous(), masks[:, 0].contiguous()


def smooth_noise(count: int, size: int) -> Tensor:
    """Make images of noise at two scales, with mean about 0 and variance about 1."""
    coarse = torch.randn(count, 3, size // 16 + 2, size // 16 + 2)
    return F.interpolate(coarse, (size, size), mode="bilinear") + 0.3 * torch.randn(count, 3, size, size)


def ellipse(size: int, area: float) -> Tensor:
    """Make a mask of one ellipse at a random position inside the image that covers the share ``area``."""
    stretch = math.sqrt(0.75 + 0.5 * float(torch.rand(())))
    radii = [math.sqrt(area / math.pi) * size * factor for factor in (stretch, 1 / stretch)]
    distance = torch.zeros(size, size)
    for axis, radius in enumerate(radii):
        centre = radius + max(size - 2 * radius, 0) * float(torch.rand(()))
        offsets = (torch.arange(size) - centre) / radius
        distance = distance + (offsets[:, None] if axis == 0 else offsets[None, :]) ** 2
    return (distance < 1).long()


def difference(logits: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the largest difference relative to the largest logit, and the share of pixels of another class."""
    logits = logits.float()
    return {
        "difference": float((logits - reference).abs().max() / reference.abs().max()),
        "changed_pixels": float((logits.argmax(dim=1) != reference.argmax(dim=1)).float().mean()),
    }


def parser(description: str | None, out: Path, *, rounds: int, size: int = 473) -> argparse.ArgumentParser:
    """Make a parser with the options that all benchmarks of models share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", type=int, default=size, help=f"height and width of the images (default: {size})")
    made.add_argument("--hidden", type=int, default=256, help="channels of the comparison head (default: 256)")
    made.add_argument("--rounds", type=int, default=rounds, help=f"measurements of each function (default: {rounds})")
    made.add_argument("--device", default="cpu", help="device, such as cuda (default: cpu)")
    made.add_argument("--quick", action="store_true", help="tiny images and models, one round: only check that it runs")
    made.add_argument("--out", type=Path, default=out, help=f"JSON file to write (default: {out})")
    return made


def parse(made: argparse.ArgumentParser, arguments: Any) -> argparse.Namespace:
    """Read the options. ``--quick`` sets sizes and rounds; on CUDA, convolutions use float32 without TF32."""
    options = made.parse_args(arguments)
    if torch.device(options.device).type == "cuda":
        torch.backends.cudnn.allow_tf32 = (
            False  # TF32 keeps ten bits of the inputs, which would hide all other differences
        )
    options.warmup = 1
    if options.quick:
        options.size, options.hidden, options.rounds, options.warmup = 33, 8, 1, 0
    return options


def tolerance(device: str) -> float:
    """Return the allowed relative difference, larger on CUDA, whose algorithms round differently."""
    return 1e-5 if torch.device(device).type == "cpu" else 1e-4


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Convert the options to a dict that can be written as JSON."""
    return {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items()}
