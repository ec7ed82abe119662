"""Saves and loads encoded examples, ``.fss``, which only the same model with the same size can use."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg._checks import shown
from fewshotseg._examples import Examples
from fewshotseg._io import StrPath
from fewshotseg.models.backbones import image_statistics
from fewshotseg.models.encodings import in_kind
from fewshotseg.models.saved_model import digest_of
from fewshotseg.models.weight_files import DAMAGED, read_safely, save_atomically

FORMAT = "fewshotseg support 1"
ENTRIES = {"format", "model", "size", "dtype", "names", "supports", "digest"}
NOT_ENCODED = ("threshold", "peak_threshold", "presence", "min_presence", "image_size")
"""Settings that do not affect the encoding of examples."""


class Encoder(NamedTuple):
    """Identifies what encoded examples; encodings can be used only with an equal one.

    Attributes:
        model: A digest of the model's weights and settings.
        size: Side in pixels of the square that images are resized to.
        dtype: Dtype of the weights.
    """

    model: str
    size: int
    dtype: str


def encoder_of(model: Any, size: int, dtype: torch.dtype) -> Encoder:
    """Make an `Encoder` from all that a model's encodings depend on."""
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    settings = {name: value for name, value in settings.items() if name not in NOT_ENCODED}
    statistics = image_statistics(getattr(model, "backbone", None) if config is None else config)
    facts = [type(model).__name__, settings, digest_of(model.state_dict()), *map(list, statistics.values())]
    return Encoder(hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(), size, str(dtype))


def save_examples(examples: Examples, encoder: Encoder, path: StrPath) -> None:
    """Write encoded examples atomically.

    Raises:
        TypeError: If a class name is neither a string nor a number, or an encoding holds something else than tensors
            and plain values.
        OSError: If the file cannot be written.
    """
    names = None if examples.names is None else list(examples.names)
    for name in names or []:
        if not isinstance(name, str | int | float):
            raise TypeError(f"class names must be strings or Python's numbers to be saved, got {shown(name)}")
    supports = [[_plain(part) for part in support] for support in examples.supports]
    content = {"format": FORMAT, **encoder._asdict(), "names": names, "supports": supports}
    save_atomically({**content, "digest": _digest(content)}, path)


def load_examples(path: StrPath, encoder: Encoder, like: Any) -> Examples:
    """Read examples that `save_examples` wrote.

    Args:
        path: The file.
        encoder: The encoder that wants to use them.
        like: An encoding of one example by that encoder, whose tuple type and device the result gets.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another format, or of another model or size.
    """
    content = read_safely(path, what="a support set")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} must be a support set that save_support wrote, but it holds something else")
    if content.keys() != ENTRIES:
        raise ValueError(f"{path} must hold {', '.join(sorted(ENTRIES))}, got {shown([*content])}")
    digest = content.pop("digest")
    if not _is_whole(content, digest):
        raise ValueError(f"{path} must hold what it was written with, but {DAMAGED}")
    if content["dtype"] != encoder.dtype:
        raise ValueError(f"{path} must be of a model of {encoder.dtype}, as this one, got {shown(content['dtype'])}")
    if content["model"] != encoder.model:
        raise ValueError(f"{path} must be of exactly this model, got one of other weights or settings")
    if content["size"] != encoder.size:
        raise ValueError(
            f"{path} must be of images resized to {encoder.size} pixels, as this predictor's are, "
            f"got {shown(content['size'])}; make the predictor with that size"
        )
    names, supports = content["names"], content["supports"]
    fits = isinstance(supports, list) and supports and all(_fits(support, like) for support in supports)
    if names is not None:
        fits = fits and isinstance(names, list) and len(names) == len(supports) == len(set(names))
    elif fits:
        fits = len(supports) == 1
    if not fits:
        raise ValueError(f"{path} must hold encodings as this model makes them, got others")
    return Examples([_like(support, like) for support in supports], None if names is None else tuple(names))


def _plain(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.detach().cpu().clone().contiguous()
    if isinstance(part, tuple):
        return [_plain(each) for each in part]
    if part is None or isinstance(part, bool | int | float | str):
        return part
    raise TypeError(f"encodings must hold tensors and plain values to be saved, got {type(part).__name__}")


def _is_whole(content: dict[str, Any], digest: object) -> bool:
    parts = [part for support in content["supports"] for part in support] if _is_nested(content["supports"]) else [None]
    for part in parts:
        if isinstance(part, Tensor) and (part.layout != torch.strided or part.nbytes > part.untyped_storage().nbytes()):
            return False  # would need more memory than its file
    try:
        return bool(digest == _digest(content))
    except (TypeError, ValueError, RuntimeError, RecursionError):
        return False


def _is_nested(supports: object) -> bool:
    return isinstance(supports, list) and all(isinstance(support, list) for support in supports)


def _digest(content: dict[str, Any]) -> str:
    tensors = {
        f"{number}.{place}": part
        for number, support in enumerate(content["supports"])
        for place, part in enumerate(support)
        if isinstance(part, Tensor)
    }
    plain = [[str(part.shape) if isinstance(part, Tensor) else part for part in s] for s in content["supports"]]
    facts = [{key: value for key, value in content.items() if key != "supports"}, plain, digest_of(tensors)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _fits(support: Any, like: Sequence[Any]) -> bool:
    """Whether parts have the kinds and shapes of this model's encodings; only the number of shots may differ."""
    return isinstance(support, list) and len(support) == len(like) and all(map(_part_fits, support, like))


def _part_fits(part: Any, like: Any) -> bool:
    if not isinstance(like, Tensor):
        return bool(_plain(like) == part)
    if not isinstance(part, Tensor) or part.dtype != like.dtype or part.ndim != like.ndim:
        return False
    if math.prod(part.shape) == 0 or not bool(part.isfinite().all()):
        return False
    sizes = [pair for axis, pair in enumerate(zip(part.shape, like.shape, strict=True)) if axis != 1 or part.ndim < 3]
    return all(size == wanted for size, wanted in sizes)


def _like(support: Sequence[Any], like: Any) -> Any:
    parts = [part.to(own.device) if isinstance(own, Tensor) else own for part, own in zip(support, like, strict=True)]
    return in_kind(like, parts)
