"""Makes images/one-shot.png: what a model answers from one example, on images that anyone has.

    pip install "fewshotseg[lite,examples]" scikit-image
    python docs/make_one_shot_picture.py head.pth

All images come with scikit-image, which says of them: astronaut, "released into the public domain" (NASA); rocket,
"released in the public domain" (SpaceX); camera, "CC0 by the photographer (Lav Varshney)". The outlines of the examples
were drawn by hand for this picture.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from skimage import data

import fewshotseg as fs

mpl.use("Agg")

# fmt: off
PERSON = [
    (153, 85), (165, 55), (190, 30), (220, 17), (245, 16), (275, 28), (295, 50), (300, 80), (297, 105), (282, 135),
    (268, 140), (262, 160), (255, 172), (275, 190), (300, 220), (305, 240), (325, 250), (343, 275), (352, 310),
    (360, 348), (330, 360), (300, 395), (282, 430), (277, 470), (278, 511), (70, 511), (30, 490), (18, 440), (22, 380),
    (30, 330), (42, 280), (70, 240), (105, 212), (113, 190), (125, 165), (150, 150), (185, 148), (181, 130), (170, 122),
    (158, 110),
]
SPACECRAFT = [
    (397, 15), (405, 2), (415, 0), (428, 4), (436, 20), (438, 44), (443, 40), (449, 52), (452, 100), (450, 188),
    (457, 226), (458, 265), (436, 258), (420, 255), (400, 270), (370, 270), (380, 236), (354, 228), (357, 212),
    (373, 190), (379, 175), (382, 105), (380, 55), (387, 40), (394, 55),
]
# fmt: on


class OneShot(NamedTuple):
    """One example, and where to find its kind again."""

    title: str
    support: np.ndarray
    outline: list[tuple[int, int]]
    query: np.ndarray


EXAMPLES = (
    OneShot("person", data.astronaut(), PERSON, data.camera()),
    OneShot("spacecraft", data.astronaut(), SPACECRAFT, data.rocket()),
)


def picture(predictor: fs.FewShotPredictor) -> Figure:
    """A row an example: the support with its outline, the query, the probability, the answer."""
    figure = Figure(figsize=(9, 2.4 * len(EXAMPLES)), layout="constrained")
    rows = figure.subplots(len(EXAMPLES), 4, squeeze=False)
    for axes, (title, support, outline, query) in zip(rows, EXAMPLES, strict=True):
        mask = Image.new("1", support.shape[1::-1])
        ImageDraw.Draw(mask).polygon(outline, fill=1)
        predictor.set_support(support, np.array(mask))
        found = predictor.predict(query)
        colours = np.repeat(query[..., None], 3, axis=2) if query.ndim == 2 else query
        show(axes[0], support, f"one example: {title}")
        axes[0].add_patch(mpl.patches.Polygon(outline, facecolor="#E4002B66", edgecolor="#E4002B"))
        show(axes[1], colours, "another photograph")
        show(axes[2], colours, "probability")
        axes[2].imshow(found.probability, cmap="magma", vmin=0, vmax=1)
        show(axes[3], colours, "answer")
        tint = np.zeros((*found.mask.shape, 4))
        tint[found.mask == 1] = (0.89, 0, 0.17, 0.5)
        axes[3].imshow(tint)
    return figure


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """An image without ticks."""
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


if __name__ == "__main__":
    model = sys.argv[1]
    drawn = BytesIO()
    picture(fs.FewShotPredictor.from_pretrained(model)).savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(128).save(Path(__file__).parent / "images/one-shot.png", optimize=True)
