"""The examples of ``fewshotseg segment``: photographs with masks, boxes or annotation files, of any classes."""

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
from fewshotseg.images import read_image

SAVED = ".fss"
"""The ending of support sets that were saved."""

NEARLY_ALL = 0.95


class Example(NamedTuple):
    """What marks a class on a photograph.

    Attributes:
        name: Of the class; None for the only one.
        photo: A file.
        mark: A file, or a box ``(left, top, right, bottom)``.
    """

    name: str | None
    photo: Path
    mark: Path | Sequence[int]


class Examples(NamedTuple):
    """All examples, opened.

    Attributes:
        names: Of the classes, in the order of their ids 1, 2, ...
        given: As they stand on the command line.
        photos: For each class the photographs, ``(3, H, W)`` uint8.
        masks: And their masks, ``(H, W)`` int64.
        saved: A support set in place of all that.
    """

    names: list[str]
    given: list[Example]
    photos: dict[str, list[Tensor]]
    masks: dict[str, list[Tensor]]
    saved: Path | None = None

    @property
    def several(self) -> bool:
        """Whether masks have to tell classes apart."""
        return len(self.names) > 1

    def show_to(self, predictor: Any) -> "Examples":
        """Set the predictor's examples; returns them with the names of a support set that was saved."""
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
        """A name for their content."""
        found = hashlib.sha256(repr(self.names).encode())
        if self.saved is not None:
            found.update(self.saved.read_bytes())
        for name in self.photos:
            for values in [*self.photos[name], *self.masks[name]]:
                found.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how examples are given."""
    add = parser.add_argument
    add("--support", type=Path, nargs="+", help=f"photographs that show the object; or a saved support set, *{SAVED}")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--mask",
        type=Path,
        nargs="+",
        help="for each support a file that says where: a mask, or JSON of LabelMe or COCO",
    )
    shown.add_argument(
        "--box",
        type=int,
        nargs=4,
        action="append",
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="in place of masks: pixels from the upper left corner; once for each support",
    )
    add(
        "--class",
        dest="classes",
        nargs="+",
        action="append",
        metavar=("NAME", "PHOTO ANNOTATION"),
        help="in place of these three, once for each class: its name, and for each example a photograph and a mask, a "
        "JSON file of LabelMe or COCO, or box:LEFT,TOP,RIGHT,BOTTOM",
    )
    add("--void", type=int, metavar="VALUE", help="pixels of masks with this value are neither object nor background")


def open_examples(options: argparse.Namespace) -> Examples:
    """Read the examples of a command line.

    Raises:
        ValueError: If there are none, they are not given as they must be, or one cannot be used.
        OSError: If a file is not there.
    """
    saved = [path for path in options.support or [] if path.suffix.lower() == SAVED]
    if saved:
        if len(options.support) > 1 or options.mask or options.box or options.classes:
            raise ValueError(f"support must be {saved[0]} alone, without mask, box and class, which are in it")
        with saved[0].open("rb"):  # it is there
            return Examples([OBJECT], [], {}, {}, saved[0])
    given = [*_named(options.classes or []), *_unnamed(options)]
    if not given:
        raise ValueError("support with mask or box, or class, must be given: what to look for")
    if options.void is not None and not any(isinstance(example.mark, Path) for example in given):
        raise ValueError("void must go with mask, got box")
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
        if share > NEARLY_ALL:
            warn(f"{example.photo} is marked nearly everywhere: is the background marked in place of the object?")
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


def _open_mark(example: Example, size: tuple[int, int], void: int | None) -> Tensor:
    if isinstance(example.mark, Path):
        return read_example(example.mark, example.photo, name=example.name, size=size, void=void)
    return box_mask(size, example.mark)


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
