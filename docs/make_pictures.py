"""Makes the pictures of these pages, from images that the package itself draws.

    python docs/make_pictures.py            # all of them, into docs/images
    python docs/make_pictures.py prior      # one of them

Where a picture needs features, they are histograms of colours in a window: enough to see what an operation does,
without any weights. The predictor's picture needs a trained model, which trains for some minutes.
"""

import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import fewshotseg as fs
from fewshotseg.data import (
    EpisodeDataset,
    Sample,
    SyntheticSource,
    episode_mask,
    hsnet_eval,
    padded_eval,
    pfenet_eval,
    pfenet_train,
)
from fewshotseg.losses import background_target
from fewshotseg.ops import foreground_weights, sample_nearest

mpl.use("Agg")
mpl.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.linewidth": 0.6})

IMAGES = Path(__file__).parent / "images"
REGIONS = ("#4C9BD6", "#F2B134", "#3FA796")
RED, VIOLET, INK, GREY, PALE = "#E4002B", "#8E63B5", "#30343A", "#8C8C8C", "#F1F1F1"
COLOURS = torch.cartesian_prod(*[torch.linspace(0.1, 0.9, 4)] * 3)

FLOWER = 9
SOURCE = SyntheticSource(120, num_classes=20, size=(193, 241), border=2)
QUERY, *SUPPORTS = (
    Sample(sample.image, episode_mask(sample.mask, FLOWER)) for sample in (SOURCE.load(i) for i in (36, 28, 10))
)


# What the pictures show -------------------------------------------------------------------------------------------


def histograms(image: Tensor) -> Tensor:
    """``(3, H, W)`` uint8 to ``(1, 64, h, w)``: how often each of 64 colours occurs around every fourth pixel."""
    distance = (image.float()[:, None] / 255 - COLOURS.T[:, :, None, None]).square().sum(dim=0)
    near = torch.softmax(-100 * distance, dim=0)
    return F.avg_pool2d(near[None], 13, stride=4, padding=6, count_include_pad=False)


def query_regions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels of k-means, the mask on their grid, the regions of Eq. 5, and the labels of Eq. 7, for the query."""
    features, generator = histograms(QUERY.image), torch.Generator().manual_seed(5)
    labels = fs.CosineKMeans(3)(features, generator=generator)
    masks = sample_nearest(QUERY.mask[None], (features.shape[2], features.shape[3]))
    pairs = fs.self_contrastive_pairs(
        features, features, QUERY.mask[None], partition=fs.CosineKMeans(3), generator=generator.manual_seed(5)
    )
    distance = (pairs.prototype_map[:, None] - pairs.prototypes[..., None, None]).square().sum(dim=2)
    return labels[0], masks[0], fs.background_regions(labels, masks, 3)[0], distance.argmin(dim=1)[0]


def pooling() -> Figure:
    """A prototype, and where a query looks like it."""
    features = histograms(SUPPORTS[0].image)
    inside = foreground_weights(SUPPORTS[0].mask[None], (features.shape[2], features.shape[3]))
    prototype = fs.masked_average_pool(features, inside)
    similarity = torch.cosine_similarity(histograms(QUERY.image), prototype[..., None, None], dim=1)[0]

    figure, axes = panels(4, ratios=(1, 1, 0.5, 1))
    show(axes[0], "support with its mask $M^s$", *SUPPORTS[0])
    paint(axes[1], "$M^s$ on the features' grid", inside[0].long(), {0: PALE, 1: RED})
    shares, channels = prototype[0].topk(8)
    axes[2].barh(np.arange(8), shares.numpy(), color=COLOURS[channels].tolist(), edgecolor=INK, linewidth=0.5)
    axes[2].set(xticks=[], yticks=[], title="prototype $p^s$", xlabel="8 of 64 channels")
    axes[2].invert_yaxis()
    axes[2].set_box_aspect(193 / 241 / 0.5)
    heat(axes[3], "cosine of a query with $p^s$", similarity, QUERY.mask)
    return figure


def kmeans() -> Figure:
    """Regions of a query, round by round."""
    features = histograms(QUERY.image)
    points = features.flatten(2).mT
    start = fs.sample_centroids(points, 3, generator=torch.Generator().manual_seed(5))
    figure, axes = panels(4)
    show(axes[0], "query", QUERY.image)
    for axis, rounds, title in zip(
        axes[1:], (0, 1, 10), ("three drawn points", "one round", "ten rounds"), strict=True
    ):
        labels = fs.cosine_kmeans(points, start, num_iters=rounds).labels.view(features.shape[2:])
        paint(axis, title, labels, dict(enumerate(REGIONS)))
    return figure


def prototypes() -> Figure:
    """From regions to what each location is compared with."""
    labels, masks, kept, paired = query_regions()
    colours = dict(enumerate(REGIONS))
    figure, axes = panels(4)
    show(axes[0], "query with its mask $M^q$", *QUERY)
    paint(axes[1], "three regions (Eq. 4)", labels, colours)
    remains = torch.where(kept.any(dim=0), labels, 3)
    paint(axes[2], "without foreground (Eq. 5)", torch.where(masks == 255, 4, remains), {**colours, 3: PALE, 4: GREY})
    paint(axes[3], r"$\mathcal{E}^q$ (Eq. 7)", paired, colours, masks)
    return figure


def prior() -> Figure:
    """The prior of two supports, each and together."""
    query = histograms(QUERY.image)
    support = torch.stack([histograms(shot.image)[0] for shot in SUPPORTS])[None]
    masks = torch.stack([shot.mask for shot in SUPPORTS])[None]
    figure, axes = panels(6, rows=2, width=6.2)
    for column, shot in enumerate(SUPPORTS):
        one = slice(column, column + 1)
        show(axes[column], f"support {column + 1}", *shot)
        heat(axes[3 + column], "its prior for the query", fs.prior_mask(query, support[:, one], masks[:, one])[0, 0])
    show(axes[2], "query", QUERY.image)
    heat(axes[5], "prior of both: the mean", fs.prior_mask(query, support, masks)[0, 0], QUERY.mask)
    return figure


def loss() -> Figure:
    """What the two branches compare, and what they should answer."""
    _, masks, _, paired = query_regions()
    target = background_target(QUERY.mask[None])[0]
    answers = {0: INK, 1: "white", 255: GREY}
    figure, axes = panels(6, rows=2, width=6.2)
    show(axes[0], "query", QUERY.image)
    paint(axes[1], "compared with: the prototype\nof the support's foreground", torch.zeros_like(masks), {0: VIOLET})
    paint(axes[2], "should answer\n$M^q$", QUERY.mask, answers)
    show(axes[3], "the same query", QUERY.image)
    paint(axes[4], "compared with: prototypes\nof its own background", paired, dict(enumerate(REGIONS)), masks)
    paint(axes[5], "should answer\n$1 - M^q$", target, answers)
    axes[0].set_ylabel("class-specific")
    axes[3].set_ylabel("class-agnostic")
    return figure


def episode() -> Figure:
    """An episode of two shots."""
    episodes = EpisodeDataset(SOURCE, [FLOWER], shots=2, length=20)
    spec = episodes.spec(3)
    figure, axes = panels(4)
    for axis, title, name in zip(axes, ("support 1", "support 2", "query"), (*spec.supports, spec.query), strict=False):
        show(axis, title, *episodes.sample(name, FLOWER))
    stored = SOURCE.load(SOURCE.ids.index(spec.query)).mask
    classes = stored.unique().tolist()
    colours = dict(zip(classes, [PALE, *REGIONS, VIOLET, RED], strict=False)) | {0: PALE, 255: GREY}
    paint(axes[3], "the query's stored mask", stored, colours)
    return figure


def transforms() -> Figure:
    """The presets, applied to one image."""
    figure, axes = panels(6, rows=2, width=6.2)
    show(axes[0], "as stored, 241 x 193", *SUPPORTS[1])
    presets = {
        "pfenet_eval(177)": pfenet_eval(177),
        "padded_eval(177)": padded_eval(177),
        "hsnet_eval(177)": hsnet_eval(177),
        "pfenet_train(177)": pfenet_train(177),
        "pfenet_train(177), again": pfenet_train(177),
    }
    torch.manual_seed(2)
    for axis, (title, preset) in zip(axes[1:], presets.items(), strict=True):
        image, mask = preset(*SUPPORTS[1])
        mean, std = (torch.tensor(preset.transforms[-1].__dict__[name])[:, None, None] for name in ("mean", "std"))
        show(axis, title, (255 * (image * std + mean)).clamp(0, 255).byte(), mask)
    return figure


def predictor() -> Figure:
    """Answers of a small model that has never seen the classes."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from fewshotseg.models.backbones.tiny import pretrained_tiny_backbone

    base, transform = range(6, 21), padded_eval(97)
    source = SyntheticSource(1000, num_classes=20, size=96)
    torch.manual_seed(0)
    backbone = pretrained_tiny_backbone(source, base, transform, iterations=300)
    model = fs.build_scnet(backbone, hidden_channels=48, bins=(1.0, 0.5, 0.25, 0.125))
    training = EpisodeDataset(source, base, length=4000, transform=transform)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=1000, power=0.9)
    for batch in DataLoader(training, batch_size=4):
        optimizer.zero_grad()
        model(batch.support_images, batch.support_masks, batch.query_image, batch.query_mask).loss.backward()
        optimizer.step()
        schedule.step()
    return draw_predictions(model)


def draw_predictions(model: fs.SCNet) -> Figure:
    """Two annotated examples of two novel classes, and answers for other images."""
    source = SyntheticSource(300, num_classes=20, size=(96, 128), seed=1)
    examples = {
        4: [Sample(image, episode_mask(mask, 4)) for image, mask in map(source.load, (3, 14))],
        5: [Sample(image, episode_mask(mask, 5)) for image, mask in map(source.load, (24, 42))],
    }
    images = {class_id: [shot.image for shot in shots] for class_id, shots in examples.items()}
    masks = {class_id: [shot.mask for shot in shots] for class_id, shots in examples.items()}
    alone, both = fs.FewShotPredictor(model, size=97), fs.FewShotPredictor(model, size=97)
    both.set_support(images, masks)

    figure, axes = panels(10, rows=2, width=7.6)
    for row, queries in {4: (43, 83, 75), 5: (44, 84, 49)}.items():
        first = axes[5 * (row - 4) :]
        alone.set_support(images[row], masks[row])
        for axis, shot in zip(first, examples[row], strict=False):
            show(axis, "example", *shot)
        for axis, query in zip(first[2:], queries, strict=False):
            image = source.load(query).image
            answer = both.predict(image) if query == 49 else alone.predict(image)
            show(axis, {75: "a mistake", 49: "both classes"}.get(query, "answer"), image, answer.mask)
            contour(axis, answer.mask == 2, (96, 128), colour="#1F4FD8")
    return figure


def scnet() -> Figure:
    """The two branches."""
    figure = Figure(figsize=(7.6, 4.0))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 100), ylim=(-0.5, 51.5))
    axis.axis("off")
    for bottom, colour, title, height in (
        (31, "#F0E8F7", "class-specific branch", 49.6),
        (3, "#E3F3EE", "class-agnostic branch, in training only", 0.9),
    ):
        axis.add_patch(FancyBboxPatch((37.3, bottom), 31, 16, boxstyle="round,pad=0", fc=colour, ec="none"))
        axis.text(52.8, height, title, ha="center", va="center", fontweight="bold", color=INK)
    grey, blue, yellow = "#F4F4F4", "#DCE8F4", "#FFF0CC"
    for left, bottom, width, height, colour, text in (
        (0.5, 40, 9.5, 6, grey, "supports\n$I^s$, $M^s$"),
        (0.5, 22, 9.5, 6, grey, "query $I^q$"),
        (13.5, 20, 9, 26, blue, "frozen\nbackbone"),
        (26, 40, 8, 6, yellow, "reduce\nsupport"),
        (26, 22, 8, 6, yellow, "reduce\nquery"),
        (38.3, 40, 14.5, 6, "white", "masked average\npool (1)"),
        (56, 40, 11, 6, "white", "expand\n$\\mathcal{E}^s$ (2)"),
        (38.3, 32, 14.5, 6, "white", "prior"),
        (38.3, 12, 14.5, 6, "white", "$k$-means (4), less\nforeground (5)"),
        (38.3, 4, 14.5, 6, "white", "masked average\npool (6)"),
        (56, 4, 11, 6, "white", "assign\n$\\mathcal{E}^q$ (7)"),
        (56, 12, 11, 6, grey, "mask $M^q$"),
        (73, 15, 11, 20, yellow, "comparison\nhead $g_\\phi$\n(3), (8)\n\none set of\nweights"),
        (88, 36.5, 11.5, 9, grey, "$\\hat M_{sq}$\nshould be\n$M^q$"),
        (88, 4.5, 11.5, 9, grey, "$\\hat M_{qq}$\nshould be\n$1 - M^q$"),
    ):
        style = {"boxstyle": "round,pad=0,rounding_size=0.9", "fc": colour, "ec": INK, "lw": 0.7}
        axis.add_patch(FancyBboxPatch((left, bottom), width, height, **style))
        axis.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=8, color=INK)
    for path in (
        ((10, 43), (13.5, 43)),
        ((10, 25), (13.5, 25)),
        ((22.5, 43), (26, 43)),
        ((22.5, 25), (26, 25)),
        ((34, 43), (38.3, 43)),
        ((52.8, 43), (56, 43)),
        ((34, 25), (73, 25)),
        ((22.5, 35), (38.3, 35)),
        ((52.8, 35), (69.8, 35), (69.8, 29), (73, 29)),
        ((67, 43), (71.2, 43), (71.2, 32.5), (73, 32.5)),
        ((18, 20), (18, 15), (38.3, 15)),
        ((35.8, 25), (35.8, 7), (38.3, 7)),
        ((56, 15), (52.8, 15)),
        ((45.5, 12), (45.5, 10)),
        ((52.8, 7), (56, 7)),
        ((67, 7), (70.5, 7), (70.5, 19), (73, 19)),
        ((84, 30), (86, 30), (86, 41), (88, 41)),
        ((84, 20), (86, 20), (86, 9), (88, 9)),
    ):
        axis.plot(*zip(*path[:-1], strict=True), color=INK, lw=0.9)
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", path[-1], path[-2], arrowprops=arrow)
    for x, y, text in ((29.5, 36.2, "high level"), (27, 16.2, "query, high level"), (52, 26.2, "query features $F^q$")):
        axis.text(x, y, text, fontsize=7.5, color=INK, ha="center")
    return figure


# How ----------------------------------------------------------------------------------------------------------------


def panels(
    count: int, *, rows: int = 1, ratios: Sequence[float] | None = None, width: float = 7.6
) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes without ticks."""
    columns = count // rows
    figure = Figure(figsize=(width, rows * (0.8 * width / columns + 0.35)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=ratios).ravel().tolist()
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def show(axis: Axes, title: str, image: Tensor, mask: Tensor | None = None) -> None:
    """An image; a contour around a mask's foreground, void dimmed."""
    axis.set_title(title)
    pixels = image.movedim(0, -1).numpy()
    if mask is not None:
        void = (mask == 255).numpy()[..., None]
        pixels = np.where(void, 0.45 * pixels + 0.55 * 140, pixels).astype(np.uint8)
    axis.imshow(pixels, interpolation="hanning")
    if mask is not None:
        contour(axis, mask, (image.shape[1], image.shape[2]))


def paint(axis: Axes, title: str, labels: Tensor, colours: dict[int, str], mask: Tensor | None = None) -> None:
    """Each label in its colour; a contour around a mask's foreground."""
    axis.set_title(title)
    table = np.zeros((256, 4))
    for label, colour in colours.items():
        table[label] = mpl.colors.to_rgba(colour)
    axis.imshow(table[labels.numpy()], interpolation="nearest")
    if mask is not None:
        contour(axis, mask, (labels.shape[0], labels.shape[1]))


def heat(axis: Axes, title: str, values: Tensor, mask: Tensor | None = None) -> None:
    """Numbers from 0 to 1 as brightness; a contour around a mask's foreground."""
    axis.set_title(title)
    axis.imshow(values.numpy(), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    if mask is not None:
        contour(axis, mask, (values.shape[0], values.shape[1]))


def contour(axis: Axes, mask: Tensor, size: tuple[int, int], colour: str = RED) -> None:
    """A line around a mask's foreground, in the pixels of a picture of ``size``."""
    inside = np.pad((mask == 1).float().numpy(), 1)
    steps = [(side - 1) / (cells - 1) for side, cells in zip(size, mask.shape, strict=True)]
    rows, columns = (step * np.arange(-1, cells + 1) for step, cells in zip(steps, mask.shape, strict=True))
    if not inside.any():
        return
    lines = axis.contour(columns, rows, inside, levels=[0.5], colors=colour, linewidths=1.4)
    lines.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))


def save(name: str, figure: Figure) -> None:
    """Write a PNG with as many colours as 60 kB hold."""
    drawn, content = BytesIO(), BytesIO()
    figure.savefig(drawn, dpi=120)
    for colours in (256, 192, 128, 96, 64, 48):
        content = BytesIO()
        picture = Image.open(drawn).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        picture.save(content, "png", optimize=True)
        if len(content.getvalue()) < 60_000:
            break
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.png").write_bytes(content.getvalue())


PICTURES: dict[str, Callable[[], Figure]] = {
    function.__name__: function
    for function in (pooling, kmeans, prototypes, prior, loss, scnet, episode, transforms, predictor)
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or PICTURES:
        save(chosen, PICTURES[chosen]())
