"""Segment your own photographs by one or a few examples, with the model of the package or one that you trained.

    python examples/segment.py --support photo.jpg --mask mask.png --query *.jpg --out found/
    python examples/segment.py --model last.pth --support a.jpg b.jpg --mask a.png b.png --query photos/ --out found
    python examples/segment.py --model head.pth --support photo.jpg --box 120 40 380 300 --query '*.jpg' --out found

Leaves NAME-mask.png (255 the object, 0 else), NAME-probability.png (255 is certain) and NAME-overlay.jpg in --out for
every NAME of a query, all of the query's size.

In a mask file every pixel that is neither 0 (black) nor transparent is the object: 255 or 1, or palette indices. Where
a value marks pixels that are neither object nor background, as 255 does in masks of PASCAL VOC, name it with --void. A
box is a rough mask; the object should fill it. Photographs are turned as their camera noted before masks and boxes
apply.
"""

import argparse
import glob
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from open_model import open_model
from PIL import Image, ImageChops, ImageFilter, ImageOps

import fewshotseg as fs

RED = (228, 0, 43)


def main(arguments: Sequence[str] | None = None) -> None:
    """Segment as the command line says; what cannot be done ends the program with one sentence."""
    parser = argparse.ArgumentParser(
        prog="segment.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--support", type=Path, nargs="+", required=True, help="photographs that show the object")
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument("--mask", type=Path, nargs="+", help="for each support a file that says where, not a JPEG")
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
    add("--out", type=Path, required=True, help="folder of the results")
    add("--model", default="scnet-lite0", help="a .pth of train.py or export_head.py, or a name (default: %(default)s)")
    add("--size", type=int, help="pixels of the longer side as the model sees it (default: as it was trained)")
    add("--device", help="such as cpu or cuda:1 (default: CUDA where there is any)")
    options = parser.parse_args(arguments)
    try:
        queries = find_images(options.query)
        targets = name_results(queries, options.out, inputs=[*options.support, *(options.mask or []), *queries])
        photos = [open_photo(path) for path in options.support]
        masks = open_masks(options.support, photos, options.mask, options.box, options.void)
        predictor = open_predictor(options.model, options.size, options.device)
        predictor.set_support(photos, masks)
        segment(predictor, targets)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {str(error).splitlines()[0]}\n")


def segment(predictor: fs.FewShotPredictor, targets: dict[Path, Path]) -> None:
    """Segment photographs, and print how long each took from its pixels to its mask.

    Args:
        predictor: With its supports.
        targets: Photographs, and for each how its results begin.
    """
    seconds = []
    width = max(len(str(path)) for path in targets)
    for path, target in targets.items():
        photo = open_photo(path)
        started = time.perf_counter()
        mask, probability = predictor.predict(photo)
        seconds.append(time.perf_counter() - started)
        target.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((255 * mask).numpy().astype(np.uint8))
        grey.save(f"{target}-mask.png")
        Image.fromarray((255 * probability).round().numpy().astype(np.uint8)).save(f"{target}-probability.png")
        overlay(photo, grey).save(f"{target}-overlay.jpg", quality=90)
        print(f"{path!s:<{width}}  {seconds[-1]:6.2f} s  {100 * mask.float().mean():5.1f} % object", flush=True)
    print(f"{len(seconds)} images, median {statistics.median(seconds):.2f} s, results in {target.parent}")


def overlay(photo: Image.Image, mask: Image.Image) -> Image.Image:
    """Tint the photograph where the mask is white, with an outline."""
    shade = Image.new("RGB", photo.size, RED)
    tinted = Image.composite(Image.blend(photo, shade, 0.4), photo, mask)
    outline = ImageChops.difference(mask, mask.filter(ImageFilter.MinFilter(5)))
    return Image.composite(shade, tinted, outline)


def find_images(names: Sequence[str]) -> list[Path]:
    """The files that names stand for: themselves, the images of a folder, or what a pattern matches; each once."""
    found: dict[Path, Path] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            matching = sorted(file for file in path.iterdir() if file.suffix.lower() in Image.registered_extensions())
        elif path.exists():
            matching = [path]
        else:
            matching = [Path(match) for match in sorted(glob.glob(name))]  # noqa: PTH207 (absolute patterns too)
        if not matching:
            raise ValueError(f"query must name images, a folder or a pattern, but {name} leads to none")
        for file in matching:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def name_results(queries: Sequence[Path], out: Path, *, inputs: Sequence[Path]) -> dict[Path, Path]:
    """Where results of each query go: a name that occurs again gets a number, and no input is overwritten."""
    targets: dict[Path, Path] = {}
    taken = set()
    for query in queries:
        name, number = query.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{query.stem}-{number}"
        taken.add(name.casefold())
        targets[query] = out / name
    kept = {path.resolve() for path in inputs}
    for target in targets.values():
        for ending in ("-mask.png", "-probability.png", "-overlay.jpg"):
            if Path(f"{target}{ending}").resolve() in kept:
                raise ValueError(f"out must be another folder, as {target}{ending} is also an input")
    return targets


def read_image(path: Path) -> Image.Image:
    """A file's pixels, upright."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise ValueError(f"{path} must be an image, but there is no such file") from error
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(f"{path} must be an image, but it cannot be read: {error}") from error


def open_photo(path: Path) -> Image.Image:
    """A photograph in RGB, upright."""
    return read_image(path).convert("RGB")


def open_masks(
    supports: Sequence[Path],
    photos: Sequence[Image.Image],
    files: Sequence[Path] | None,
    boxes: Sequence[Sequence[int]] | None,
    void: int | None,
) -> list[np.ndarray]:
    """For each photograph ``(H, W)`` uint8: 1 object, 0 background, 255 void, from files or else from boxes."""
    given = files or boxes or []
    if len(given) != len(photos):
        raise ValueError(f"mask or box must be given for each support, {len(photos)} of them, got {len(given)}")
    if files is None:
        if void is not None:
            raise ValueError("void must go with mask, got box")
        return [box_mask(photo, box) for photo, box in zip(photos, given, strict=True)]
    masks = []
    for support, photo, file in zip(supports, photos, files, strict=True):
        mask = open_mask(file, void)
        if mask.shape[::-1] != photo.size:
            raise ValueError(
                f"{file} must have the size of {support}, {photo.width} x {photo.height} pixels, "
                f"got {mask.shape[1]} x {mask.shape[0]}"
            )
        masks.append(mask)
    return masks


def open_mask(path: Path, void: int | None) -> np.ndarray:
    """The mask in a file, see above."""
    image = read_image(path)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise ValueError(f"{path} must be PNG or another format that keeps pixels as they are, got JPEG")
    if image.has_transparency_data and image.mode != "P":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert("RGB")
    values = np.array(image).astype(np.int64)
    values = values.max(axis=2) if values.ndim == 3 else values
    mask = (values > 0).astype(np.uint8)
    if void is not None:
        mask[values == void] = 255
    if not (mask == 1).any():
        hint = "; 255 is void" if void == 255 else ""
        raise ValueError(f"{path} must mark the object, but only has the values {np.unique(values).tolist()}{hint}")
    return mask


def box_mask(photo: Image.Image, box: Sequence[int]) -> np.ndarray:
    """The pixels of a box as a mask."""
    left, top, right, bottom = box
    if not (0 <= left < right <= photo.width and 0 <= top < bottom <= photo.height):
        raise ValueError(
            f"box must be LEFT TOP RIGHT BOTTOM within {photo.width} x {photo.height} pixels, "
            f"got {left} {top} {right} {bottom}"
        )
    mask = np.zeros((photo.height, photo.width), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def open_predictor(model: str, size: int | None, device: str | None) -> fs.FewShotPredictor:
    """A predictor with a trained model, see `open_model`."""
    network, trained_size = open_model(model)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return fs.FewShotPredictor(network, size=trained_size if size is None else size, device=device)


if __name__ == "__main__":
    main()
