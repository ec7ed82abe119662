"""Write a trained model as a file to share, as ONNX, or as torch.export programs.

    fewshotseg export run/last.pth mugs.pth --format model --threshold 0.35 --note "mugs and spoons, 40 photographs"
    fewshotseg export run/last.pth exported/
    fewshotseg export run/last.pth exported/ --format onnx --size 241 --shots 5
    fewshotseg export prototypes dino.pth --format model --backbone timm/vit_small_patch14_dinov2

"prototypes" names the training-free model instead of a file. By default it is that of prototypes-lite0; --backbone and
--backbone-weights choose another backbone, and --set other settings, such as --set score=kmeans.

--format model writes the model without the state that only training needs: a .pth file, or a folder with config.json
and model.safetensors. fewshotseg.load_model, FewShotPredictor.from_pretrained and fewshotseg segment --model read both.

--format onnx and pt2 write two programs each, which run without this package. "support" encodes the annotated examples
once: from images (1, S, 3, H, W) and label masks (1, S, H, W) it computes the prototype, high and weights unless the
prior is of densities, and points if the model uses densities; for the training-free model points, foreground and
background. "query" takes these and images (B, 3, H, W) of any batch size B, and computes logits (B, 2, H, W), where
channel 1 is the object. The number of shots S and the side H = W are fixed at export. Images are RGB, normalised by
the mean and std that the metadata of the ONNX files give. Each program is checked on the CPU with random images: if
its logits differ from the model's by more than 1e-4 of the largest logit, its files are deleted and the command fails.

ONNX needs pip install "fewshotseg[onnx]".
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewshotseg.cli.settings import TRAINING_FREE, add_training_free_arguments, training_free
from fewshotseg.cli.values import check_folder, filled, filled_path
from fewshotseg.models import PrototypeSegmenter, SCNet, read_model, save_model
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.backbones.lite import PACKAGES
from fewshotseg.models.checkpoints import make_model
from fewshotseg.models.hub import find_model
from fewshotseg.models.programs import KINDS, export_programs
from fewshotseg.models.saved_model import digest_of
from fewshotseg.models.weight_files import exists
from fewshotseg.models.weights import load_backbone_weights
from fewshotseg.training.data_settings import DataSettings
from fewshotseg.training.run_folder import is_training_run

FILES = (".pth", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("model", type=filled, help="The model: a checkpoint last.pth of fewshotseg train, a file or folder of "
        "save_model, a name such as scnet-lite0, or prototypes.")  # fmt: skip
    add("out", type=filled_path, help="Folder to write to; with --format model alone also a file name ending in .pth.")
    add("--format", nargs="+", choices=(*KINDS, "model"), default=KINDS, dest="formats",
        help="What to write (default: onnx pt2).")  # fmt: skip
    add("--size", type=int, metavar="N", help="Side in pixels of the squares that images are resized to (default: the "
        "model's).")  # fmt: skip
    add("--shots", type=int, metavar="S", default=1, help="For onnx and pt2: number of annotated examples (default: "
        "1).")  # fmt: skip
    add("--threshold", type=float, metavar="P", help="Probability above which a pixel is foreground (default: the "
        "model's).")  # fmt: skip
    add("--peak-threshold", type=float, metavar="P", help="Probability that a region must exceed somewhere not to be "
        "dropped (default: the model's).")  # fmt: skip
    add("--min-presence", type=float, metavar="P", help="Presence below which nothing is found (default: the "
        "model's).")  # fmt: skip
    add("--density-weight", type=float, metavar="W", help="Weight of the density score that is added to the comparison "
        "head's logits, such as 0.25; it helps most with several examples (default: the model's).")  # fmt: skip
    add("--presence", type=float, nargs=2, metavar=("SCALE", "BIAS"), help="Scale and bias of the presence score, "
        "which says whether a photograph shows the object at all (default: the model's).")  # fmt: skip
    add("--example-window", type=float, metavar="X", help="Encode each example a second time, in a window around the "
        "object, this many times as long as it, such as 2; 0 does not (default: the model's).")  # fmt: skip
    add("--without-backbone", action="store_true", help="For model: leave out the backbone's weights if an installed "
        "package holds them. The file is small; it stores a digest of the weights to check them by.")  # fmt: skip
    add_training_free_arguments(parser)
    add("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="For prototypes: fields of "
        "PrototypeConfig.")  # fmt: skip
    add("--half", action="store_true", help="For model: store the trained weights in half precision.")
    add("--note", metavar="TEXT", help="For model: a line to store in the file, such as what it was trained on.")


def run(options: argparse.Namespace) -> int:
    """Write the files of the formats that were chosen.

    Raises:
        ValueError: If the model or a setting does not fit.
        OSError: If a file is missing or cannot be written.
        ImportError: If an extra is not installed.
        ArithmeticError: If the logits of a program differ from the model's.
    """
    out, kinds = options.out, [kind for kind in KINDS if kind in options.formats]
    is_file = out.suffix in FILES
    if is_file and kinds:
        raise ValueError(f"out must be a folder for {' and '.join(kinds)}, got {out}")
    check_folder("out", out.parent if is_file else out)
    model, origin = open_model(options)
    presence = None if options.presence is None else tuple(options.presence)
    if options.density_weight is not None and not isinstance(model, SCNet):
        raise ValueError("density_weight must be left out for the training-free model, which scores by densities alone")
    changes = {
        "image_size": options.size,
        "threshold": options.threshold,
        "peak_threshold": options.peak_threshold,
        "min_presence": options.min_presence,
        "presence": presence,
        "density_weight": options.density_weight,
        "example_window": options.example_window,
    }
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
    """Return a training run's settings without its paths, to be stored in a file that others read."""
    shared = dict(origin)
    if is_training_run(origin):
        data = DataSettings.from_dict(origin["data"])
        recipe = {key: value for key, value in origin["recipe"].items() if key not in {"model", "backbone_weights"}}
        protocol = f"{origin['protocol']} ({origin['protocol_hash']}), fold {data.fold}"
        shared = {
            "folders": ", ".join(Path(folder).name for folder in data.data),
            "recipe": recipe,
            "protocol": protocol,
            **{key: origin[key] for key in ("iteration", "best", "versions") if key in origin},
        }
    return shared if note is None else {**shared, "note": note}


def open_model(options: argparse.Namespace) -> tuple[SCNet | PrototypeSegmenter, Mapping[str, Any]]:
    """Open or make the model that the options name; returns it and the record of how it was trained."""
    made = {"backbone": options.backbone, "backbone_weights": options.backbone_weights, "model": options.set}
    if options.model == TRAINING_FREE and not exists(Path(options.model)):
        return training_free(made), {}
    for name, value in made.items():
        if value:
            raise ValueError(f"{name.replace('model', 'set')} must go with the model {TRAINING_FREE}, got {value}")
    source = find_model(options.model)
    saved = read_model(source)
    return make_model(saved, source), saved.origin


def check_backbone_is_installed(model: SCNet | PrototypeSegmenter) -> None:
    """Raise unless an installed package holds exactly the weights of the model's backbone."""
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
