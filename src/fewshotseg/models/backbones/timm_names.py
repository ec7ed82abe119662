"""Makes backbones of timm's models by name, as `TimmBackbone` if possible, else as `WholeTimmBackbone`."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fewshotseg.models.backbones.checks import can_be_cut, check_map, check_mid
from fewshotseg.models.backbones.timm import TimmBackbone
from fewshotseg.models.backbones.timm_whole import WholeTimmBackbone
from fewshotseg.models.fitting import check_fits, without_missing_counters

PREFIX = "timm/"

ONE_SIZE = "mvitv2"
"""Prefix of models with a table of positions for one image size; the test by shapes does not detect these."""


def timm_backbone(name: str, weights: Mapping[str, Tensor] | bool = False) -> TimmBackbone | WholeTimmBackbone:
    """Make a backbone from a model of timm.

    A model whose stages run one after the other becomes a `TimmBackbone`, at stride 8 if timm supports it. Any other
    becomes a `WholeTimmBackbone`, which pads images as the model needs. Which one works is tested by shapes alone, on
    tensors without data.

    Args:
        name: ``"timm/"`` and a name of ``timm.list_models``, with or without a tag such as ``.a1_in1k``.
        weights: A state dict of the whole model with timm's keys, or in another form that timm converts; True downloads
            timm's pretrained weights; False leaves them random.

    Raises:
        ValueError: If timm does not know the name, the model does not have three maps for images of any size, or the
            weights do not fit.
        ImportError: If timm is not installed.
        OSError: If weights cannot be downloaded.
    """
    timm, model = _timm(name), name.removeprefix(PREFIX)
    if not timm.is_model(model):
        close = get_close_matches(model.partition(".")[0], timm.list_models(), n=3)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"backbone must be 'timm/' and a name from timm.list_models(), got {name[:80]!r}{meant}")
    make: Callable[..., TimmBackbone | WholeTimmBackbone] = _working_builder(model)
    if weights is False:
        return make()
    source = {} if weights is True else {"pretrained_cfg_overlay": {"state_dict": _translated(model, weights)}}
    try:
        backbone = make(pretrained=True, **source)
    except Exception as error:  # timm, torch and the hub's client fail in many ways
        reason = _short(error)
        raise OSError(f"backbone_weights=True must be able to download weights of {name}, but {reason}") from error
    for module in backbone.modules():
        for config in (getattr(module, "pretrained_cfg", None), getattr(module, "default_cfg", None)):
            if isinstance(config, dict):
                config.pop("state_dict", None)  # a second reference to the weights
    return backbone


def is_timm_name(name: str) -> bool:
    """Whether a backbone's name stands for a model of timm."""
    return name.startswith(PREFIX)


def timm_names() -> list[str]:
    """List the names of all models of timm, without tags; empty if timm is not installed."""
    try:
        timm = _timm()
    except ImportError:
        return []
    return [f"{PREFIX}{name}" for name in timm.list_models()]


@cache
def _working_builder(model: str) -> Callable[..., Any]:
    """Find the first builder whose backbone has maps of the right shapes."""
    reason, native = "it has positions of one image size", _native_side(model)
    sizes = (32, 32), (97, native + 33)  # the smallest, and one that is no multiple of a stride nor the training size
    for build in _builders(model, native):
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                backbone = build().eval()
                for height, width in sizes:
                    _check_maps(backbone, torch.empty(1, 3, height, width))
        except Exception as error:  # models raise many kinds of errors for sizes that they do not support
            reason = _short(error)
        else:
            return build
    raise ValueError(
        f"backbone must be a model that gives three maps of images of any size, got '{PREFIX}{model}' ({reason})"
    )


def _builders(model: str, native: int) -> Iterator[Callable[..., Any]]:
    if model.startswith(ONE_SIZE):
        return
    yield partial(_cut, model, output_stride=8)
    yield partial(_cut, model)
    for multiple in (None, native):
        for norm in (True, False):
            for options in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
                yield partial(_whole, model, multiple, norm, **options)


def _translated(model: str, weights: Mapping[str, Tensor] | bool) -> dict[str, Tensor]:
    """Convert a state dict to timm's keys and shapes; timm itself would silently skip entries that do not fit.

    Raises:
        ValueError: If an entry is missing or of another shape.
    """
    assert isinstance(weights, Mapping)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        net = _timm().create_model(model, num_classes=0)
    wanted = net.state_dict()
    state = dict(weights)
    translate = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if translate is not None and not _fits(state, wanted):
        try:
            state = dict(translate(state, net))
        except Exception as error:  # weights of a different network
            raise ValueError(f"backbone_weights must be weights of {model}, but {_short(error)}") from error
    known = {key: value for key, value in state.items() if key in wanted}
    check_fits(without_missing_counters(wanted, known), known, "backbone_weights", strict=True)
    return {key: torch.zeros_like(value, device="cpu") for key, value in wanted.items() if key not in known} | known


def _fits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    needed = without_missing_counters(wanted, state)
    return all(key in state and state[key].shape == value.shape for key, value in needed.items())


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or f"timm raises {type(error).__name__}"


def _native_side(model: str) -> int:
    """Return the width of the images that a model was trained on."""
    try:
        side: int = _timm().get_pretrained_cfg(model, allow_unregistered=True).input_size[-1]
    except RuntimeError as error:
        raise ValueError(
            f"backbone must have a tag that timm knows, got '{PREFIX}{model}' ({_short(error)})"
        ) from error
    return side


def _cut(model: str, **options: Any) -> TimmBackbone:
    return TimmBackbone(_timm().create_model(model, features_only=True, **options))


def _whole(model: str, multiple: int | None, norm: bool, **options: Any) -> WholeTimmBackbone:
    net = _timm().create_model(model, num_classes=0, **options)
    return WholeTimmBackbone(net, multiple=multiple, norm=norm)


@torch.no_grad()
def _check_maps(backbone: Any, images: Tensor) -> None:
    if can_be_cut(backbone):
        mid = backbone.mid(images)
        check_mid(backbone, mid, images)
        high = backbone.high(mid[0])
    else:
        mid, high = backbone.mid_and_high(images)
        check_mid(backbone, mid, images)
    check_map("high-level features", high, images)


def _timm(name: str = "a model of timm") -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'{name} needs timm: pip install "fewshotseg[timm]"') from error
    return timm
