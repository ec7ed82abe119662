"""The paper's Figures 2 and 5, on any benchmark.

    python examples/study/figures.py fig2 pascal --data VOC2012/            # novel objects hidden in training images
    python examples/study/figures.py fig5 RUNS/pfenet-fold0-.../last.pth RUNS/scnet-fold0-.../last.pth

Both write a picture to --out, fig2 its numbers too. fig5 draws test episodes of the fold that both were trained on.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import fewshotseg as fs
from fewshotseg.cli.settings import add_data_arguments, data_settings
from fewshotseg.data import ConcatSource, EpisodeDataset, SegmentationSource, hidden_novel_share
from fewshotseg.models import read_model
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings, draw_test, open_benchmark, open_folder, quarter

mpl.use("Agg")


def hidden_shares(data: DataSettings, folds: Sequence[int]) -> dict[str, float]:
    """The share of novel-class objects in training images of each fold, before a protocol leaves any out."""
    shares = {}
    images: SegmentationSource
    for fold in folds:
        if data.benchmark == "folders":
            sources = [open_folder(Path(root), progress=True) for root in data.data]
            images, split = ConcatSource(*sources), quarter(sources[0].class_names, fold)
        else:
            protocol = replace(data.protocol, novel_in_training="background")
            images, _, split = open_benchmark(replace(data, fold=fold, protocol=protocol), progress=True)
        shares[f"Fold-{fold}"] = hidden_novel_share(images, split)
    return shares


def share_bars(shares: Mapping[str, float]) -> Figure:
    """A bar for each fold."""
    figure = Figure(figsize=(4, 3), layout="constrained")
    axis = figure.subplots()
    axis.bar_label(axis.bar(list(shares), [100 * share for share in shares.values()]), fmt="%.1f")
    axis.margins(y=0.1)
    axis.set(title="Objects of novel classes in training images", ylabel="%")
    return figure


def checkpoint_answers(checkpoints: Sequence[Path], roots: Sequence[str] | None) -> Figure:
    """The first test episodes, with what the baseline and SCNet make of them."""
    data, other = (DataSettings.from_dict(read_model(path).origin["data"]) for path in checkpoints)
    one, two = (f"{its.benchmark}, fold {its.fold}" for its in (data, other))
    if one != two:
        raise ValueError(f"checkpoints must be of one benchmark and fold, got {one}, and {two}")
    baseline, scnet = map(fs.load_model, checkpoints)
    data = replace(data, data=tuple(roots or data.data))
    benchmark, protocol = open_benchmark(data, progress=True), data.protocol
    episodes = draw_test(benchmark, protocol, scnet, shots=1, seed=protocol.seeds[0])
    return draw_episodes({"baseline": baseline, "SCNet": scnet}, episodes, size=protocol.test_size)


def draw_episodes(models: Mapping[str, fs.SCNet], episodes: EpisodeDataset, *, size: int, columns: int = 6) -> Figure:
    """The first support, the query, the truth and every model's answer for episodes with different queries.

    Args:
        models: Names of rows to models.
        episodes: Images are shown at their own size, whatever the transform.
        size: Side of the square in which the models see images, as in `FewShotPredictor`.
        columns: The most episodes to draw.
    """
    predictors = [fs.FewShotPredictor(model, size=size) for model in models.values()]
    names = ["support", "query", "truth", *models]
    specs = list({spec.query: spec for spec in episodes.specs}.values())[:columns]
    figure = Figure(figsize=(1.9 * len(specs) + 0.6, 1.9 * len(names) + 0.3), layout="constrained")
    axes = figure.subplots(len(names), len(specs), squeeze=False)
    for column, (class_id, query_id, support_ids) in zip(axes.T, specs, strict=True):
        supports = [episodes.sample(support_id, class_id) for support_id in support_ids]
        query = episodes.sample(query_id, class_id)
        shown = [supports[0], (query.image, torch.ones_like(query.mask)), query]
        for predictor in predictors:
            predictor.set_support([shot.image for shot in supports], [shot.mask for shot in supports])
            shown.append((query.image, predictor.predict(query.image).mask))
        for axis, (image, mask) in zip(column, shown, strict=True):
            axis.imshow(overlay(image, mask))
            axis.set(xticks=[], yticks=[])
        column[0].set_title(episodes.source.class_names[class_id], fontsize=9)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=9)
    return figure


def overlay(image: Tensor, mask: Tensor) -> np.ndarray:
    """``(3, H, W)`` uint8 to ``(H, W, 3)``: where the ``(H, W)`` mask is 1 as it is, everything else grey and dark."""
    pixels = (image.float() / 255).permute(1, 2, 0).numpy()
    grey = pixels.mean(axis=2, keepdims=True)
    return np.where((mask == 1).numpy()[..., None], pixels, 0.1 + 0.35 * grey)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one of the figures; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="figures.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, default=Path("outputs/figures"), help="folder (default: %(default)s)")
    figures = parser.add_subparsers(dest="figure", required=True)
    fig2 = figures.add_parser("fig2", parents=[common], argument_default=argparse.SUPPRESS, conflict_handler="resolve")
    fig2.add_argument("benchmark", choices=BENCHMARKS)
    add_data_arguments(fig2)
    fig2.add_argument("--folds", "--fold", type=int, nargs="+", choices=range(4), default=[0, 1, 2, 3])
    fig5 = figures.add_parser("fig5", parents=[common])
    fig5.add_argument("checkpoints", type=Path, nargs=2, metavar="CHECKPOINT", help="of the baseline and of SCNet")
    fig5.add_argument("--data", nargs="+", metavar="FOLDER", help="if the data are no longer where training found them")
    options = vars(parser.parse_args(arguments))
    figure, out = options.pop("figure"), options.pop("out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if figure == "fig5":
            drawn = checkpoint_answers(options["checkpoints"], options["data"])
        else:
            folds, benchmark = options.pop("folds"), options.pop("benchmark")
            data = data_settings(options, {"benchmark": benchmark, "protocol": BENCHMARKS[benchmark]})
            shares = hidden_shares(data, folds)
            (out / "fig2.json").write_text(json.dumps(shares, indent=1) + "\n", encoding="utf-8")
            drawn = share_bars(shares)
        drawn.savefig(out / f"{figure}.png", dpi=120)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(out / f"{figure}.png")


if __name__ == "__main__":
    main()
