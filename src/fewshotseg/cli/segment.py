"""Segment photographs by one or a few examples, with the model of the package or one that you trained.

    fewshotseg segment --support photo.jpg --mask mask.png --query *.jpg --out found/
    fewshotseg segment --model last.pth --support a.jpg b.jpg --mask a.png b.png --query photos/ --out found/
    fewshotseg segment --support photo.jpg --box 120 40 380 300 --query 'photos/*.jpg' --out found/

Leaves NAME-mask.png (255 the object, 0 else), NAME-probability.png (255 is certain) and NAME-overlay.jpg in --out, all
of the photograph's size. NAME is dog for dog.jpg, and dog.jpg where there is a dog.png too. Photographs of several
folders keep them there.

A mask file is a drawing of the object in any one colour on black or on nothing, or holds 1 for the object, 0 for the
background and 255 for what is neither. JPEG and other formats that change pixels are refused. A box is a rough mask;
the object should fill it. Photographs and masks are turned as EXIF says.

Photographs that were done already, by the same examples and settings, are not done again: the same command goes on
where it was stopped. One that cannot be read is named, and the others are done. The exit status is 0 if all are done,
1 if some could not be, and 2 if none could.
"""

import argparse
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

import torch
from torch import Tensor

import fewshotseg as fs
from fewshotseg._checks import check_share, checked_device
from fewshotseg.cli.errors import EXPECTED, is_out_of_memory, sentence
from fewshotseg.cli.pictures import KINDS, Pictures
from fewshotseg.cli.queries import Queries, find_photos
from fewshotseg.images import read_image, read_object_mask

PROG = "fewshotseg segment"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command can be asked for."""
    add = parser.add_argument
    add("--support", type=Path, nargs="+", required=True, help="photographs that show the object")
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument("--mask", type=Path, nargs="+", help="for each support a file that says where")
    shown.add_argument(
        "--box",
        type=int,
        nargs=4,
        action="append",
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="in place of masks: pixels from the upper left corner; once for each support",
    )
    add("--void", type=int, metavar="VALUE", help="pixels of masks with this value are neither object nor background")
    add("--query", nargs="+", required=True, help="photographs to segment, folders of them, or patterns like '*.jpg'")
    add("--recursive", action="store_true", help="look into the folders of a folder, too")
    add("--out", type=Path, required=True, help="folder of the results")
    add(
        "--save",
        nargs="+",
        choices=KINDS,
        default=[*KINDS],
        metavar="KIND",
        help=f"of {', '.join(KINDS)} (default: all)",
    )
    add("--overwrite", action="store_true", help="do photographs again that have results")
    add("--model", default="scnet-lite0", help="a trained model: a name or a file (default: %(default)s)")
    add("--threshold", type=float, help="probability from which on a pixel is the object (default: the model's)")
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
    device = checked_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size: int | Literal["model"] = "model" if options.size is None else options.size
    photos = [read_image(path) for path in options.support]
    masks = open_masks(options.support, photos, options.mask, options.box, options.void)
    queries = find_queries(options)
    if not queries.photos:
        return 1
    predictor = fs.FewShotPredictor.from_pretrained(options.model, size=size, device=device)
    predictor.set_support(photos, masks)
    pictures = Pictures(options.out, options.save, digest(predictor, [*photos, *masks], options.threshold))
    inputs = [*options.support, *(options.mask or [])]
    pictures.prepare(queries.photos, inputs, overwrite=options.overwrite)
    faults = segment(predictor, queries.photos, pictures, threshold=options.threshold, overwrite=options.overwrite)
    return 1 if faults or queries.faults else 0


def segment(
    predictor: fs.FewShotPredictor,
    photos: Mapping[Path, Path],
    pictures: Pictures,
    *,
    threshold: float | None = None,
    overwrite: bool = False,
) -> int:
    """Segment photographs; say how long each took from its pixels to its mask, and how much of it is the object.

    Args:
        predictor: With its examples.
        photos: Files, and the path of each in the results.
        pictures: The results.
        threshold: As in `fewshotseg.FewShotPredictor.predict`.
        overwrite: Whether to do those again that are done.

    Returns:
        How many could not be done. Each is named on standard error.
    """
    seconds: list[float] = []
    faults = 0
    for number, (path, name) in enumerate(photos.items(), start=1):
        try:
            if pictures.are_done(path, name, overwrite=overwrite):
                continue
            pixels = read_image(path)
            started = time.perf_counter()
            mask, probability = predictor.predict(pixels, threshold=threshold)[:2]
            took = time.perf_counter() - started
            pictures.save(path, name, pixels, mask, probability)
        except (*EXPECTED, RuntimeError) as error:  # the others may do
            faults += 1
            say(f"{PROG}: {reason(path, error)}", to=sys.stderr)
            continue
        seconds.append(took)
        share = 100 * (mask == 1).float().mean()
        say(f"[{number}/{len(photos)}] {path}  {took:.2f} s  {share:.1f} % object")
    before = len(photos) - len(seconds) - faults
    median = f" in {statistics.median(seconds):.2f} s each (median)" if seconds else ""
    say(f"{len(seconds)} done{median}, {before} done before, {faults} failed; results in {pictures.out}")
    return faults


def find_queries(options: argparse.Namespace) -> Queries:
    """What to segment; says what else there was. Neither masks of examples nor results are photographs."""
    queries = find_photos(options.query, recursive=options.recursive, without=options.out)
    photos = {photo: os.path.realpath(photo) for photo in queries.photos}
    masks = {os.path.realpath(mask) for mask in options.mask or []}
    every = Pictures(options.out, [*KINDS], "")
    results = {os.path.realpath(path) for name in queries.photos.values() for path in every.paths(name)}
    queries.pass_over("masks of the examples", [photo for photo, real in photos.items() if real in masks])
    queries.pass_over("results of an earlier run", [photo for photo in [*queries.photos] if photos[photo] in results])
    for remark in [*queries.faults, *queries.remarks()]:
        say(f"{PROG}: {remark}", to=sys.stderr)
    return queries


def open_masks(
    supports: Sequence[Path],
    photos: Sequence[Tensor],
    files: Sequence[Path] | None,
    boxes: Sequence[Sequence[int]] | None,
    void: int | None,
) -> list[Tensor]:
    """For each photograph ``(H, W)`` int64: 1 object, 0 background, 255 void, from files or else from boxes."""
    given = files or boxes or []
    if len(given) != len(photos):
        raise ValueError(f"mask or box must be given for each support, {len(photos)} of them, got {len(given)}")
    if files is None and void is not None:
        raise ValueError("void must go with mask, got box")
    masks: list[Tensor] = []
    for number, (support, photo) in enumerate(zip(supports, photos, strict=True)):
        size = (photo.shape[1], photo.shape[2])
        mask = read_object_mask(files[number], void=void) if files else box_mask(size, (boxes or [])[number])
        if mask.shape != size:
            raise ValueError(
                f"{given[number]} must have the size of {support}, {size[1]} x {size[0]} pixels, "
                f"got {mask.shape[1]} x {mask.shape[0]}"
            )
        say(f"example {support}  {100 * (mask == 1).float().mean():.1f} % object")
        masks.append(mask)
    return masks


def box_mask(size: tuple[int, int], box: Sequence[int]) -> Tensor:
    """The pixels of a box as a mask of that height and width."""
    height, width = size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"box must be LEFT TOP RIGHT BOTTOM within {width} x {height} pixels, got {left} {top} {right} {bottom}"
        )
    mask = torch.zeros(height, width, dtype=torch.long, device="cpu")
    mask[top:bottom, left:right] = 1
    return mask


def digest(predictor: fs.FewShotPredictor, examples: Sequence[Tensor], threshold: float | None) -> str:
    """A name for all that results follow from besides the photograph: the model, the examples, the settings."""
    config = getattr(predictor.model, "config", None)
    found = hashlib.sha256(f"{config} {predictor.size} {threshold}".encode())
    for values in [*examples, *predictor.model.state_dict().values()]:
        found.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def reason(path: Path, error: Exception) -> str:
    """Why a photograph could not be done, with its name."""
    text = sentence(MemoryError() if is_out_of_memory(error) else error)
    return text if str(path) in text else f"{path}: {text}"


def say(text: str, *, to: TextIO | None = None) -> None:
    """Print, whatever characters the names of files have."""
    stream = sys.stdout if to is None else to
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
