"""Reads the annotated examples of ``fewshotseg segment``: photographs with masks, boxes or annotation files."""

import argparse
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshotseg.annotations.labels import check_names
from fewshotseg.annotations.reading import OBJECT, read_example
from fewshotseg.cli.talk import say, warn
from fewshotseg.cli.values import filled_path
from fewshotseg.images import read_image
from fewshotseg.images.files import decode
from fewshotseg.images.mask_rule import VOID

SAVED = ".fss"
"""File ending of saved support sets."""

NEARLY_ALL = 0.95
"""Share of the area that is object or background above which a mask is probably inverted."""


class Example(NamedTuple):
    """One annotated photograph, as the command line names it.

    Attributes:
        name: The name of the class; None if there is one class without a name.
        photo: The file of the photograph.
        mark: The file of the annotation, or a box ``(left, top, right, bottom)`` in pixels.
    """

    name: str | None
    photo: Path
    mark: Path | Sequence[int]


class Examples(NamedTuple):
    """All examples, read from their files.

    Attributes:
        names: The names of the classes, in the order of their ids 1, 2, ...
        given: The examples as the command line names them.
        photos: Class -> its photographs, ``(3, H, W)`` uint8.
        masks: Class -> their masks, ``(H, W)`` int64.
        saved: The file of a saved support set, which replaces all others.
    """

    names: list[str]
    given: list[Example]
    photos: dict[str, list[Tensor]]
    masks: dict[str, list[Tensor]]
    saved: Path | None = None

    @property
    def several(self) -> bool:
        """Whether there is more than one class."""
        return len(self.names) > 1

    def show_to(self, predictor: Any) -> "Examples":
        """Set the predictor's support; returns these examples, with class names if they are a saved support set."""
        if self.saved is not None:
            predictor.load_support(self.saved)
            names = [str(name) for name in predictor.class_names]
            return self._replace(names=names or [OBJECT])
        if self.several:
            predictor.set_support(self.photos, self.masks)
        else:
            predictor.set_support(self.photos[self.names[0]], self.masks[self.names[0]])
        return self

    def digest(self) -> str:
        """Compute a SHA-256 digest of the examples' content."""
        found = hashlib.sha256(repr(self.names).encode())
        if self.saved is not None:
            found.update(self.saved.read_bytes())
        for name in self.photos:
            for values in [*self.photos[name], *self.masks[name]]:
                found.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name examples."""
    add = parser.add_argument
    add("--support", type=filled_path, nargs="+", action="extend", metavar="PHOTO", help="Photographs that show "
        f"the object, annotated by --mask or --box; or one saved support set, *{SAVED}.")  # fmt: skip
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--mask",
        type=filled_path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="For each support photograph, the file of its annotation: a mask image, or JSON of LabelMe or COCO.",
    )
    shown.add_argument(
        "--box",
        type=int,
        nargs=4,
        action="append",
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="Instead of --mask: a box around the object, in pixels from the upper left corner. Repeat it for each "
        "support photograph, in the same order.",
    )
    add(
        "--class",
        dest="classes",
        nargs="+",
        action="append",
        metavar=("NAME", "PHOTO ANNOTATION"),
        help="Instead of --support with --mask or --box, to look for several classes. Repeat it for each class: its "
        "name, then for each example the photograph and its annotation, which is a mask, a JSON file of LabelMe or "
        "COCO, or box:LEFT,TOP,RIGHT,BOTTOM.",
    )
    add("--void", type=int, metavar="VALUE", help="Value of mask pixels that are neither object nor background.")


def open_examples(options: argparse.Namespace) -> Examples:
    """Read the examples that the command line names.

    Raises:
        ValueError: If there are none, the options do not go together, or an example cannot be used.
        OSError: If a file is missing.
    """
    saved = [file for file in options.support or [] if file.suffix.lower() == SAVED]
    if saved:
        others = (options.mask, options.box, options.classes)
        if len(options.support) > 1 or any(others) or options.void is not None:
            raise ValueError(
                f"support must be {saved[0]} alone, without mask, box, class or void, as it holds its examples"
            )
        if saved[0].exists() and not saved[0].is_file():  # opening a pipe waits for ever
            raise ValueError(f"support must be a regular file, but {saved[0]} is a folder, a pipe or a device")
        with saved[0].open("rb"):  # raises if the file is missing
            return Examples([OBJECT], [], {}, {}, saved[0])
    given = [*_named(options.classes or []), *_unnamed(options)]
    if not given:
        raise ValueError("an example of what to look for must be given: --support with --mask or --box, or --class")
    if options.void is not None:
        _check_void(options.void, given)
    names = check_names(list(dict.fromkeys(OBJECT if each.name is None else each.name for each in given)))
    photos: dict[str, list[Tensor]] = {name: [] for name in names}
    masks: dict[str, list[Tensor]] = {name: [] for name in names}
    for example in given:
        photo = read_image(example.photo)
        mask = _open_mark(example, (photo.shape[1], photo.shape[2]), options.void)
        photos[example.name or OBJECT].append(photo)
        masks[example.name or OBJECT].append(mask)
        share = float((mask == 1).float().mean())
        title = f"{example.name}: " if example.name else ""
        say(f"example {title}{example.photo}  {100 * share:.1f} % object")
        if int((mask == 1).sum()) > NEARLY_ALL * int((mask != VOID).sum()):
            warn(f"{example.photo} is marked nearly everywhere: is the background marked instead of the object?")
    return Examples(names, given, photos, masks)


def _named(classes: Sequence[Sequence[str]]) -> Iterator[Example]:
    for name, *rest in classes:
        if not rest or len(rest) % 2:
            got = " ".join(rest) or "none"
            raise ValueError(f"class {name} must be followed by pairs of a photograph and its annotation, got {got}")
        for photo, mark in zip(rest[::2], rest[1::2], strict=True):
            yield Example(name, Path(photo), _box(mark) if mark.startswith("box:") else Path(mark))


def _box(text: str) -> list[int]:
    numbers = re.fullmatch(r"box:(-?\d+),(-?\d+),(-?\d+),(-?\d+)", text)
    if not numbers:
        raise ValueError(f"box must be box:LEFT,TOP,RIGHT,BOTTOM in whole pixels, got {text}")
    return [int(number) for number in numbers.groups()]


def _unnamed(options: argparse.Namespace) -> Iterator[Example]:
    supports, marks = options.support or [], options.mask or options.box or []
    if options.classes and (supports or marks):
        raise ValueError("class must not go with support, mask and box: give the first class a name, too")
    if len(marks) != len(supports):
        raise ValueError(f"mask or box must be given for each support, {len(supports)} of them, got {len(marks)}")
    for photo, mark in zip(supports, marks, strict=True):
        yield Example(None, photo, mark)


def _check_void(void: int, given: Sequence[Example]) -> None:
    """Raise `ValueError` unless the masks among the examples may hold this value for what is neither."""
    masks = [each.mark for each in given if isinstance(each.mark, Path) and each.mark.suffix.lower() != ".json"]
    if not masks:
        raise ValueError("void must go with a mask that is an image, got boxes or JSON files alone")
    for mask in masks:
        most = 2**31 - 1 if decode(mask, lambda image: image.mode).startswith(("I", "F")) else 255
        if not 1 <= void <= most:
            raise ValueError(f"void must be from 1 to {most} for {mask}, as 0 is the background, got {void}")


def _open_mark(example: Example, size: tuple[int, int], void: int | None) -> Tensor:
    if isinstance(example.mark, Path):
        return read_example(example.mark, example.photo, name=example.name, size=size, void=void)
    return box_mask(size, example.mark)


def box_mask(size: tuple[int, int], box: Sequence[int]) -> Tensor:
    """Make a mask of that height and width that is 1 inside the box and 0 elsewhere."""
    height, width = size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"box must be LEFT TOP RIGHT BOTTOM within {width} x {height} pixels, got {left} {top} {right} {bottom}"
        )
    mask = torch.zeros(height, width, dtype=torch.long, device="cpu")
    mask[top:bottom, left:right] = 1
    return mask
