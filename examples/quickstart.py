"""Train SCNet on base classes, segment classes that it has never seen, and compare with PFENet (lambda = 0).

    python examples/quickstart.py                                   # synthetic images, no download
    python examples/quickstart.py --data photographs/ --backbone-weights IMAGENET1K_V1

Both models start from the same initial weights and train on the same episodes in the same order; only lambda differs.
A folder of photographs contains images/ and masks/ (PNG, pixel values are class ids, 255 is void), and optionally
index.csv and classes.csv; a VOC 2012 root works too. The models train on the images without any novel class and are
tested on the images of the first folder that have one, so images and classes are both disjoint. For a full training,
use `fewshotseg train`.
"""

import argparse
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

import fewshotseg as fs
from fewshotseg.data import ConcatSource, EpisodeDataset, SyntheticSource, padded_eval, pascal5i, without_classes
from fewshotseg.training.benchmark import Benchmark, KeptSource, open_folder, quarter, with_classes
from fewshotseg.training.tiny import pretrained_tiny_backbone

mpl.use("Agg")


def main() -> None:
    """Train and test both models, print their scores and draw some predictions."""
    settings = parse_settings()
    started = time.monotonic()
    torch.manual_seed(settings.seed)
    train_source, test_source, (base, novel) = open_images(settings)
    names = {class_id: test_source.class_names[class_id] for class_id in novel}
    print(f"{len(train_source.ids)} images to train on; {len(test_source.ids)} others with {', '.join(names.values())}")

    transform = padded_eval(settings.size)
    augment = v2.Compose([v2.RandomHorizontalFlip(), transform])
    if settings.data:
        backbone = {"backbone": settings.backbone, "backbone_weights": settings.backbone_weights}
    else:
        backbone = {"backbone": pretrained_tiny_backbone(train_source, base, augment, settings.pretrain)}
    length = settings.iterations * settings.batch
    training = EpisodeDataset(train_source, base, length=length, seed=settings.seed, transform=augment)
    tests = {
        shots: EpisodeDataset(test_source, novel, shots=shots, length=settings.episodes, seed=1, transform=transform)
        for shots in (1, 5)
    }

    models, reports = {}, {}
    memory = fs.FeatureMemory(settings.memory * 2**30, dtype=torch.float16) if settings.data else None
    for name, weight in (("PFENet (lambda = 0)", 0.0), ("SCNet (lambda = 0.5)", 0.5)):
        torch.manual_seed(settings.seed)
        model = fs.build_scnet(
            **backbone,
            hidden_channels=settings.channels,
            bins=(1.0, 0.5, 0.25, 0.125),
            self_contrast_weight=weight,
        )
        model.fuse().memory = memory  # both have the same frozen backbone
        train(model, training, batch=settings.batch, lr=settings.lr, name=name)
        model.memory = None
        models[name], reports[name] = model, {}
        for shots, test in tests.items():
            bar = functools.partial(tqdm, desc=f"testing {shots}-shot")
            metric = fs.FewShotIoU(novel, class_names=names)
            reports[name][f"{shots}-shot"] = fs.evaluate(model, test, metric, progress=bar).to_dict()
    settings.out.mkdir(parents=True, exist_ok=True)
    given = {key: str(value) for key, value in vars(settings).items()}
    (settings.out / "results.json").write_text(json.dumps({"settings": given} | reports, indent=1))
    draw_episodes(models, tests[1], size=settings.size).savefig(settings.out / "episodes.png", dpi=110)

    print(f"\nmIoU on {len(novel)} novel classes, {settings.episodes} episodes, seed {settings.seed}")
    print(f"{'':<22}{'1-shot':>8}{'5-shot':>8}")
    for name, by_shots in reports.items():
        print(f"{name:<22}" + "".join(f"{100 * report['miou']:8.1f}" for report in by_shots.values()))
    print(f"\n{settings.out}: episodes.png, results.json; {(time.monotonic() - started) / 60:.1f} minutes")
    print("A trained model on real photographs: pip install -e '.[lite]' scikit-image && python examples/one_shot.py")


def parse_settings() -> argparse.Namespace:
    """Read the command line; some defaults depend on whether photographs are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", help="folders of photographs (default: synthetic images)")
    add("--fold", type=int, default=0, choices=range(4), help="quarter of the classes that is novel (default: 0)")
    add("--backbone", default="mobilenet_v2", help="name for build_scnet, with --data (default: %(default)s)")
    add("--backbone-weights", help="torchvision's name of weights for the backbone, or a file")
    add("--memory", type=int, default=4, help="GiB to cache features of photographs in (default: %(default)s)")
    add("--size", type=int, help="side of the images in pixels (default: 97; with --data 241)")
    add("--channels", type=int, help="channels of the comparison head (default: 48; with --data 96)")
    add("--iterations", type=int, help="training iterations (default: 800; with --data 1500)")
    add("--pretrain", type=int, default=150, help="iterations to pretrain the small backbone for synthetic images")
    add("--batch", type=int, default=4, help="episodes in a batch (default: %(default)s)")
    add("--lr", type=float, default=1e-3, help="initial learning rate (default: %(default)s)")
    add("--episodes", type=int, help="test episodes (default: 300; with --data 1000)")
    add("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add("--out", type=Path, default=Path("outputs/quickstart"), help="folder of results (default: %(default)s)")
    settings = parser.parse_args()
    defaults = {"size": (97, 241), "channels": (48, 96), "iterations": (800, 1500), "episodes": (300, 1000)}
    for name, choices in defaults.items():
        if getattr(settings, name) is None:
            setattr(settings, name, choices[bool(settings.data)])
    return settings


def open_images(settings: argparse.Namespace) -> Benchmark:
    """Open the training images and the test images, and split the classes into base and novel ones."""
    if settings.data:
        folders = [open_folder(path) for path in settings.data]
        split = quarter(folders[0].class_names, settings.fold)
        train_source = without_classes(ConcatSource(*folders), split.novel)
        return Benchmark(train_source, with_classes(folders[0], split.novel), split)
    # As in the paper, training images may contain objects of novel classes, labelled as background.
    train_source, test_source = (
        KeptSource(SyntheticSource(number, num_classes=20, size=96, seed=seed)) for number, seed in ((800, 0), (240, 1))
    )
    split = pascal5i(settings.fold)
    return Benchmark(train_source, with_classes(test_source, split.novel), split)


def train(model: fs.SCNet, episodes: EpisodeDataset, *, batch: int, lr: float, name: str) -> None:
    """Train for one pass over the episodes, with a learning rate that decays to zero."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-2)
    loader = DataLoader(episodes, batch_size=batch)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=len(loader), power=0.9)
    model.train()
    for episode in (bar := tqdm(loader, desc=f"training {name}", mininterval=1)):
        loss = model(episode.support_images, episode.support_masks, episode.query_image, episode.query_mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def draw_episodes(models: Mapping[str, fs.SCNet], episodes: EpisodeDataset, *, size: int, columns: int = 6) -> Figure:
    """Draw the first support, the query, the ground truth and each model's prediction, for different queries."""
    predictors = [fs.FewShotPredictor(model, size=size) for model in models.values()]
    names = ["support", "query", "truth", *models]
    specs = list({spec.query: spec for spec in episodes.specs}.values())[:columns]
    figure = Figure(figsize=(1.9 * len(specs) + 0.6, 1.9 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(specs), squeeze=False)
    for column, (class_id, query_id, support_ids) in zip(axes.T, specs, strict=True):
        support, query = (episodes.sample(image_id, class_id) for image_id in (support_ids[0], query_id))
        shown = [support, (query.image, torch.ones_like(query.mask)), query]
        for predictor in predictors:
            predictor.set_support(*support)
            shown.append((query.image, predictor.predict(query.image).mask))
        for axis, (image, mask) in zip(column, shown, strict=True):
            axis.imshow(overlay(image, mask))
            axis.set(xticks=[], yticks=[])
        column[0].set_title(episodes.source.class_names[class_id], fontsize=9)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=9)
    return figure


def overlay(image: Tensor, mask: Tensor) -> np.ndarray:
    """Grey and darken an image outside a mask.

    Args:
        image: ``(3, H, W)``, uint8.
        mask: ``(H, W)``; pixels with 1 keep their colour.

    Returns:
        ``(H, W, 3)``, floating point from 0 to 1.
    """
    pixels = (image.float() / 255).permute(1, 2, 0).numpy()
    grey = pixels.mean(axis=2, keepdims=True)
    return np.where((mask == 1).numpy()[..., None], pixels, 0.1 + 0.35 * grey)


if __name__ == "__main__":
    main()
