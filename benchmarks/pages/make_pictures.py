"""Makes the pictures of the documentation, from images that the package itself draws.

    python benchmarks/pages/make_pictures.py            # all of them, into docs/images
    python benchmarks/pages/make_pictures.py prior      # one of them

Where a picture needs features, they are histograms of colours in a window: enough to see what an operation does,
without any weights. The predictor's picture needs a trained model, which trains for some minutes.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import fewshotseg as fs
from fewshotseg import data
from fewshotseg.data import EpisodeDataset, Sample, SyntheticSource, episode_mask
from fewshotseg.losses import background_target
from fewshotseg.ops import foreground_weights, sample_nearest
from fewshotseg.training.tiny import pretrained_tiny_backbone
from scnet_diagram import scnet

mpl.use("Agg")
mpl.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.linewidth": 0.6})

IMAGES = Path(__file__).parents[2] / "docs/images"
RED, VIOLET, INK, GREY, PALE = "#E4002B", "#8E63B5", "#30343A", "#8C8C8C", "#F1F1F1"
REGIONS = {0: "#4C9BD6", 1: "#F2B134", 2: "#3FA796"}
COLOURS = torch.cartesian_prod(*[torch.linspace(0.1, 0.9, 4)] * 3)

FLOWER = 9
SOURCE = SyntheticSource(120, num_classes=20, size=(193, 241), border=2)
QUERY, *SUPPORTS = (
    Sample(sample.image, episode_mask(sample.mask, FLOWER)) for sample in (SOURCE.load(i) for i in (36, 28, 10))
)


# Panels: a title, pixels (h, w, 3 or 4), and a mask to draw a contour around its foreground, or None --------------

Panel = tuple[str, np.ndarray, Tensor | None]


def photo(title: str, image: Tensor, mask: Tensor | None = None) -> Panel:
    """An image; void is dimmed."""
    pixels = image.movedim(0, -1).numpy()
    if mask is not None:
        pixels = np.where((mask == 255).numpy()[..., None], 0.45 * pixels + 0.55 * 140, pixels).astype(np.uint8)
    return title, pixels, mask


def labels(title: str, values: Tensor, colours: Mapping[int, str] = REGIONS, mask: Tensor | None = None) -> Panel:
    """Each label in its colour."""
    table = np.array([mpl.colors.to_rgba(colours.get(label, (0, 0, 0, 0))) for label in range(256)])
    return title, table[values.numpy()], mask


def heat(title: str, values: Tensor, mask: Tensor | None = None) -> Panel:
    """Numbers from 0 to 1 as brightness."""
    return title, mpl.colormaps["magma"](values.numpy()), mask


def draw(*panels: Panel | None, rows: int = 1, ratios: Sequence[float] | None = None, width: float = 7.6) -> Figure:
    """A figure of panels in rows; None leaves its place empty."""
    columns = len(panels) // rows
    figure = Figure(figsize=(width, rows * (0.8 * width / columns + 0.35)), layout="constrained")
    for axis, panel in zip(
        figure.subplots(rows, columns, squeeze=False, width_ratios=ratios).flat, panels, strict=True
    ):
        axis.set(xticks=[], yticks=[])
        if panel:
            title, pixels, mask = panel
            axis.set_title(title)
            axis.imshow(pixels, interpolation="hanning" if pixels.dtype == np.uint8 else "nearest")
            if mask is not None:
                contour(axis, mask, pixels.shape)
    return figure


def contour(axis: Axes, mask: Tensor, size: tuple[int, ...], colour: str = RED) -> None:
    """A line around a mask's foreground, in the pixels of a picture of ``size``."""
    inside = np.pad((mask == 1).numpy().astype(float), 1)
    if inside.any():
        steps = [(side - 1) / (cells - 1) for side, cells in zip(size, mask.shape, strict=False)]
        rows, columns = (step * np.arange(-1, cells + 1) for step, cells in zip(steps, mask.shape, strict=True))
        lines = axis.contour(columns, rows, inside, levels=[0.5], colors=colour, linewidths=1.4)
        lines.set_path_effects([withStroke(linewidth=3, foreground="white")])
        axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))


# What the pictures show -------------------------------------------------------------------------------------------


def histograms(image: Tensor) -> Tensor:
    """``(3, H, W)`` uint8 to ``(1, 64, h, w)``: how often each of 64 colours occurs around every fourth pixel."""
    distance = (image.float()[:, None] / 255 - COLOURS.T[:, :, None, None]).square().sum(dim=0)
    near = torch.softmax(-100 * distance, dim=0)
    return F.avg_pool2d(near[None], 13, stride=4, padding=6, count_include_pad=False)


def query_regions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels of k-means, the mask on their grid, the regions of Eq. 5, and the labels of Eq. 7, for the query."""
    features, generator = histograms(QUERY.image), torch.Generator().manual_seed(5)
    clusters = fs.CosineKMeans(3)(features, generator=generator)
    masks = sample_nearest(QUERY.mask[None], (features.shape[2], features.shape[3]))
    pairs = fs.self_contrastive_pairs(
        features, features, QUERY.mask[None], partition=fs.CosineKMeans(3), generator=generator.manual_seed(5)
    )
    distance = (pairs.prototype_map[:, None] - pairs.prototypes[..., None, None]).square().sum(dim=2)
    return clusters[0], masks[0], fs.background_regions(clusters, masks, 3)[0], distance.argmin(dim=1)[0]


def pooling() -> Figure:
    """A prototype, and where a query looks like it."""
    features = histograms(SUPPORTS[0].image)
    inside = foreground_weights(SUPPORTS[0].mask[None], (features.shape[2], features.shape[3]))
    prototype = fs.masked_average_pool(features, inside)
    similarity = torch.cosine_similarity(histograms(QUERY.image), prototype[..., None, None], dim=1)[0]
    figure = draw(
        photo("support with its mask $M^s$", *SUPPORTS[0]),
        labels("$M^s$ on the features' grid", inside[0].long(), {0: PALE, 1: RED}),
        None,
        heat("cosine of a query with $p^s$", similarity, QUERY.mask),
        ratios=(1, 1, 0.5, 1),
    )
    shares, channels = prototype[0].topk(8)
    axis = figure.axes[2]
    axis.barh(np.arange(8), shares.numpy(), color=COLOURS[channels].tolist(), edgecolor=INK, linewidth=0.5)
    axis.set(xticks=[], yticks=[], title="prototype $p^s$", xlabel="8 of 64 channels", box_aspect=193 / 241 / 0.5)
    axis.invert_yaxis()
    return figure


def kmeans() -> Figure:
    """Regions of a query, round by round."""
    features = histograms(QUERY.image)
    points = features.flatten(2).mT
    start = fs.sample_centroids(points, 3, generator=torch.Generator().manual_seed(5))
    panels = [photo("query", QUERY.image)]
    for rounds, title in ((0, "three drawn points"), (1, "one round"), (10, "ten rounds")):
        found = fs.cosine_kmeans(points, start, num_iters=rounds).labels
        panels.append(labels(title, found.view(features.shape[2:])))
    return draw(*panels)


def prototypes() -> Figure:
    """From regions to what each location is compared with."""
    clusters, masks, kept, paired = query_regions()
    remains = torch.where(masks == 255, 4, torch.where(kept.any(dim=0), clusters, 3))
    return draw(
        photo("query with its mask $M^q$", *QUERY),
        labels("three regions (Eq. 4)", clusters),
        labels("without foreground (Eq. 5)", remains, {**REGIONS, 3: PALE, 4: GREY}),
        labels(r"$\mathcal{E}^q$ (Eq. 7)", paired, mask=masks),
    )


def prior() -> Figure:
    """The prior of two supports, each and together."""
    query = histograms(QUERY.image)
    support = torch.stack([histograms(shot.image)[0] for shot in SUPPORTS])[None]
    masks = torch.stack([shot.mask for shot in SUPPORTS])[None]
    each = [fs.prior_mask(query, support[:, one : one + 1], masks[:, one : one + 1])[0, 0] for one in range(2)]
    return draw(
        *(photo(f"support {number}", *shot) for number, shot in enumerate(SUPPORTS, start=1)),
        photo("query", QUERY.image),
        *(heat("its prior for the query", one) for one in each),
        heat("prior of both: the mean", fs.prior_mask(query, support, masks)[0, 0], QUERY.mask),
        rows=2,
        width=6.2,
    )


def loss() -> Figure:
    """What the two branches compare, and what they should answer."""
    _, masks, _, paired = query_regions()
    answers = {0: INK, 1: "white", 255: GREY}
    figure = draw(
        photo("query", QUERY.image),
        labels("compared with: the prototype\nof the support's foreground", torch.zeros_like(masks), {0: VIOLET}),
        labels("should answer\n$M^q$", QUERY.mask, answers),
        photo("the same query", QUERY.image),
        labels("compared with: prototypes\nof its own background", paired, mask=masks),
        labels("should answer\n$1 - M^q$", background_target(QUERY.mask[None])[0], answers),
        rows=2,
        width=6.2,
    )
    figure.axes[0].set_ylabel("class-specific")
    figure.axes[3].set_ylabel("class-agnostic")
    return figure


def episode() -> Figure:
    """An episode of two shots."""
    episodes = EpisodeDataset(SOURCE, [FLOWER], shots=2, length=20)
    spec = episodes.spec(3)
    stored = SOURCE.load(SOURCE.ids.index(spec.query)).mask
    colours = dict(zip(stored.unique().tolist(), [PALE, *REGIONS.values(), VIOLET, RED], strict=False))
    names = {"support 1": spec.supports[0], "support 2": spec.supports[1], "query": spec.query}
    return draw(
        *(photo(title, *episodes.sample(name, FLOWER)) for title, name in names.items()),
        labels("the query's stored mask", stored, colours | {0: PALE, 255: GREY}),
    )


def transforms() -> Figure:
    """The presets, applied to one image."""
    panels = [photo("as stored, 241 x 193", *SUPPORTS[1])]
    torch.manual_seed(2)
    presets = (data.pfenet_eval, data.padded_eval, data.hsnet_eval, data.pfenet_train, data.pfenet_train)
    for number, preset in enumerate(presets):
        image, mask = preset(177)(*SUPPORTS[1])
        mean, std = (torch.tensor(getattr(preset(177).transforms[-1], name))[:, None, None] for name in ("mean", "std"))
        pixels = (255 * (image * std + mean)).clamp(0, 255).byte()
        panels.append(photo(f"{preset.__name__}(177){', again' * (number == 4)}", pixels, mask))
    return draw(*panels, rows=2, width=6.2)


def predictor() -> Figure:
    """Answers of a small model that has never seen the classes."""
    base, transform = range(6, 21), data.padded_eval(97)
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
    shots = {
        class_id: [Sample(image, episode_mask(mask, class_id)) for image, mask in map(source.load, indices)]
        for class_id, indices in {4: (3, 14), 5: (24, 42)}.items()
    }
    images = {class_id: [shot.image for shot in both] for class_id, both in shots.items()}
    masks = {class_id: [shot.mask for shot in both] for class_id, both in shots.items()}
    predictor, panels = fs.FewShotPredictor(model, size=97), []
    for class_id, queries in {4: (43, 83, 75), 5: (44, 84, 49)}.items():
        panels += [photo("example", *shot) for shot in shots[class_id]]
        for index in queries:
            if index == 49:
                predictor.set_support(images, masks)
            else:
                predictor.set_support(images[class_id], masks[class_id])
            image = source.load(index).image
            title = {75: "a mistake", 49: "both classes"}.get(index, "answer")
            panels.append(photo(title, image, predictor.predict(image).mask))
    figure = draw(*panels, rows=2)
    contour(figure.axes[-1], (panels[-1][2] == 2).long(), (96, 128), colour="#1F4FD8")
    return figure


def save(name: str, figure: Figure) -> None:
    """Write a PNG with as many colours as 60 kB hold."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=120)
    for colours in (256, 192, 128, 96, 64, 48):
        content = BytesIO()
        picture = Image.open(drawn).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        picture.save(content, "png", optimize=True)
        if content.tell() < 60_000:
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
