"""Segment photographs by one or a few examples, with the model of the package or one that you trained.

    fewshotseg segment --support photo.jpg --mask mask.png --query *.jpg --out found/
    fewshotseg segment --support a.jpg b.jpg --mask a.png b.json --query photos/ --out found/ --format coco csv
    fewshotseg segment --support photo.jpg --box 120 40 380 300 --query 'photos/*.jpg' --out found/
    fewshotseg segment --class mug a.jpg a.json b.jpg b.png --class cup c.jpg box:9,9,80,70 --query photos/ --out found/

Leaves pictures of the photograph's size in --out: NAME-mask.png (255 the object, 0 else), NAME-probability.png (255 is
certain), NAME-overlay.jpg, and NAME-cutout.png with everything transparent but the object. NAME is dog for dog.jpg, and
dog.jpg where there is a dog.png too. Photographs of several folders keep them there. Of several classes masks hold
1, 2, ... in their order, in colours that labelmap.txt names, and the probability is that of the likeliest.

A mask file is a drawing of the object in any one colour on black or on nothing, or holds 1 for the object, 0 for the
background and 255 for what is neither; one of several classes has CVAT's labelmap.txt beside it. JPEG and other formats
that change pixels are refused. A JSON file is LabelMe's or COCO's. A box is a rough mask; the object should fill it.
Photographs and masks are turned as EXIF says.

--format writes what other tools open: annotations.json (coco), NAME.json (labelme), labels/NAME.txt and data.yaml
(yolo), results.csv (csv).

Photographs that were done already, by the same examples and settings, are not done again: the same command goes on
where it was stopped. One that cannot be read is named, and the others are done. The exit status is 0 if all are done,
1 if some could not be, and 2 if none could.
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
from fewshotseg.cli.pictures import KINDS, Pictures
from fewshotseg.cli.queries import Queries, find_photos
from fewshotseg.cli.results import Results
from fewshotseg.cli.talk import say, warn

MOST_PIXELS = 2 * 89_478_485
"""Where Pillow gives up; from half of it on it takes a file for an attack, but people have such photographs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command can be asked for."""
    add = parser.add_argument
    examples_module.add_arguments(parser)
    add("--query", nargs="+", required=True, help="photographs to segment, folders of them, or patterns like '*.jpg'")
    add("--recursive", action="store_true", help="look into the folders of a folder, too")
    add("--out", type=Path, required=True, help="folder of the results")
    add(
        "--save",
        nargs="+",
        choices=KINDS,
        metavar="KIND",
        help=f"of {', '.join(KINDS)} (default: all but the cutout; with --format the mask)",
    )
    add("--format", nargs="+", choices=FORMATS, default=[], metavar="FORMAT", help=f"of {', '.join(FORMATS)}")
    add("--overwrite", action="store_true", help="do photographs again that have results")
    add(
        "--model",
        default="scnet-lite0",
        help="a model: a name such as prototypes-lite0, a file, or owner/name on the Hugging Face hub "
        "(default: %(default)s)",
    )
    add("--threshold", type=float, help="probability from which on a pixel is the object (default: the model's)")
    add(
        "--min-presence",
        type=float,
        default=0.0,
        help="how sure the model must be that the object is there at all, from 0 to 1; below, the mask is empty "
        "(default: %(default)g)",
    )
    add("--size", type=int, help="pixels of the longer side as the model sees it (default: as it was trained)")
    add("--device", help="such as cpu or cuda:1 (default: CUDA where there is any)")


def run(options: argparse.Namespace) -> int:
    """Segment as the command line says.

    Args:
        options: With the attributes of `add_arguments`.

    Returns:
        The exit status: 0 if all photographs are done, 1 if some could not be.

    Raises:
        ValueError: If an argument, an example or the model is not possible.
        OSError: If an example or the model is not there, or ``out`` cannot be written to.
        ImportError: If the model needs a package that is not installed.
    """
    if options.threshold is not None:
        check_share("threshold", options.threshold, open_ends=True)
    check_share("min-presence", options.min_presence)
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
    """What to segment; says what else there was.

    Neither masks of examples nor results are photographs. An example whose mask lies beside it in a folder is there as
    an example; one whose mask lies elsewhere, or that is marked by a box, is segmented as the others are.
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
    queries.pass_over("masks of the examples", [photo for photo in queries.photos if photos[photo] in marks])
    queries.pass_over("examples, with their masks beside them", [photo for photo in found if photos[photo] in pairs])
    queries.pass_over("results of an earlier run", [photo for photo in [*queries.photos] if photos[photo] in results])
    for remark in [*queries.faults, *queries.remarks()]:
        warn(remark)
    return queries


def _results(options: argparse.Namespace, examples: Examples, predictor: fs.FewShotPredictor) -> Results:
    kinds = options.save or (["mask"] if options.format else [kind for kind in KINDS if kind != "cutout"])
    return Results(
        options.out,
        Pictures(options.out, kinds, examples.several),
        Exports(options.out, options.format, examples.names),
        _digest(predictor, examples, f"{options.threshold} {options.min_presence or ''}"),
    )


def _digest(predictor: fs.FewShotPredictor, examples: Examples, settings: str) -> str:
    """A name for all that results follow from besides the photograph: the model, the examples, the settings."""
    config = getattr(predictor.model, "config", None)
    found = hashlib.sha256(f"{config} {predictor.size} {settings} {examples.digest()}".encode())
    for values in predictor.model.state_dict().values():
        found.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


@contextmanager
def _large_photos() -> Iterator[None]:
    """Within: photographs may have as many pixels as Pillow lets through at all."""
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
