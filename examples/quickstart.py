"""Train SCNet on base classes, segment classes that it has never seen, and compare with PFENet (lambda = 0).

    python examples/quickstart.py                                   # data made by the package, no download
    python examples/quickstart.py --data photographs/ --backbone-weights IMAGENET1K_V1

Both models see the same episodes in the same order from the same initial weights; only lambda differs. A folder of
photographs holds images/, masks/ (PNG, pixel values are class ids, 255 void) and may hold index.csv and classes.csv; a
VOC 2012 root works too. Training takes the images without any novel class, testing those of the first folder that
have one, so that images and classes are both disjoint.
"""

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

import fewshotseg as fs
from fewshotseg.training.benchmark import open_folder, quarter, with_classes
from fewshotseg.data import (
    ClassSplit,
    ConcatSource,
    EpisodeDataset,
    SegmentationSource,
    SyntheticSource,
    padded_eval,
    pascal5i,
    without_classes,
)
from overlays import draw_episodes
from fewshotseg.models.backbones.tiny import pretrained_tiny_backbone


def main() -> None:
    """Train and test both models, print a table, write a picture."""
    settings = parse_settings()
    started = time.monotonic()
    torch.manual_seed(settings.seed)
    sources = photographs(settings.data, settings.fold) if settings.data else synthetic_images(settings.fold)
    train_source, test_source, (base, novel) = sources
    names = {class_id: test_source.class_names[class_id] for class_id in novel}
    print(f"{len(train_source.ids)} images to train on; {len(test_source.ids)} others with {', '.join(names.values())}")

    transform = padded_eval(settings.size)
    augment = v2.Compose([v2.RandomHorizontalFlip(), transform])
    if settings.data:
        backbone = {"backbone": settings.backbone, "backbone_weights": settings.backbone_weights}
    else:
        backbone = {"backbone": pretrained_tiny_backbone(train_source, base, augment, settings.pretrain)}
    episodes = settings.iterations * settings.batch
    training = EpisodeDataset(train_source, base, length=episodes, seed=settings.seed, transform=augment)
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
        model.memory = memory  # both have the same frozen backbone
        train(model, training, batch=settings.batch, lr=settings.lr, name=name)
        model.memory = None
        models[name] = model
        reports[name] = {
            shots: fs.evaluate(
                model,
                test,
                fs.FewShotIoU(novel, class_names=names),
                progress=functools.partial(tqdm, desc=f"testing {shots}-shot"),
            )
            for shots, test in tests.items()
        }
        save_numbers(settings, reports)

    print(f"\nmIoU on {len(novel)} novel classes, {settings.episodes} episodes, seed {settings.seed}")
    print(f"{'':<22}{'1-shot':>8}{'5-shot':>8}")
    for name, by_shots in reports.items():
        print(f"{name:<22}" + "".join(f"{100 * report.miou:8.1f}" for report in by_shots.values()))
    draw_episodes(settings.out / "episodes.png", models, tests[1], size=settings.size)
    print(f"\n{settings.out}: episodes.png, results.json; {(time.monotonic() - started) / 60:.1f} minutes")
    print("A trained model on real photographs: pip install -e '.[lite]' scikit-image && python examples/one_shot.py")


def parse_settings() -> argparse.Namespace:
    """The command line; what is left open depends on whether there are photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help="folders of photographs; made by the package otherwise")
    parser.add_argument("--fold", type=int, default=0, choices=range(4), help="which quarter of the classes is novel")
    parser.add_argument("--backbone", default="mobilenet_v2", help="for photographs: a name that build_scnet knows")
    parser.add_argument("--backbone-weights", help="of the backbone: a torchvision name or a file")
    parser.add_argument("--memory", type=int, default=4, help="GiB for features of photographs, to compute none twice")
    parser.add_argument("--size", type=int, help="side of the images in pixels (97; photographs 241)")
    parser.add_argument("--channels", type=int, help="of the head (48; photographs 96)")
    parser.add_argument("--iterations", type=int, help="of training (800; photographs 1500)")
    parser.add_argument("--pretrain", type=int, default=150, help="iterations of the backbone, without photographs")
    parser.add_argument("--batch", type=int, default=4, help="episodes an iteration")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate at the start")
    parser.add_argument("--episodes", type=int, help="to test on (300; photographs 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/quickstart"), help="folder of the results")
    settings = parser.parse_args()
    defaults = {"size": (97, 241), "channels": (48, 96), "iterations": (800, 1500), "episodes": (300, 1000)}
    for name, choices in defaults.items():
        if getattr(settings, name) is None:
            setattr(settings, name, choices[bool(settings.data)])
    return settings


Sources = tuple[SegmentationSource, SegmentationSource, ClassSplit]
"""To train on, to test on, base and novel classes."""


def synthetic_images(fold: int) -> Sources:
    """Images made by the package; as in the paper, novel objects stand in the background of those to train on."""
    train_source = SyntheticSource(800, num_classes=20, size=96, seed=0)
    test_source = SyntheticSource(240, num_classes=20, size=96, seed=1)
    for source in (train_source, test_source):
        source.load = functools.cache(source.load)  # every image is made once
    split = pascal5i(fold)
    return train_source, with_classes(test_source, split.novel), split


def photographs(paths: Sequence[Path], fold: int) -> Sources:
    """Folders with images/ and masks/, or VOC 2012 roots."""
    folders = [open_folder(path) for path in paths]
    split = quarter(folders[0].class_names, fold)
    return without_classes(ConcatSource(*folders), split.novel), with_classes(folders[0], split.novel), split


def train(model: fs.SCNet, episodes: EpisodeDataset, *, batch: int, lr: float, name: str) -> None:
    """One pass over the training episodes, with a learning rate that falls to zero."""
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


def save_numbers(settings: argparse.Namespace, reports: dict) -> None:
    """Write all numbers, and the command that made them."""
    settings.out.mkdir(parents=True, exist_ok=True)
    numbers = {
        name: {f"{shots}-shot": report.to_dict() for shots, report in by_shots.items()}
        for name, by_shots in reports.items()
    }
    command = {key: str(value) for key, value in vars(settings).items()}
    (settings.out / "results.json").write_text(json.dumps({"settings": command} | numbers, indent=1))


if __name__ == "__main__":
    main()
