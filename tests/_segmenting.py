"""Running ``fewshotseg segment`` with a predictor whose answers are known."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fewshotseg.cli import main


class Found(NamedTuple):
    """As `fewshotseg.Prediction`."""

    mask: Tensor
    probability: Tensor
    presence: Tensor


class Reddest:
    """A predictor whose answer is known: the probability of the object is how red a pixel is.

    Of several classes the second is how green it is, and the third how blue.
    """

    def __init__(self, size=65):
        self.size = size
        self.model = nn.Linear(1, 1)
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)
        self.supports = None
        self.asked = []

    def set_support(self, photos, masks):
        self.supports = photos, masks

    def predict(self, photo, *, threshold=None):
        self.asked.append(photo)
        several = isinstance(self.supports[0], dict)
        probability = photo[: len(self.supports[0]) if several else 1].float() / 255
        best, label = probability.max(dim=0)
        mask = torch.where(best > (threshold or 0.5), label + 1, 0)
        presence = probability.flatten(1).amax(dim=1)
        return Found(mask, *((probability, presence) if several else (probability[0], presence[0])))


def pixels(width=90, height=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photo(path, width=90, height=60, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(width, height, seed)).save(path, **options)
    return path


def labels(width=90, height=60):
    values = np.zeros((height, width), np.uint8)
    values[20:40, 30:60] = 1
    return values


def run(*options, query=("queries",), shown=("--mask", "mask.png"), support=("support.png",), out="out"):
    """The exit status of the command, in the working folder."""
    arguments = ["--support", *support, *shown, "--query", *query, "--out", out, "--device", "cpu", *options]
    return main(["segment", *map(str, arguments)])


def run_classes(*classes, query=("queries",), out="out", options=()):
    """The exit status of the command for classes, each a name and what follows it."""
    arguments = [word for each in classes for word in ["--class", *each]]
    return main(["segment", *map(str, [*arguments, "--query", *query, "--out", out, "--device", "cpu", *options])])


def results(out="out"):
    return sorted(path.relative_to(out).as_posix() for path in Path(out).rglob("*") if path.is_file())


def masks_of(*names):
    """The pictures of photographs: named without endings, but for those that differ in nothing else."""
    bare = [os.path.splitext(name)[0] for name in names]  # noqa: PTH122 (folders stay as they are)
    stems = [name if bare.count(stem) > 1 else stem for name, stem in zip(names, bare, strict=True)]
    return sorted(f"{stem}-{kind}" for stem in stems for kind in ("mask.png", "overlay.jpg", "probability.png"))


def value(path):
    with Image.open(path) as image:
        return np.array(image)
