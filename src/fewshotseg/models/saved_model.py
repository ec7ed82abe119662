"""The content of a saved model: config, weights, a record of the training, and a digest that detects damage."""

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
    """The content of a file of `save_model`.

    Attributes:
        config: The settings; their type says which kind of model it is.
        head: All weights except the backbone's: the reducers and the comparison head of an `SCNet`.
        backbone: The backbone's weights; None if the file stores only their digest.
        backbone_digest: The digest of the backbone's weights, see `digest_of`.
        origin: A record of how the weights were trained, in plain values.
        training: State to resume training from; None in a finished model.
    """

    config: SCNetConfig | PrototypeConfig
    head: dict[str, Tensor]
    backbone: dict[str, Tensor] | None
    backbone_digest: str
    origin: dict[str, Any]
    training: dict[str, Any] | None = None

    def digest(self, config: Mapping[str, Any] | None = None) -> str:
        """Compute a SHA-256 digest of config, origin and all weights.

        Args:
            config: The config as the file stores it, which may lack newer settings; by default that of this object.
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
    """Compute the SHA-256 digest of a state dict's keys and values, in hexadecimal digits."""
    found = hashlib.sha256()
    for key, value in sorted(state.items()):
        found.update(key.encode())
        found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def is_saved_model(content: object) -> bool:
    """Whether this is the content of a file of `save_model`."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def model_in(content: Mapping[str, Any], path: StrPath) -> SavedModel:
    """Check the content of a file, and make a `SavedModel` of it.

    Raises:
        ValueError: If an entry is missing, of a wrong kind, or damaged.
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
    """Make a config from the values of ``to_dict``: a `PrototypeConfig` if they say so, else an `SCNetConfig`.

    Raises as ``from_dict``.
    """
    of_prototypes = isinstance(values, Mapping) and values.get("kind") == KIND
    return PrototypeConfig.from_dict(values) if of_prototypes else SCNetConfig.from_dict(values)


def content_of(saved: SavedModel) -> dict[str, Any]:
    """Return the content of a file for a model; `model_in` reads it."""
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
    """Return the values as JSON stores them; raise `ValueError` if it cannot."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must hold finite numbers, strings, lists and mappings alone") from error
    return found
