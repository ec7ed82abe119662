"""What a file of a model holds, checked: config, weights, where they come from, and a digest that finds damage."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewshotseg._checks import shown
from fewshotseg._io import StrPath
from fewshotseg.models.config import SCNetConfig
from fewshotseg.models.fitting import check_ordinary
from fewshotseg.models.prototype_config import KIND, PrototypeConfig
from fewshotseg.models.weight_files import DAMAGED

FORMAT = "fewshotseg model 1"
ENTRIES = {"format", "config", "head", "backbone", "backbone_digest", "origin", "training", "digest"}
PREFIX = "backbone."


@dataclass(frozen=True)
class SavedModel:
    """What a file of `save_model` holds.

    Attributes:
        config: Of the model, which it also says the kind of.
        head: All weights but the backbone's: reducers and comparison head of an `SCNet`.
        backbone: The backbone's weights; None if the file only has their digest.
        backbone_digest: See `digest_of`.
        origin: How the weights came about, in plain values.
        training: What it takes to go on training; None in a model to use.
    """

    config: SCNetConfig | PrototypeConfig
    head: dict[str, Tensor]
    backbone: dict[str, Tensor] | None
    backbone_digest: str
    origin: dict[str, Any]
    training: dict[str, Any] | None = None

    def digest(self, config: Mapping[str, Any] | None = None) -> str:
        """Changes with the config, the origin or any weight.

        Args:
            config: As it stands in a file, which may be older than the newest settings.
        """
        settings = self.config.to_dict() if config is None else dict(config)
        facts = [settings, self.origin, self.backbone_digest, digest_of(self.head)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def check_backbone(self, state: Mapping[str, Tensor], source: object) -> None:
        """Raise `ValueError` unless these are the weights of the backbone that the model was trained with."""
        if digest_of(state) != self.backbone_digest:
            name = "the backbone" if self.config.backbone is None else shown(self.config.backbone)
            raise ValueError(f"{name} must have the weights that {source} was trained with, got others")


def digest_of(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a state dict's names and values, in hexadecimal digits."""
    found = hashlib.sha256()
    for key, value in sorted(state.items()):
        found.update(key.encode())
        found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def is_saved_model(content: object) -> bool:
    """Whether this is the content of a file of `save_model`."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def model_in(content: Mapping[str, Any], path: StrPath) -> SavedModel:
    """The model that the content of a file describes.

    Raises:
        ValueError: If something in it is not what it has to be.
    """
    if content.keys() != ENTRIES:
        raise ValueError(f"{path} must hold {', '.join(sorted(ENTRIES))}, got {shown([*content])}")
    try:
        config = config_of(content["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold the config of a model, but {error}") from error
    head, backbone, training = (content[name] for name in ("head", "backbone", "training"))
    for name in ("origin", "head", "backbone", "training"):
        optional = name in ("backbone", "training")
        if not isinstance(content[name], dict) and not (optional and content[name] is None):
            raise ValueError(f"{path} must hold a mapping as {name}, got {type(content[name]).__name__}")
    for key, value in [*head.items(), *(backbone or {}).items()]:
        check_ordinary(key, value, path)
        if not isinstance(key, str) or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{path} must hold every number of its weights by name, but {shown(key)} has too few")
    saved = SavedModel(
        config=config,
        head=head,
        backbone=backbone,
        backbone_digest=str(content["backbone_digest"]),
        origin=plain(f"origin in {path}", content["origin"]),
        training=training,
    )
    inside = saved.backbone is None or digest_of(saved.backbone) == saved.backbone_digest
    if not inside or saved.digest(plain(f"config in {path}", content["config"])) != content["digest"]:
        raise ValueError(f"{path} must hold what it was written with, but {DAMAGED}")
    return saved


def config_of(values: Any) -> SCNetConfig | PrototypeConfig:
    """The config that ``to_dict`` of either kind gave; without a word about its kind it is of SCNet.

    Raises as ``from_dict``.
    """
    of_prototypes = isinstance(values, Mapping) and values.get("kind") == KIND
    return PrototypeConfig.from_dict(values) if of_prototypes else SCNetConfig.from_dict(values)


def content_of(saved: SavedModel) -> dict[str, Any]:
    """What is written of a model; `model_in` reads it."""
    return {
        "format": FORMAT,
        "config": plain("config", saved.config.to_dict()),
        "head": saved.head,
        "backbone": saved.backbone,
        "backbone_digest": saved.backbone_digest,
        "origin": saved.origin,
        "training": saved.training,
        "digest": saved.digest(),
    }


def plain(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as JSON gives them back; raise `ValueError` unless it can."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must hold finite numbers, strings, lists and mappings alone") from error
    return found
