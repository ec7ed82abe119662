"""Command-line options for the data, the training recipe and the training-free model."""

import argparse
import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fewshotseg._checks import check_at_least
from fewshotseg.data import PROTOCOLS
from fewshotseg.models import PrototypeConfig, PrototypeSegmenter, SCNetConfig, build_prototype_segmenter
from fewshotseg.training.benchmark import DataSettings
from fewshotseg.training.recipe import RECIPES, Recipe

TRAINING_FREE = "prototypes"
"""Given instead of a model file, this makes a `PrototypeSegmenter` from the options."""

Config = TypeVar("Config", SCNetConfig, PrototypeConfig)

OWN_OPTIONS = ("model", "micro_batches")
"""Fields of `Recipe` whose options are written by hand, not generated from the fields."""


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add options for `DataSettings`; those that are not given are absent from the parsed options."""
    add = parser.add_argument_group("data", argument_default=argparse.SUPPRESS).add_argument
    add("--data", nargs="+", action="extend", metavar="FOLDER", help="Folders of the data. pascal: the root of VOC "
        "2012. coco: the folder with train2014, val2014 and annotations. folders: one or more folders with images/ and "
        "masks/, with images/ and COCO's instances.json, or VOC 2012 roots. fss1000: the folder of the test classes. "
        "deepglobe, isic, chestx, suim: a folder that ClasswiseSource reads.")  # fmt: skip
    add("--fold", type=_fold, choices=(*range(4), "all"), metavar="{0,1,2,3,all}",
        help="Which quarter of the classes is novel: not trained on, but tested on (default: 0). For folders also all: "
        "train on every class.")  # fmt: skip
    add("--protocol", choices=PROTOCOLS, metavar="NAME", help="Evaluation protocol: "
        f"{', '.join(PROTOCOLS)} (default: SCNet's for pascal and coco; for other data one of its own).")  # fmt: skip
    add("--size", type=int, metavar="N", help="Side in pixels of training crops and test images (default: the "
        "protocol's).")  # fmt: skip
    add("--novel", choices=("background", "ignore", "drop"), help="How to treat objects of novel classes in training "
        "images: as background, as void (ignore), or leave the image out (drop) (default: the "
        "protocol's).")  # fmt: skip
    add("--episodes", type=int, metavar="N", help="Test episodes for each seed (default: the protocol's).")
    add("--seeds", type=int, nargs="+", metavar="N", help="Seeds of the test episodes; each is a whole evaluation "
        "(default: the protocol's).")  # fmt: skip
    add("--train-list", metavar="NAME", help="For pascal: list of the training images, a name or file as VOCSource "
        "takes it (default: the protocol's).")  # fmt: skip
    add("--images", type=int, metavar="N", help="For synthetic: number of training images (default: 1000).")


def data_settings(options: dict[str, Any], default: Mapping[str, Any]) -> DataSettings:
    """Make data settings from the options of `add_data_arguments`, and remove these from ``options``.

    If an option changes the protocol, the protocol's new name says so.

    Args:
        options: The parsed options.
        default: Fields of `DataSettings` for options that were not given.

    Raises:
        ValueError: If settings exclude each other.
    """
    if "images" in options:
        check_at_least("images", options["images"], 1)
    protocol = PROTOCOLS[options.pop("protocol")] if "protocol" in options else default["protocol"]
    size = options.pop("size", None)
    wanted = {
        "train_size": size,
        "test_size": size,
        "novel_in_training": options.pop("novel", None),
        "episodes": options.pop("episodes", None),
        "seeds": tuple(options.pop("seeds", ())) or None,
    }
    changes: dict[str, Any] = {k: value for k, value in wanted.items() if value not in (None, getattr(protocol, k))}
    if changes:
        changed = ", ".join(f"{key} {value}" for key, value in changes.items())
        protocol = replace(protocol, name=f"{protocol.name} with {changed}", **changes)
    given = {each.name: options.pop(each.name) for each in fields(DataSettings) if each.name in options}
    settings = {**default, **given, "protocol": protocol}
    return DataSettings(**{**settings, "data": tuple(settings.get("data", ()))})


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of `Recipe`, explained by its docstring; options not given are absent when parsed.

    Fields of the model are set by ``--model FIELD=VALUE``, some of them also by an option of their own.
    """
    group = parser.add_argument_group("recipe", argument_default=argparse.SUPPRESS)
    group.add_argument("--backbone", metavar="NAME", help=f"Name of the backbone.{_defaults('backbone')}")
    group.add_argument("--reducer-dropout", type=float, metavar="P", help="Dropout probability for the channels of the "
                       f"reduced features.{_defaults('reducer_dropout')}")  # fmt: skip
    add_model_argument(group)
    hints, texts = get_type_hints(Recipe), attribute_texts(Recipe)
    for each in fields(Recipe):
        if each.name not in OWN_OPTIONS:
            option = f"--{each.name.replace('_', '-')}"
            text = texts.get(each.name, "") + _defaults(each.name)
            group.add_argument(option, help=text.replace("%", "%%"), **_how_to_parse(hints[each.name]))
    group.add_argument("--accumulate", type=int, default=1, metavar="N", help="Gradient accumulation: each process "
                       "splits its share of a batch into this many parts, to save memory (default: 1).")  # fmt: skip


def add_model_argument(parser: Any) -> None:
    """Add the option for fields of the model's config."""
    parser.add_argument("--model", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="Settings of "
                        "the model: fields of SCNetConfig, such as self_contrast_weight=0 (which makes it PFENet), "
                        "num_prototypes=5 or bins=1.0,0.5; for prototypes, fields of "
                        "PrototypeConfig.")  # fmt: skip


def recipe_from(options: dict[str, Any], default: Recipe, processes: int) -> Recipe:
    """Make a recipe from the options of `add_recipe_arguments`, and remove these from ``options``.

    Args:
        options: The parsed options.
        default: The recipe for options that were not given.
        processes: The number of training processes.

    Raises:
        ValueError: If a setting is out of range.
    """
    if options.get("backbone", default.model.backbone) != default.model.backbone:
        options.setdefault("backbone_weights", None)  # the recipe's weights belong to the recipe's backbone
    model = change_model(default.model, options.pop("model"))
    model = replace(model, **{name: options.pop(name) for name in ("backbone", "reducer_dropout") if name in options})
    if model.image_size != default.model.image_size:
        raise ValueError(f"image_size must be set by --size, which sets the training crops too, got {model.image_size}")
    micro_batches = processes * check_at_least("accumulate", options.pop("accumulate"), 1)
    if "seed" in options:
        check_at_least("seed", options["seed"], 0, 2**63 - 1)
    given = {each.name: options.pop(each.name) for each in fields(Recipe) if each.name in options}
    if "scale" in given:
        given["scale"] = tuple(given["scale"])
    return replace(default, **given, model=model, micro_batches=micro_batches)


def add_training_free_arguments(parser: Any) -> None:
    """Add the options of `training_free`, except that of `add_model_argument`."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="For prototypes: name of the backbone, such as "
        "timm/vit_small_patch14_dinov2 (default: efficientnet_lite0, with the weights of its package).")  # fmt: skip
    add("--backbone-weights", metavar="NAME", help="Weights for that backbone: a file, timm (downloaded by timm), "
        "package (from an installed package), or a name of torchvision's weights.")  # fmt: skip


def training_free(options: dict[str, Any]) -> PrototypeSegmenter:
    """Make the training-free model from its options, and remove these from ``options``.

    Raises:
        ValueError: If a setting is out of range, or a file does not fit.
        OSError: If a file is missing, or weights cannot be downloaded.
        ImportError: If an extra is not installed.
    """
    weights = options.pop("backbone_weights", None)
    backbone = options.pop("backbone", None)
    if backbone is None:
        backbone, weights = "efficientnet_lite0", weights or "package"
    config = change_model(PrototypeConfig(), options.pop("model", []))
    settings = {each.name: getattr(config, each.name) for each in fields(config) if each.name != "backbone"}
    return build_prototype_segmenter(backbone, backbone_weights=weights, **settings).eval()


def change_model(model: Config, changes: Sequence[str]) -> Config:
    """Replace fields of a config as strings such as ``"field=value"`` say.

    Raises:
        ValueError: If there is no such field, or its value is not allowed.

    Example:
        >>> change_model(SCNetConfig(), ["bins=1.0,0.5", "num_prototypes=0"]).bins
        (1.0, 0.5)
    """
    names = [each.name for each in fields(model)]
    given: dict[str, Any] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in names:
            kind = type(model).__name__
            raise ValueError(f"model must name fields of {kind}, {', '.join(names)}, got {change!r}")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[name] = value
    try:
        return replace(model, **given)
    except TypeError as error:
        raise ValueError(f"model must set fields to values of their type, got {' '.join(changes)}: {error}") from error


def attribute_texts(documented: type) -> dict[str, str]:
    """Read the description of each attribute from a class's docstring, as plain text in one line.

    Example:
        >>> attribute_texts(Recipe)["epochs"]
        'Epochs to train for; an epoch has as many episodes as the training list has images.'
    """
    section = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.replace("`", "").split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _how_to_parse(hint: Any) -> dict[str, Any]:
    """Return the keyword arguments of ``add_argument`` for a value of this type."""
    if isinstance(hint, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"type": get_args(hint)[0], "nargs": len(get_args(hint)), "metavar": ("LOW", "HIGH")}
    return {"type": hint, "metavar": {int: "N", float: "X"}.get(hint, "TEXT")}


def _defaults(name: str) -> str:
    """Describe the default of a setting, for each benchmark if they differ; empty if it is not set."""
    values = {key: getattr(recipe if hasattr(recipe, name) else recipe.model, name) for key, recipe in RECIPES.items()}
    if len(set(values.values())) == 1:
        values = {"": values["pascal"]}
    known = [f"{key} {value}".strip() for key, value in values.items() if value is not None]
    return f" (default: {', '.join(known)})" if known else ""


def _fold(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
