"""Segment photographs by one or a few annotated examples, with a pretrained model or one that you trained.

    fewshotseg segment --support photo.jpg --mask mask.png --query *.jpg --out found/
    fewshotseg segment --support a.jpg b.jpg --mask a.png b.json --query photos/ --out found/ --format coco csv
    fewshotseg segment --support photo.jpg --box 120 40 380 300 --query 'photos/*.jpg' --out found/
    fewshotseg segment --class mug a.jpg a.json b.jpg b.png --class cup c.jpg box:9,9,80,70 --query photos/ --out found/

Results: --out receives pictures of the photograph's own size. NAME-mask.png is 255 on the object and 0 elsewhere,
NAME-probability.png is 255 where the model is certain of the object, NAME-overlay.jpg shows the object outlined on the
photograph, and NAME-cutout.png shows the object alone on a transparent background. NAME is the file name without its
ending: dog for dog.jpg. If there is a dog.png too, both keep their endings. Subfolders are kept. With several classes,
a mask holds 1, 2, ... in the order of the classes, in the colours that labelmap.txt lists, and the probability is that
of the most probable class.

Masks: a mask file shows the object in any one colour on a black or transparent background, or holds 1 for the object,
0 for the background and 255 for pixels that are neither. A mask of several classes needs CVAT's labelmap.txt beside it.
JPEG and other lossy formats are refused, as they change pixel values. JSON files are read in the formats of LabelMe and
COCO. A box is a rough mask; the object should fill it. EXIF orientation is applied to photographs and masks.

--format writes annotations for other tools: annotations.json (coco), NAME.json (labelme), labels/NAME.txt and data.yaml
(yolo), results.csv (csv).

Photographs that have not changed since they got results of the same examples and settings are not segmented again, so
an interrupted command can simply be repeated. A photograph that cannot be read is reported, and the others are
segmented. The exit status is 0 if all photographs were segmented, 1 if some were not, and 2 if the command could not
run at all.
"""

import argparse
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

import fewshotseg as fs
from fewshotseg._checks import check_share, checked_device
from fewshotseg.cli import examples as examples_module
from fewshotseg.cli.batch import Batch, threads
from fewshotseg.cli.examples import Example, Examples, open_examples
from fewshotseg.cli.exports import FORMATS, Exports
from fewshotseg.cli.pictures import KINDS, Pictures, is_result
from fewshotseg.cli.queries import RESULT, Queries, find_photos
from fewshotseg.cli.results import Results
from fewshotseg.cli.talk import say, warn
from fewshotseg.cli.values import check_folder, filled, filled_path
from fewshotseg.models.hub import DEFAULT_MODEL

MOST_PIXELS = 2 * 89_478_485
"""Pillow's limit of pixels, above which it raises; from half of it on it warns, but people have such photographs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    examples_module.add_arguments(parser)
    add("--query", nargs="+", action="extend", required=True, metavar="PHOTO", help="Photographs to segment, "
        "folders of them, or patterns such as '*.jpg'.")  # fmt: skip
    add("--recursive", action="store_true", help="Search the subfolders of folders too.")
    add("--out", type=filled_path, required=True, metavar="FOLDER", help="Folder for the results.")
    add(
        "--save",
        nargs="+",
        action="extend",
        choices=KINDS,
        metavar="KIND",
        help=f"Pictures to save: {', '.join(KINDS)} (default: all but cutout; with --format only mask).",
    )
    add("--format", nargs="+", action="extend", choices=FORMATS, default=[], metavar="FORMAT", help="Annotations for "
        f"other tools to save: {', '.join(FORMATS)}.")  # fmt: skip
    add("--overwrite", action="store_true", help="Segment photographs again that already have results.")
    add(
        "--model",
        type=filled,
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help="The model: a name such as scnet-lite0 or prototypes-lite0, a file, or owner/name on the Hugging Face hub "
        "(default: %(default)s).",
    )
    add("--threshold", type=float, metavar="P", help="Probability above which a pixel is the object; if it is not "
        "the model's, it is applied alone (default: the model's, with its peak threshold if it has one).")  # fmt: skip
    add(
        "--min-presence",
        type=float,
        metavar="P",
        help="Smallest presence, from 0 to 1: how sure the model must be that the photograph shows the object at all. "
        "Below it the mask is left empty (default: the model's, or 0 with another threshold than the model's).",
    )
    add("--size", type=int, metavar="N", help="Resize photographs to this many pixels on the longer side before the "
        "model sees them (default: the size that the model was trained with).")  # fmt: skip
    add("--device", type=filled, help="Device to compute on, such as cpu or cuda:1 (default: CUDA if there is a GPU).")


def run(options: argparse.Namespace) -> int:
    """Segment the photographs that the command line names.

    Args:
        options: The parsed options of `add_arguments`.

    Returns:
        The exit status: 0 if all photographs were segmented, 1 if some were not.

    Raises:
        ValueError: If an argument, an example or the model cannot be used.
        OSError: If the file of an example or of the model is missing, or ``out`` cannot be written to.
        ImportError: If the model needs a package that is not installed.
    """
    if options.threshold is not None:
        check_share("threshold", options.threshold, open_ends=True)
    if options.min_presence is not None:
        check_share("min-presence", options.min_presence)
    check_folder("out", options.out)
    device = checked_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size: int | Literal["model"] = "model" if options.size is None else options.size
    with _large_photos(), threads(device) as count:
        examples = open_examples(options)
        queries = find_queries(options, examples.given)
        if not queries.photos:
            return 1
        predictor = fs.FewShotPredictor.from_pretrained(options.model, size=size, device=device)
        examples = examples.show_to(predictor)
        results = _results(options, examples, predictor)
        inputs = [each for one in examples.given for each in (one.photo, one.mark) if isinstance(each, Path)]
        results.prepare(queries.photos, inputs, overwrite=options.overwrite)
        say(f"computing on {device}" + (f" with {_counted(count, 'thread')}" if device.type == "cpu" else ""))
        batch = Batch(
            predictor,
            results,
            threshold=options.threshold,
            min_presence=options.min_presence,
            overwrite=options.overwrite,
        )
        faults = batch.run(queries.photos)
        results.exports.finish(queries.photos, faults)
    return 1 if faults or queries.faults else 0


def find_queries(options: argparse.Namespace, given: list[Example]) -> Queries:
    """Find the photographs to segment, and report the files that are skipped.

    Masks of the examples and results of earlier runs, in whatever folder, are skipped. An example that was found in a
    folder is skipped if its mask lies in the same folder; if the mask lies elsewhere, or is a box, the example is
    segmented like the others.
    """
    queries = find_photos(options.query, recursive=options.recursive, without=options.out)
    photos = {photo: os.path.realpath(photo) for photo in queries.photos}
    marks = {os.path.realpath(one.mark) for one in given if isinstance(one.mark, Path)}
    pairs = {
        os.path.realpath(one.photo)
        for one in given
        if isinstance(one.mark, Path) and _folder(one.mark) == _folder(one.photo)
    }
    pictures = Pictures(options.out, [*KINDS])
    results = {os.path.realpath(path) for name in queries.photos.values() for path in pictures.paths(name)}
    found = [photo for photo in queries.photos if photo not in queries.named]
    queries.skip("masks of the examples", [photo for photo in queries.photos if photos[photo] in marks])
    queries.skip("examples, with their masks beside them", [photo for photo in found if photos[photo] in pairs])
    queries.skip(RESULT, [photo for photo in queries.photos if photos[photo] in results or is_result(photo)])
    for remark in [*queries.faults, *queries.remarks()]:
        warn(remark)
    return queries


def _results(options: argparse.Namespace, examples: Examples, predictor: fs.FewShotPredictor) -> Results:
    usual = ["mask"] if options.format else [kind for kind in KINDS if kind != "cutout"]
    kinds = [*dict.fromkeys(options.save or usual)]
    return Results(
        options.out,
        Pictures(options.out, kinds, examples.several),
        Exports(options.out, options.format, examples.names),
        _digest(predictor, examples, f"{options.threshold} {options.min_presence}"),
    )


def _digest(predictor: fs.FewShotPredictor, examples: Examples, settings: str) -> str:
    """Compute a digest of the model, the examples and the settings: all that results depend on but the photograph."""
    config = getattr(predictor.model, "config", None)
    found = hashlib.sha256(f"{config} {predictor.size} {settings} {examples.digest()}".encode())
    for values in predictor.model.state_dict().values():
        found.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


@contextmanager
def _large_photos() -> Iterator[None]:
    """Silence Pillow's warning about large images while the block runs."""
    before = Image.MAX_IMAGE_PIXELS
    if before is not None:
        Image.MAX_IMAGE_PIXELS = max(before, MOST_PIXELS)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _folder(path: Path) -> str:
    return os.path.realpath(path.parent)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
