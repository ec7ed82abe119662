"""What the benchmarks measure: the same weights in both models, episodes with an object of a known size."""

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
"""Side of the images that norm statistics are taken from."""


def make_plain(hidden: int = 256, bins: Sequence[int] = BINS, *, seed: int = 0) -> PlainPFENet:
    """The plain transcription with random weights that behave like trained ones.

    Residual branches are weak beside what they are added to, norm statistics fit the weights, no layer of the head
    loses the signal, and about half of all pixels are foreground. Random networks as they come amplify rounding in
    the backbone, and answer the same everywhere.
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
        norm.momentum = None  # plain averages
    with torch.no_grad():
        plain.backbone.layer4(plain.backbone.mid(smooth_noise(2, PROBE_SIZE))[1])
        logits = plain.eval()(*episode(PROBE_SIZE, seed=seed)[:3])
        plain.head["classifier"][-1].bias -= logits.flatten(2).median(dim=2).values[0]
    for norm in norms:
        norm.momentum = 0.1
    return plain.train()


def make_scnet(plain: PlainPFENet, **settings: Any) -> fs.SCNet:
    """SCNet with the weights of ``plain``; with ``self_contrast_weight=0`` it computes the same."""
    model = build_scnet(plain.reduce_query[0].out_channels, bins=plain.bins, **settings)
    model.load_state_dict(plain.state_dict())
    return model


def build_scnet(hidden: int, **settings: Any) -> fs.SCNet:
    """SCNet on PFENet's ResNet-50, with random weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the frozen backbone has random weights")
        return fs.build_scnet("resnet50s", hidden_channels=hidden, **settings)


def episode(
    size: int, *, shots: int = 1, batch: int = 1, area: float = 0.15, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Support images and masks, query images and masks; objects are ellipses that cover ``area`` of their image."""
    torch.manual_seed(seed)
    images = smooth_noise(batch * (shots + 1), size).view(batch, shots + 1, 3, size, size)
    masks = torch.stack([ellipse(size, area) for _ in range(batch * (shots + 1))]).view(batch, shots + 1, size, size)
    return images[:, 1:].contiguous(), masks[:, 1:].contiguous(), images[:, 0].contiguous(), masks[:, 0].contiguous()


def smooth_noise(count: int, size: int) -> Tensor:
    """Images with structure at two scales, about normalised."""
    coarse = torch.randn(count, 3, size // 16 + 2, size // 16 + 2)
    return F.interpolate(coarse, (size, size), mode="bilinear") + 0.3 * torch.randn(count, 3, size, size)


def ellipse(size: int, area: float) -> Tensor:
    """A label mask with one ellipse of that share of the image, at a random place and wholly inside."""
    stretch = math.sqrt(0.75 + 0.5 * float(torch.rand(())))
    radii = [math.sqrt(area / math.pi) * size * factor for factor in (stretch, 1 / stretch)]
    distance = torch.zeros(size, size)
    for axis, radius in enumerate(radii):
        centre = radius + max(size - 2 * radius, 0) * float(torch.rand(()))
        offsets = (torch.arange(size) - centre) / radius
        distance = distance + (offsets[:, None] if axis == 0 else offsets[None, :]) ** 2
    return (distance < 1).long()


def difference(logits: Tensor, reference: Tensor) -> dict[str, float]:
    """The largest difference as a share of the largest logit, and the share of pixels with another answer."""
    logits = logits.float()
    return {
        "difference": float((logits - reference).abs().max() / reference.abs().max()),
        "changed_pixels": float((logits.argmax(dim=1) != reference.argmax(dim=1)).float().mean()),
    }


def parser(description: str | None, out: Path, *, rounds: int, size: int = 473) -> argparse.ArgumentParser:
    """A command line with the options of every benchmark of models."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", type=int, default=size, help=f"side of the images (default: {size})")
    made.add_argument("--hidden", type=int, default=256, help="channels of the head (default: 256)")
    made.add_argument("--rounds", type=int, default=rounds, help=f"how often everything runs (default: {rounds})")
    made.add_argument("--quick", action="store_true", help="tiny images and channels, one round: only to see it run")
    made.add_argument("--out", type=Path, default=out, help=f"where results go (default: {out})")
    return made


def parse(made: argparse.ArgumentParser, arguments: Any) -> argparse.Namespace:
    """Options as given; ``--quick`` sets sizes and rounds."""
    options = made.parse_args(arguments)
    options.warmup = 1
    if options.quick:
        options.size, options.hidden, options.rounds, options.warmup = 33, 8, 1, 0
    return options


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Options as JSON can hold them."""
    return {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items()}
