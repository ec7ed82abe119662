"""Options of the command line for the settings of training: data, and how to train."""

import argparse
import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fewshotseg.data import PROTOCOLS
from fewshotseg.models import PrototypeConfig, PrototypeSegmenter, SCNetConfig, build_prototype_segmenter
from fewshotseg.training.benchmark import DataSettings
from fewshotseg.training.recipe import RECIPES, Recipe

TRAINING_FREE = "prototypes"
"""Stands for a model file where there is none: a `PrototypeSegmenter`, made of options."""

Config = TypeVar("Config", SCNetConfig, PrototypeConfig)

OWN_OPTIONS = ("model", "micro_batches")
"""Fields of `Recipe` whose options differ from what would be made of their names."""


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add options for `DataSettings`; those not given are absent from what is parsed."""
    add = parser.add_argument_group("data", argument_default=argparse.SUPPRESS).add_argument
    add("--data", nargs="+", metavar="FOLDER", help="Folders of data: pascal takes the root of VOC 2012; coco that of "
        "train2014, val2014 and annotations; folders takes one or more with images/ and masks/, with "
        "images/ and COCO's instances.json, or VOC 2012 roots; fss1000 that of the test classes; "
        "deepglobe, isic, chestx and suim what ClasswiseSource reads.")  # fmt: skip
    add("--fold", type=_fold, choices=(*range(4), "all"), metavar="{0,1,2,3,all}",
        help="Which quarter of the classes is novel: not trained on, but tested on (default: 0). For folders also all: "
        "train on every class, for a model to use.")  # fmt: skip
    add("--protocol", choices=PROTOCOLS, metavar="NAME", help="A published way to measure: "
        f"{', '.join(PROTOCOLS)} (default: SCNet's; for own images another).")  # fmt: skip
    add("--size", type=int, metavar="N", help="Side in pixels of training crops and test images, in place of the "
        "protocol's.")  # fmt: skip
    add("--novel", choices=("background", "ignore", "drop"), help="What objects of novel classes in training images "
        "become: background, void, or the image is left out (default: the protocol's).")  # fmt: skip
    add("--episodes", type=int, metavar="N", help="Test episodes a seed, in place of the protocol's.")
    add("--seeds", type=int, nargs="+", metavar="N", help="Seeds of the test episodes, one whole evaluation each.")
    add("--train-list", metavar="NAME", help="For pascal, the images to train on as VOCSource names them (default: the "
        "protocol's).")  # fmt: skip
    add("--images", type=int, metavar="N", help="For synthetic, how many images to train on (default: 1000).")


def data_settings(options: dict[str, Any], default: Mapping[str, Any]) -> DataSettings:
    """Take the options of `add_data_arguments` out of ``options``; for all others the fields in ``default`` hold.

    A protocol in which something was changed carries that in its name.

    Raises:
        ValueError: If settings exclude each other.
    """
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
    """Add an option for each field of `Recipe`, with its documentation; those not given are absent from what is parsed.

    Fields of the model go by ``--model FIELD=VALUE``, some of them by options of their own too.
    """
    group = parser.add_argument_group("recipe", argument_default=argparse.SUPPRESS)
    group.add_argument("--backbone", metavar="NAME", help=f"Name of the backbone.{_defaults('backbone')}")
    group.add_argument("--reducer-dropout", type=float, metavar="P", help="Probability that a channel of the reduced "
                       f"features is dropped in training.{_defaults('reducer_dropout')}")  # fmt: skip
    add_model_argument(group)
    hints, texts = get_type_hints(Recipe), attribute_texts(Recipe)
    for each in fields(Recipe):
        if each.name not in OWN_OPTIONS:
            option = f"--{each.name.replace('_', '-')}"
            text = texts.get(each.name, "") + _defaults(each.name)
            group.add_argument(option, help=text.replace("%", "%%"), **_how_to_parse(hints[each.name]))
    group.add_argument("--accumulate", type=int, default=1, metavar="N", help="Parts in which each process takes its "
                       "share of a batch through the model, to save memory (default: 1).")  # fmt: skip


def add_model_argument(parser: Any) -> None:
    """Add the option for fields of `SCNetConfig`."""
    parser.add_argument("--model", nargs="+", default=[], metavar="FIELD=VALUE", help="Fields of SCNetConfig, such as "
                        "self_contrast_weight=0 (PFENet), num_prototypes=5 or bins=1.0,0.5; of PrototypeConfig for the "
                        "model prototypes.")  # fmt: skip


def recipe_from(options: dict[str, Any], default: Recipe, processes: int) -> Recipe:
    """Take the options of `add_recipe_arguments` out of ``options`` and put them in place of the defaults.

    Raises:
        ValueError: If a setting is impossible.
    """
    if options.get("backbone", default.model.backbone) != default.model.backbone:
        options.setdefault("backbone_weights", None)  # those of the recipe are of its own backbone
    model = change_model(default.model, options.pop("model"))
    model = replace(model, **{name: options.pop(name) for name in ("backbone", "reducer_dropout") if name in options})
    if model.image_size != default.model.image_size:
        raise ValueError(f"image_size must be set by --size, which decides about training too, got {model.image_size}")
    micro_batches = processes * options.pop("accumulate")
    given = {each.name: options.pop(each.name) for each in fields(Recipe) if each.name in options}
    if "scale" in given:
        given["scale"] = tuple(given["scale"])
    return replace(default, **given, model=model, micro_batches=micro_batches)


def add_training_free_arguments(parser: Any) -> None:
    """Add the options of `training_free`, but for that of `add_model_argument`."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help="For the model prototypes, the name of its backbone, such as "
        "timm/vit_small_patch14_dinov2 (default: efficientnet_lite0, with the weights of its package).")  # fmt: skip
    add("--backbone-weights", metavar="NAME", help="For that backbone: a file, timm for those that timm downloads, "
        "package, or the name of torchvision's.")  # fmt: skip


def training_free(options: dict[str, Any]) -> PrototypeSegmenter:
    """Take the options of a model that needs no training out of ``options``, and make it.

    Raises:
        ValueError: If a setting is impossible, or a file does not fit.
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
    """Replace fields by what ``"field=value"`` says.

    Raises:
        ValueError: If there is no such field, or it cannot have that value.

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
        raise ValueError(f"model must have possible values, got {' '.join(changes)}: {error}") from error


def attribute_texts(documented: type) -> dict[str, str]:
    """Read from a class's docstring what it says about each attribute, as plain text in one line.

    Example:
        >>> attribute_texts(Recipe)["epochs"]
        'Epochs to train for; an epoch has as many episodes as the training list has images.'
    """
    section = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.replace("`", "").split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _how_to_parse(hint: Any) -> dict[str, Any]:
    """Give argparse's keywords for a value of this type."""
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
    """Say what a setting is where it is not given, for each benchmark if they differ; nothing if it is not set."""
    values = {key: getattr(recipe if hasattr(recipe, name) else recipe.model, name) for key, recipe in RECIPES.items()}
    if len(set(values.values())) == 1:
        values = {"": values["pascal"]}
    known = [f"{key} {value}".strip() for key, value in values.items() if value is not None]
    return f" (default: {', '.join(known)})" if known else ""


def _fold(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
