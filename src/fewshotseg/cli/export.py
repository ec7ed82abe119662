"""Write a trained model in other forms: to share, as ONNX, or as programs of torch.export.

    fewshotseg export run/last.pth mugs.pth --format model --threshold 0.35 --note "mugs and spoons, 40 photographs"
    fewshotseg export run/last.pth exported/
    fewshotseg export run/last.pth exported/ --format onnx --size 241 --shots 5
    fewshotseg export prototypes dino.pth --format model --backbone timm/vit_small_patch14_dinov2

"prototypes" is no file but the training-free model on any backbone, by default that of prototypes-lite0; --set changes
its settings, as in --set score=kmeans.

"model" is the model without what only training needs: a .pth file, or a folder with config.json and
model.safetensors, for fewshotseg.load_model, FewShotPredictor.from_pretrained and fewshotseg segment --model.

"onnx" and "pt2" are programs that need neither this package nor its Python code. "support" encodes annotated examples
once: images (1, S, 3, H, W) and label masks (1, S, H, W) to prototype, high and weights (with a density weight to
points, too), or of a training-free model to points, foreground and background. "query" segments with these: images
(B, 3, H, W) to logits (B, 2, H, W), channel 1 the object, for any B. The number of shots S and the sides H = W are
fixed by the export. Images are RGB, normalised; the ONNX files' metadata name mean and std. The programs are run on the
CPU, on random images, and nothing is left where their logits differ from the model's by more than 1e-4 of the largest.
ONNX takes pip install "fewshotseg[onnx]".
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewshotseg.cli.settings import TRAINING_FREE, add_training_free_arguments, training_free
from fewshotseg.models import PrototypeSegmenter, SCNet, load_model, read_model, save_model
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.backbones.lite import PACKAGES
from fewshotseg.models.hub import find_model
from fewshotseg.models.programs import KINDS, export_programs
from fewshotseg.models.saved_model import digest_of
from fewshotseg.models.weight_files import exists
from fewshotseg.models.weights import load_backbone_weights

FILES = (".pth", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("model", help="The model: a last.pth of a training run, a file or folder of save_model, or a name such as "
        "scnet-lite0; or prototypes.")  # fmt: skip
    add("out", type=Path, help="Folder for the files; for --format model alone also a file to write, ending in .pth.")
    add("--format", nargs="+", choices=(*KINDS, "model"), default=KINDS, dest="formats",
        help="What to write (default: onnx pt2).")  # fmt: skip
    add("--size", type=int, help="Side in pixels of the squares that images are brought to (default: the model's).")
    add("--shots", type=int, default=1, help="For onnx and pt2, the number of annotated examples (default: 1).")
    add("--threshold", type=float, help="Probability from which on a pixel counts as foreground (default: the "
        "model's).")  # fmt: skip
    add("--density-weight", type=float, help="What the densities of the examples' points count beside a trained head, "
        "such as 0.25; a head gains more from several examples with it (default: the model's).")  # fmt: skip
    add("--presence", type=float, nargs=2, metavar=("SCALE", "BIAS"), help="The two numbers of the score that says "
        "whether a photograph shows the object at all (default: the model's).")  # fmt: skip
    add("--without-backbone", action="store_true", help="For model, leave the backbone's weights out, if an installed "
        "package holds them; the file names them by a digest and is small.")  # fmt: skip
    add_training_free_arguments(parser)
    add("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="For the model prototypes, fields of "
        "PrototypeConfig.")  # fmt: skip
    add("--half", action="store_true", help="For model, store the weights of the head in half precision.")
    add("--note", help="For model, a line to keep with it: what it was trained on, and for what.")


def run(options: argparse.Namespace) -> int:
    """Write the files that the options ask for.

    Raises:
        ValueError: If the model or a setting does not fit.
        OSError: If a file is missing or cannot be written.
        ImportError: If an extra is not installed.
        ArithmeticError: If programs answer otherwise than the model.
    """
    out, kinds = options.out, [kind for kind in KINDS if kind in options.formats]
    is_file = out.suffix in FILES
    if is_file and kinds:
        raise ValueError(f"out must be a folder for {' and '.join(kinds)}, got {out}")
    model, origin = open_model(options)
    presence = None if options.presence is None else tuple(options.presence)
    if options.density_weight is not None and not isinstance(model, SCNet):
        raise ValueError("density_weight must be left out for a model without a trained head, which has nothing beside")
    changes = {"image_size": options.size, "threshold": options.threshold, "presence": presence}
    changes["density_weight"] = options.density_weight
    model.config = replace(model.config, **{key: value for key, value in changes.items() if value is not None})
    if "model" in options.formats:
        if options.without_backbone:
            check_backbone_is_installed(model)
        target = out / "model.pth" if kinds else out
        target.parent.mkdir(parents=True, exist_ok=True)
        save_model(
            model,
            target,
            with_backbone=not options.without_backbone,
            dtype=torch.float16 if options.half else None,
            origin=origin_to_share(origin, options.note),
        )
        print(f"{target}: {_size(target) / 1024:.0f} KiB")
    if kinds:
        differences = export_programs(model, out, size=model.config.image_size, shots=options.shots, kinds=kinds)
        for kind, difference in differences.items():
            for half in ("support", "query"):
                path = out / f"{half}.{kind}"
                print(f"{path}: {_size(path) / 2**20:.1f} MiB")
            print(f"{kind}: logits differ from the model's by {difference:.1e} of the largest")
    return 0


def origin_to_share(origin: Mapping[str, Any], note: str | None) -> dict[str, Any]:
    """Give what others may know about a model: of a training run its settings, without folders of this machine."""
    shared = dict(origin)
    if "data" in origin and "recipe" in origin:
        recipe = {key: value for key, value in origin["recipe"].items() if key not in {"model", "backbone_weights"}}
        protocol = f"{origin['protocol']} ({origin['protocol_hash']}), fold {origin['data']['fold']}"
        shared = {
            "recipe": recipe,
            "protocol": protocol,
            **{key: origin[key] for key in ("iteration", "best", "versions") if key in origin},
        }
    return shared if note is None else {**shared, "note": note}


def open_model(options: argparse.Namespace) -> tuple[SCNet | PrototypeSegmenter, Mapping[str, Any]]:
    """The model that the options mean, and how its weights came about."""
    made = {"backbone": options.backbone, "backbone_weights": options.backbone_weights, "model": options.set}
    if options.model == TRAINING_FREE and not exists(Path(options.model)):
        return training_free(made), {}
    for name, value in made.items():
        if value:
            raise ValueError(f"{name.replace('model', 'set')} must go with the model {TRAINING_FREE}, got {value}")
    source = find_model(options.model)
    return load_model(source), read_model(source).origin


def check_backbone_is_installed(model: SCNet | PrototypeSegmenter) -> None:
    """Raise unless an installed package holds the very weights of the model's backbone."""
    name = model.config.backbone
    if name not in PACKAGES:
        raise ValueError(
            f"backbone must be {' or '.join(PACKAGES)}, whose weights an installed package holds, to be left out, "
            f"got {name}"
        )
    backbone = make_backbone(name)
    load_backbone_weights(backbone, "package", name=name)
    if digest_of(backbone.state_dict()) != digest_of(model.backbone.state_dict()):
        raise ValueError(f"{name!r} must have the weights of its installed package to be left out, got others")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
