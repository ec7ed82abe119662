"""Weights from files and to files: only tensors are read, foreign names are translated, refusals say why."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from fewshotseg._io import replacing
from fewshotseg.models.backbones.lite import package_weights, remap_lite_state_dict

PFENET_HEAD = {
    "down_query": "reduce_query",
    "down_supp": "reduce_support",
    "init_merge": "head.merge",
    "alpha_conv": "head.pass_down",
    "beta_conv": "head.refine",
    "inner_cls": "head.aux_classifiers",
    "res1": "head.fuse",
    "res2": "head.fuse_refine",
    "cls": "head.classifier",
}
"""First parts of PFENet's names beside ours; what follows them is the same."""

VGG_OFFSETS = {"layer0": 0, "layer1": 7, "layer2": 14, "layer3": 24, "layer4": 34}
"""Where PFENet's five slices of VGG-16 start in torchvision's ``features``."""

CLASSIFIERS = ("fc.", "classifier.", "head.", "conv_head.")
"""First parts of names that belong to a backbone's ImageNet classifier."""


def load_weights(model: nn.Module, path: str | Path, *, strict: bool = True) -> None:
    """Load a checkpoint into a model: one of ours, or PFENet's official ones.

    Reads tensors only (``weights_only=True``). The state dict may stand alone or under ``"state_dict"`` or ``"model"``;
    PFENet's names and the ``module.`` of data-parallel training are translated. ``.safetensors`` files need the
    extra ``hub``.

    Args:
        model: What `build_scnet` gave.
        path: The file.
        strict: Refuse a file that lacks an entry or has one too many. Entries of the wrong shape are always refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, holds more than tensors, or does not fit the model, which is then
            left as it was.

    Example:
        >>> import fewshotseg, tempfile, pathlib
        >>> model = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "scnet.pth"
        >>> fewshotseg.save_weights(model, path)
        >>> fewshotseg.load_weights(model, path)
    """
    _load(model, remap_pfenet_state_dict(_read(path)), path, strict=strict)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the model's state dict so that `load_weights` reads it; a crash leaves the old file or the new one.

    Args:
        model: Any module.
        path: Where to; an existing file is replaced in one step.
    """
    save_atomically(model.state_dict(), path)


def save_atomically(content: object, path: str | Path) -> None:
    """``torch.save`` to a file beside ``path`` that then takes its place.

    Args:
        content: What to write.
        path: Where to; an existing file is replaced in one step.
    """
    with replacing(Path(path)) as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def remap_pfenet_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of an official PFENet checkpoint to ours; other names stay as they are.

    Args:
        state: A state dict, with or without the ``module.`` of data-parallel training. It is not changed.

    Returns:
        A new state dict with the same tensors: the head, and the backbone of ResNet (deep stem) or VGG-16-BN.

    Example:
        >>> import torch
        >>> list(remap_pfenet_state_dict({"module.down_supp.0.weight": torch.zeros(1)}))
        ['reduce_support.0.weight']
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    is_pfenet = any(key.partition(".")[0] in {*PFENET_HEAD, "layer0"} for key in state)
    is_vgg = "layer4.0.weight" in state
    return {_ours(key, is_vgg=is_vgg) if is_pfenet else key: value for key, value in state.items()}


def load_backbone_weights(
    backbone: nn.Module, weights: str | Path | Mapping[str, Tensor], *, name: str | None = None
) -> None:
    """Load a backbone alone, from the name of torchvision's or a package's weights, a file or a state dict.

    Args:
        backbone: One of ours, or any module with the weights' own names.
        weights: For example ``"IMAGENET1K_V1"`` (downloaded by torchvision), ``"package"`` (installed, of
            ``"efficientnet_lite0"``), a path, or a state dict. Entries of the ImageNet classifier are left out; names
            of PFENet, of its three-convolution stem and of that package are translated.
        name: The backbone's name, to look torchvision weights up by.

    Raises:
        ValueError: If weights of that name do not exist, or do not fit.
        FileNotFoundError: If there is no such file.
        ImportError: If the package is not installed.
    """
    if name == "efficientnet_lite0" and weights == "package":
        weights = package_weights()
    if isinstance(weights, Mapping):
        state, source = dict(weights), "the state dict"
    else:
        source = str(weights)
        entry = _torchvision_weights(name, source)
        if entry is None and not Path(weights).exists():
            raise FileNotFoundError(
                f"backbone_weights must be a file or one of {_names(name)} for {name}, got {source!r}"
            )
        state = _read(weights) if entry is None else dict(entry.get_state_dict(progress=True, check_hash=True))
    own = backbone.state_dict().keys()
    state = remap_pfenet_state_dict(remap_lite_state_dict(_deep_stem_names(state)))
    state = {key.removeprefix("backbone."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key in own or not key.startswith(CLASSIFIERS)}
    _load(backbone, state, source, strict=True)


def _read(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path} must be a safetensors file, but it cannot be read: {error}") from error
    content = read_safely(path)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} must hold a state dict of tensors, got {type(content).__name__}")
    return dict(content)


def read_safely(path: Path) -> Any:
    """What ``torch.save`` wrote, if that is tensors, numbers, strings and containers of them; tensors on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds other objects.
    """
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} must hold tensors only to be loaded safely, but it is damaged or holds other Python objects: "
                f"{str(error).splitlines()[0]}"
            ) from error
        except Exception as error:  # damaged files fail in many ways
            raise ValueError(f"{path} must be a checkpoint, but it cannot be read: {error}") from error


def _load(model: nn.Module, state: Mapping[str, Tensor], source: object, *, strict: bool) -> None:
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    reshaped = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if reshaped:
        key = min(reshaped)
        raise ValueError(
            f"{source} must fit the model, but {len(reshaped)} entries have another shape, such as {key}: "
            f"{tuple(own[key].shape)} in the model, {tuple(state[key].shape)} in the file"
        )
    if strict and (missing or unexpected):
        examples = [f"{kind} {keys[0]}" for kind, keys in (("lacks", missing), ("also has", unexpected)) if keys]
        raise ValueError(
            f"{source} must fit the model, but {len(missing)} entries are missing and {len(unexpected)} are unknown: "
            f"it {' and '.join(examples)}"
        )
    model.load_state_dict(state, strict=False)


def _ours(key: str, *, is_vgg: bool) -> str:
    first, _, rest = key.partition(".")
    if first in PFENET_HEAD:
        return f"{PFENET_HEAD[first]}.{rest}"
    if is_vgg and first in VGG_OFFSETS:
        number, _, leaf = rest.partition(".")
        return f"backbone.features.{VGG_OFFSETS[first] + int(number)}.{leaf}"
    if first == "layer0":
        number, _, leaf = rest.partition(".")
        return f"backbone.bn1.{leaf}" if number == "7" else f"backbone.conv1.{number}.{leaf}"
    return f"backbone.{key}"


def _deep_stem_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of a stem stored as conv1, bn1, conv2, bn2, conv3, bn3, as the weights PFENet starts from have them."""
    if "conv3.weight" not in state:
        return dict(state)
    stem = {
        "conv1": "conv1.0",
        "bn1": "conv1.1",
        "conv2": "conv1.3",
        "bn2": "conv1.4",
        "conv3": "conv1.6",
        "bn3": "bn1",
    }
    parts = ((key.partition("."), value) for key, value in state.items())
    return {f"{stem.get(first, first)}.{rest}": value for (first, _, rest), value in parts}


def _torchvision_weights(name: str | None, weights: str) -> Any:
    """The torchvision weights of that name for this backbone, or None."""
    return getattr(get_model_weights(name), weights.rpartition(".")[2], None) if _is_torchvisions(name) else None


def _names(name: str | None) -> list[str]:
    """The names of weights for this backbone."""
    if name == "efficientnet_lite0":
        return ["package"]
    return [*get_model_weights(name).__members__, "DEFAULT"] if _is_torchvisions(name) else []


def _is_torchvisions(name: str | None) -> TypeGuard[str]:
    return name is not None and name != "efficientnet_lite0" and not name.endswith("s")
