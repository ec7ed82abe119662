"""Trained models that come with the package: a file holds the head, the backbone's weights come by pip."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg.models.build import SCNetConfig, build_scnet
from fewshotseg.models.checkpoints import read_safely, save_atomically
from fewshotseg.models.scnet import SCNet

FOLDER = Path(__file__).parents[1] / "pretrained"
"""Where the package keeps its heads, a file for each name."""

ENTRIES = {"backbone", "backbone_digest", "config", "size", "origin", "head"}
"""What such a file holds."""


class Pretrained(NamedTuple):
    """A trained model and what to know about it.

    Attributes:
        model: In evaluation mode, on the CPU.
        size: Side in pixels of the squares that it is to be used on.
        origin: How it came about: data, command, versions.
    """

    model: SCNet
    size: int
    origin: dict[str, Any]


def load_pretrained(name: str | Path) -> Pretrained:
    """A trained model; its backbone's weights are those of an installed package, nothing is downloaded.

    Args:
        name: The path of a ``.pth`` file from `save_pretrained`, or the name of a head in the package.

    Raises:
        ValueError: If there is no model of that name, or its file or the backbone's weights are not what they were.
        FileNotFoundError: If there is no such file.
        ImportError: If the backbone needs a package that is not installed.
    """
    path = Path(name)
    if path.suffix != ".pth":
        names = sorted(file.stem for file in FOLDER.glob("*.pth"))
        if name not in names:
            raise ValueError(f"name must be a .pth file or one of {', '.join(names) or 'no models'}, got {str(name)!r}")
        path = FOLDER / f"{name}.pth"
    content = read_safely(path)
    if not isinstance(content, Mapping) or content.keys() != ENTRIES:
        raise ValueError(f"{path} must hold {', '.join(sorted(ENTRIES))}, but it is something else")
    model = _with_installed_backbone(content["backbone"], SCNetConfig(**content["config"]))
    if _backbone_digest(model) != content["backbone_digest"]:
        raise ValueError(f"{content['backbone']} must have the weights that {path.stem} was trained with, got others")
    _load_head(model, content["head"], path)
    return Pretrained(model.eval(), content["size"], dict(content["origin"]))


def save_pretrained(
    model: SCNet,
    path: str | Path,
    *,
    backbone: str,
    config: SCNetConfig,
    size: int,
    origin: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the file of a trained model, without its backbone.

    Args:
        model: What was trained.
        path: Where to; an existing file is replaced in one step.
        backbone: The name of its backbone, with the weights ``"package"``.
        config: Its settings.
        size: Side in pixels of the squares that it is to be used on.
        origin: How it came about, in numbers, strings, lists and mappings.
        dtype: To store the head in; it computes in float32 again.

    Raises:
        ValueError: If the model does not have that backbone, its installed weights or these settings, or a weight
            does not survive ``dtype``.
        ImportError: If the backbone needs a package that is not installed.
    """
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    rebuilt = _with_installed_backbone(backbone, config)
    if _backbone_digest(rebuilt) != _backbone_digest(model):
        raise ValueError(f"model must have the backbone {backbone} with its installed weights, got others")
    head = {key: value.detach().cpu().to(dtype) for key, value in model.state_dict().items() if not _of_backbone(key)}
    for key, value in head.items():
        if not math.isfinite(value.float().sum()):
            raise ValueError(f"model must have weights that {dtype} can hold, but {key} has others")
    _load_head(rebuilt, head, "model")
    content = {
        "backbone": backbone,
        "backbone_digest": _backbone_digest(model),
        "config": asdict(config),
        "size": size,
        "origin": dict(origin),
        "head": head,
    }
    save_atomically(content, path)


def _with_installed_backbone(backbone: str, config: SCNetConfig) -> SCNet:
    return build_scnet(backbone, backbone_weights="package", **asdict(config))


def _load_head(model: SCNet, head: Mapping[str, Tensor], source: object) -> None:
    own = {key: value for key, value in model.state_dict().items() if not _of_backbone(key)}
    fitting = {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in head.items()}
    if not fitting:
        raise ValueError(f"{source} must hold a head that fits its settings, got other names or shapes of weights")
    model.load_state_dict(head, strict=False)


def _of_backbone(key: str) -> bool:
    return key.startswith("backbone.")


def _backbone_digest(model: SCNet) -> str:
    """Changes when a weight of the backbone does."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if _of_backbone(key):
            digest.update(key.encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
