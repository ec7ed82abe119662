"""Draw what the package's model segments from one example, with failures, on photographs of scikit-image.

    pip install -e ".[lite,train]" scikit-image
    python examples/one_shot.py                            # outputs/one-shot.png, outputs/one-shot-failures.png
    python examples/one_shot.py --model model.pth --out pictures/

The licences that scikit-image gives for them: astronaut, "released into the public domain" (NASA); rocket, "released
in the public domain" (SpaceX); camera and coffee, CC0 by their photographers (Lav Varshney, Rachel Michetti).
The outlines of the examples were drawn by hand for these pictures.
"""

import argparse
from collections.abc import Sequence
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
    """One support with the outline of its object, and one query.

    Attributes:
        title: Name of the object.
        support: The photograph with the example.
        outline: Corners ``(x, y)`` of the polygon around the object in ``support``.
        query: The photograph to segment.
    """

    title: str
    support: np.ndarray
    outline: list[tuple[int, int]]
    query: np.ndarray


def pictures() -> dict[str, list[OneShot]]:
    """Return the examples that each picture shows, by its file name without ``.png``."""
    astronaut = data.astronaut()
    return {
        "one-shot": [OneShot("spacecraft", astronaut, SPACECRAFT, data.rocket())],
        "one-shot-failures": [
            OneShot("person", astronaut, PERSON, data.camera()),
            OneShot("person", astronaut, PERSON, data.coffee()),
        ],
    }


def draw(predictor: fs.FewShotPredictor, examples: Sequence[OneShot]) -> Image.Image:
    """Draw one row for each example: support and outline, query, probability, predicted mask."""
    figure = Figure(figsize=(9, 2.4 * len(examples)), layout="constrained")
    rows = figure.subplots(len(examples), 4, squeeze=False)
    for axes, (title, support, outline, query) in zip(rows, examples, strict=True):
        mask = Image.new("1", support.shape[1::-1])
        ImageDraw.Draw(mask).polygon(outline, fill=1)
        predictor.set_support(support, np.array(mask))
        found = predictor.predict(query)
        colours = np.repeat(query[..., None], 3, axis=2) if query.ndim == 2 else query
        show(axes[0], support, f"one example: {title}")
        axes[0].add_patch(mpl.patches.Polygon(outline, facecolor="#E4002B66", edgecolor="#E4002B"))
        show(axes[1], colours, "another photograph")
        show(axes[2], colours, "probability")
        axes[2].imshow(found.probability.numpy(), cmap="magma", vmin=0, vmax=1)
        show(axes[3], colours, "answer")
        tint = np.zeros((*found.mask.shape, 4))
        tint[found.mask == 1] = (0.89, 0, 0.17, 0.5)
        axes[3].imshow(tint)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=100)
    return Image.open(drawn).convert("RGB").quantize(128)


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """Show an image without ticks."""
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw both pictures; on an error, print one sentence and exit with status 2."""
    parser = argparse.ArgumentParser(
        prog="one_shot.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="scnet-lite2", help="name or file of a model (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder of pictures (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        predictor = fs.FewShotPredictor.from_pretrained(options.model)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, examples in pictures().items():
            path = options.out / f"{name}.png"
            draw(predictor, examples).save(path, optimize=True)
            print(path)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {str(error).splitlines()[0]}\n")


if __name__ == "__main__":
    main()
