"""Loads weights into an existing model, after checking that they fit, and saves them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from fewshotseg._checks import shown
from fewshotseg._io import StrPath
from fewshotseg.models.backbones import make_backbone, timm_backbone
from fewshotseg.models.backbones.lite import PACKAGES, package_weights, remap_lite_state_dict
from fewshotseg.models.checkpoints import read_model, save_model
from fewshotseg.models.convert import deep_stem_names, remap_pfenet_state_dict, without_wrappers
from fewshotseg.models.fitting import load_checked
from fewshotseg.models.saved_model import is_saved_model, model_in
from fewshotseg.models.scnet import SCNet
from fewshotseg.models.segmenter import PrototypeSegmenter
from fewshotseg.models.weight_files import (
    exists,
    read_safely,
    read_safetensors,
    save_atomically,
    state_dict_in,
    write_safetensors,
)

CLASSIFIERS = ("fc.", "classifier.", "head.", "conv_head.")
"""Prefixes of keys that belong to a backbone's ImageNet classifier."""

SHAPING = ("backbone", "hidden_channels", "bins")
"""Settings that must agree for weights to make sense, even where the shapes are equal."""


def load_weights(model: nn.Module, path: StrPath, *, strict: bool = True) -> None:
    """Load weights from a file into a model: a file of this package, or an official PFENet checkpoint.

    Only tensors are read; no code in the file is executed. The file may be a state dict, or hold one under
    ``"state_dict"``, ``"model_state_dict"``, ``"model"`` or ``"net"``; the keys of PFENet and of data-parallel,
    compiled and averaged models are renamed. A file of `save_model` is also compared with the model's settings.
    ``.safetensors`` files need the extra ``hub``.

    Args:
        model: A model of `build_scnet`.
        path: The file, or a folder of `save_model`.
        strict: Refuse a file with missing or unknown entries. Entries of the wrong shape are always refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, is damaged, holds more than tensors, or does not fit the model; the
            model is then unchanged.
        ImportError: If it is a ``.safetensors`` file and the extra is not installed.

    Example:
        >>> import fewshotseg, tempfile, pathlib
        >>> model = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "scnet.pth"
        >>> fewshotseg.save_model(model, path)
        >>> fewshotseg.load_weights(model, path)
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        load_checked(model, remap_pfenet_state_dict(read_safetensors(path)), path, strict=strict)
        return
    content = None if path.is_dir() else read_safely(path)
    if content is not None and not is_saved_model(content):
        load_checked(model, remap_pfenet_state_dict(state_dict_in(content, path)), path, strict=strict)
        return
    saved = read_model(path) if content is None else model_in(content, path)
    config = getattr(model, "config", None)
    for name in SHAPING if config is not None else ():
        theirs, ours = getattr(saved.config, name, None), getattr(config, name, None)
        if theirs != ours and None not in (theirs, ours):
            raise ValueError(f"{path} must be of a model with {name}={shown(ours)}, got {name}={shown(theirs)}")
    state = saved.head
    if saved.backbone is not None:
        state = {**{f"backbone.{key}": value for key, value in saved.backbone.items()}, **state}
    else:
        own = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
        saved.check_backbone({key.removeprefix("backbone."): value for key, value in own.items()}, path)
        state = {**own, **state}
    load_checked(model, state, path, strict=strict)


def save_weights(model: nn.Module, path: StrPath) -> None:
    """Save a model's weights for `load_weights`.

    Args:
        model: An `SCNet` or a `PrototypeSegmenter`, which is saved with its config as by `save_model`; or any module,
            of which the state dict is saved.
        path: The file; an existing one is replaced atomically. ``.safetensors`` stores the state dict only and needs
            the extra ``hub``.
    """
    if isinstance(model, (SCNet, PrototypeSegmenter)) and Path(path).suffix != ".safetensors":
        save_model(model, path)
    elif Path(path).suffix == ".safetensors":
        write_safetensors(model.state_dict(), path)
    else:
        save_atomically(model.state_dict(), path)


def load_backbone_weights(
    backbone: nn.Module, weights: StrPath | Mapping[str, Tensor] | bool, *, name: str | None = None
) -> None:
    """Load the weights of a backbone, from torchvision, an installed package, a file or a state dict.

    Args:
        backbone: A backbone of this package, or any module with the keys of the weights.
        weights: For example ``"IMAGENET1K_V1"`` (downloaded by torchvision), ``"package"`` (the installed weights of
            ``"efficientnet_lite0"`` or ``"efficientnet_lite2"``), a path, or a state dict. Entries of the ImageNet
            classifier are ignored; keys of PFENet, of its deep stem and of these packages are renamed.
        name: The backbone's name, to find torchvision weights by.

    Raises:
        ValueError: If weights of that name do not exist, or do not fit.
        FileNotFoundError: If there is no such file.
        ImportError: If the package is not installed.
        TypeError: If ``weights`` is none of these.
    """
    if name in PACKAGES and weights == "package":
        weights = package_weights(name)
    state, source = _state_of(weights, name)
    own = backbone.state_dict().keys()
    if not own <= state.keys():
        state = remap_pfenet_state_dict(remap_lite_state_dict(deep_stem_names(without_wrappers(state))))
        state = {key.removeprefix("backbone."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key in own or not key.startswith(CLASSIFIERS)}
    load_checked(backbone, state, source, strict=True)


def timm_with_weights(name: str, weights: StrPath | Mapping[str, Tensor] | bool) -> Any:
    """Make a backbone from a model of timm, with weights.

    Args:
        name: ``"timm/<name>"``.
        weights: True or ``"timm"`` for timm's pretrained weights, which timm downloads; or a path or a state dict, of
            the whole model with timm's keys, of the backbone alone, or in another form that timm converts.

    Raises:
        ValueError: If the model cannot be a backbone, or the weights do not fit.
        FileNotFoundError: If there is no such file.
        ImportError: If timm is not installed.
        OSError: If weights cannot be downloaded.
        TypeError: If ``weights`` is none of these.
    """
    if weights is True or weights == "timm":
        return timm_backbone(name, True)
    state, source = _state_of(weights, name)
    state = {key.removeprefix("backbone."): value for key, value in without_wrappers(state).items()}
    if not all(key.startswith(("extractor.", "net.")) for key in state):
        return timm_backbone(name, state)
    backbone = make_backbone(name)
    load_checked(backbone, state, source, strict=True)
    return backbone


def _state_of(weights: StrPath | Mapping[str, Tensor] | bool, name: str | None) -> tuple[dict[str, Tensor], str]:
    """Return the state dict, and its name for messages."""
    if isinstance(weights, Mapping):
        return state_dict_in(weights, "backbone_weights"), "backbone_weights"
    if not isinstance(weights, (str, Path)):
        kind = type(weights).__name__
        raise TypeError(f"backbone_weights must be a name, a path, a state dict or, for timm's, True, got {kind}")
    source = str(weights)
    entry = _torchvision_weights(name, source)
    if entry is not None:
        return dict(entry.get_state_dict(progress=True, check_hash=True)), source
    if not exists(Path(weights)):
        known = "".join(f" or one of {names}" for names in [_names(name)] if names)
        whose = "" if name is None else f" for {name}"
        raise FileNotFoundError(f"backbone_weights must be a file{known}{whose}, got {shown(source)}")
    return _read(weights), source


def _read(path: StrPath) -> dict[str, Tensor]:
    if Path(path).suffix == ".safetensors":
        return read_safetensors(path)
    return state_dict_in(read_safely(path), path)


def _torchvision_weights(name: str | None, weights: str) -> Any:
    """Return torchvision's weights of that name for this backbone, or None."""
    if name is None or name not in list_models():
        return None
    return get_model_weights(name).__members__.get(weights.rpartition(".")[2])


def _names(name: str | None) -> list[str]:
    """List the names of weights for this backbone."""
    if name in PACKAGES:
        return ["package"]
    return [] if name is None or name not in list_models() else [*get_model_weights(name).__members__]
