"""Saves and loads whole models: config, weights, a record of the training, and a digest that detects damage.

A file holds plain values and tensors (``torch.save``); a folder holds the same in ``config.json`` and
``model.safetensors``.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fewshotseg._checks import check_float_dtype
from fewshotseg._io import StrPath, write_atomically
from fewshotseg.models.backbones import AnyBackbone, StagedBackbone, check_backbone, make_backbone
from fewshotseg.models.backbones.lite import PACKAGES, package_weights, remap_lite_state_dict
from fewshotseg.models.config import SCNetConfig
from fewshotseg.models.fitting import check_fits, load_fitting, without_compiled
from fewshotseg.models.prototype_config import PrototypeConfig
from fewshotseg.models.saved_model import PREFIX, SavedModel, content_of, digest_of, is_saved_model, model_in, plain
from fewshotseg.models.scnet import SCNet
from fewshotseg.models.segmenter import PrototypeSegmenter
from fewshotseg.models.weight_files import (
    DAMAGED,
    open_file,
    read_safely,
    read_safetensors,
    save_atomically,
    state_dict_in,
    write_safetensors,
)


def save_model(
    model: SCNet | PrototypeSegmenter,
    path: StrPath,
    *,
    with_backbone: bool = True,
    dtype: torch.dtype | None = None,
    origin: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Save a model with its config, so that `load_model` needs nothing but the file.

    Args:
        model: The model to save.
        path: A file to write, ending in ``.pth`` or ``.pt``; or a folder, for ``config.json`` and
            ``model.safetensors``, which needs the extra ``hub``. Existing files are replaced atomically.
        with_backbone: Save the backbone's weights too. Without them the file is small and stores only their digest.
        dtype: Dtype to store the weights outside of the backbone in, such as ``torch.float16``; unchanged by default.
        origin: A record of how the weights were trained: numbers, strings, lists and mappings.
        training: State to resume training from, tensors and plain values; for files only.

    Raises:
        ValueError: If a weight is not finite in ``dtype``, or ``origin`` holds anything but plain values.
        TypeError: If ``model`` is not a model of this package, or ``dtype`` not a floating-point dtype.
        ImportError: If ``path`` is a folder and safetensors is not installed.
        OSError: If a file cannot be written.

    Example:
        >>> import fewshotseg, pathlib, tempfile
        >>> model = fewshotseg.build_scnet("mobilenet_v2", hidden_channels=8, num_prototypes=5)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "mine.pth"
        >>> fewshotseg.save_model(model, path)
        >>> fewshotseg.load_model(path).config.num_prototypes
        5
    """
    path = Path(path)
    check_savable(model)
    check_float_dtype("dtype", dtype)
    is_file = path.suffix in {".pth", ".pt"}
    if path.suffix in {".safetensors", ".ckpt", ".bin"} or (training is not None and not is_file):
        raise ValueError(f"path must end in .pth or .pt, or be a folder if no training state is saved, got {path}")
    state = model.state_dict()
    check_fits(state, state, "model", strict=True)
    state = {without_compiled(key): value.detach().cpu().contiguous() for key, value in state.items()}
    backbone = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    head = {key: value for key, value in state.items() if not key.startswith(PREFIX)}
    if dtype is not None:
        head = {key: value.to(dtype) if value.is_floating_point() else value for key, value in head.items()}
    check_fits(head, head, "model", strict=True)
    saved = SavedModel(
        config=model.config,
        head=head,
        backbone=backbone if with_backbone else None,
        backbone_digest=digest_of(backbone),
        origin=plain("origin", origin or {}),
        training=None if training is None else dict(training),
    )
    if is_file:
        save_atomically(content_of(saved), path)
    else:
        _write_folder(saved, path)


def check_savable(model: object) -> None:
    """Raise `TypeError` unless this is a model that `save_model` can write."""
    if not isinstance(model, (SCNet, PrototypeSegmenter)):
        raise TypeError(f"model must be an SCNet or a PrototypeSegmenter, got {type(model).__name__}")


def load_model(path: StrPath, *, backbone: AnyBackbone | None = None) -> SCNet | PrototypeSegmenter:
    """Load a model that `save_model` wrote.

    Nothing is downloaded, no code from the file is executed, and the global random state does not change. A damaged
    file is rejected before a model is built.

    Args:
        path: The file or folder.
        backbone: If the model was built on your own module as backbone: a module of the same kind. The file's weights
            are loaded into it; if the file stores only a digest, its weights must match the digest.

    Returns:
        The model in evaluation mode, on the CPU: an `SCNet` or a `PrototypeSegmenter`, as its config says. It is in
        float64 if it was saved in float64, else in float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or not a saved model, or ``backbone`` is missing or does not fit.
        ImportError: If the model needs a package that is not installed.
    """
    return make_model(read_model(path), path, backbone=backbone)


def make_model(saved: SavedModel, path: StrPath, *, backbone: AnyBackbone | None = None) -> SCNet | PrototypeSegmenter:
    """Build the model of a file that `read_model` has read; arguments, result and errors are those of `load_model`."""
    name = saved.config.backbone
    if backbone is None and name is None:
        raise ValueError(f"backbone must be given to load {path}, whose model was built on a module of its user's own")
    if backbone is not None:
        check_backbone(backbone)
    try:
        with torch.device("meta"):
            shapes: Any = make_backbone(cast(str, name)) if backbone is None else backbone
            whole = _made(shapes if backbone is None else _stand_in(backbone, saved.config), saved.config).state_dict()
    except (RuntimeError, OverflowError, ValueError) as error:
        why = error if isinstance(error, ValueError) else "its numbers are too large"
        raise ValueError(f"{path} must hold the config of a model that can be built, but {why}") from error
    weights = _backbone_weights(saved, backbone, path)
    head = {key: value for key, value in whole.items() if not key.startswith(PREFIX)}
    check_fits(head, saved.head, path, strict=True)
    own = {without_compiled(key): value for key, value in shapes.state_dict().items()}
    check_fits(own, weights, f"the backbone in {path}", strict=True)

    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model = _made(make_backbone(cast(str, name)) if backbone is None else backbone, saved.config)
    if any(value.dtype == torch.float64 for value in saved.head.values()):
        model.double()
    load_fitting(model, saved.head | {f"{PREFIX}{key}": value for key, value in weights.items()}, path)
    return model.eval()


def read_model(path: StrPath) -> SavedModel:
    """Read what `save_model` wrote, without building the model, and check it against its digest.

    Args:
        path: The file or folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or not a saved model.
        ImportError: If it is a folder and safetensors is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return model_in(_read_folder(path), path)
    content = read_safely(path)
    if not is_saved_model(content):
        raise ValueError(f"{path} must be a model that save_model wrote; load_weights reads state dicts")
    return model_in(content, path)


def _made(backbone: AnyBackbone, config: SCNetConfig | PrototypeConfig) -> SCNet | PrototypeSegmenter:
    """Build the model that a config describes; its weights outside of the backbone are random."""
    return SCNet(backbone, config) if isinstance(config, SCNetConfig) else PrototypeSegmenter(backbone, config)


def _stand_in(backbone: AnyBackbone, config: SCNetConfig | PrototypeConfig) -> AnyBackbone:
    """Return a backbone to see the shapes of a head with, as a given one must stay as it is if the file is refused."""
    if isinstance(config, SCNetConfig) and config.learned_points:
        return copy.deepcopy(backbone)  # it is run once, to count the channels of its points
    return StagedBackbone({}, shallow=(), mid=(), high=(), mid_channels=backbone.mid_channels)


def _backbone_weights(saved: SavedModel, backbone: Any, path: StrPath) -> dict[str, Tensor]:
    """Return the backbone's weights: from the file, from the given module, or from an installed package."""
    if saved.backbone is not None:
        return saved.backbone
    if isinstance(backbone, nn.Module):
        weights = {without_compiled(key): value for key, value in backbone.state_dict().items()}
    elif saved.config.backbone in PACKAGES:
        file = package_weights(saved.config.backbone)
        state = remap_lite_state_dict(state_dict_in(read_safely(file), file))
        with torch.device("meta"):
            names = make_backbone(saved.config.backbone).state_dict().keys()
        weights = {key: value for key, value in state.items() if key in names}
    else:
        name = saved.config.backbone
        raise ValueError(f"backbone must be given to load {path}, which holds no weights of {name}, only a digest")
    saved.check_backbone(weights, path)
    return weights


def _write_folder(saved: SavedModel, folder: Path) -> None:
    backbone = {f"{PREFIX}{key}": value for key, value in (saved.backbone or {}).items()}
    facts = {key: value for key, value in content_of(saved).items() if key not in {"head", "backbone", "training"}}
    write_safetensors(saved.head | backbone, folder / "model.safetensors")
    write_atomically(folder / "config.json", f"{json.dumps(facts, indent=1)}\n".encode())


def _read_folder(folder: Path) -> dict[str, Any]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).exists():
            raise ValueError(f"{folder} must be a model that save_model wrote, but it has no {name}")
    path = folder / "config.json"
    with open_file(path) as file:
        try:
            facts = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} must be JSON, but {DAMAGED}") from error
    if not is_saved_model(facts):
        raise ValueError(f"{folder} must be a model that save_model wrote, but config.json says something else")
    tensors = read_safetensors(folder / "model.safetensors")
    backbone = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    head = {key: value for key, value in tensors.items() if not key.startswith(PREFIX)}
    return {**facts, "head": head, "backbone": backbone or None, "training": None}
