"""The state behind the page: photographs, the marks of classes on them, and predictions; independent of the page."""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewshotseg._checks import name_some
from fewshotseg._examples import POOR
from fewshotseg.annotations import overlay
from fewshotseg.annotations.class_masks import check_labelmap_names
from fewshotseg.annotations.polygons import fill_polygon
from fewshotseg.cli.errors import EXPECTED, sentence
from fewshotseg.cli.exports import FORMATS, Exports
from fewshotseg.cli.large import Answer, Scores, answer, ask, factor_for
from fewshotseg.cli.pictures import KINDS, MAKER, Pictures, write_picture
from fewshotseg.cli.results import Results
from fewshotseg.images import read_image, reduce_image
from fewshotseg.models.fast.lru import LeastRecentlyUsed
from fewshotseg.models.segmentation_model import min_presence_of, peak_of
from fewshotseg.models.weight_files import read_safely
from fewshotseg.support_files import FORMAT

Picture = NDArray[np.uint8]
"""``(h, w, 3)`` uint8, an image that the page shows."""

Point = tuple[float, float]
"""x and y in pixels of the shown image."""

SHOWN_SIDE = 1200
"""Largest side of a shown image in pixels; larger photographs are reduced."""

KEPT_BYTES = 2**29


class Shown(NamedTuple):
    """A photograph as the page shows it.

    Attributes:
        picture: The image, whose longer side has at most `SHOWN_SIDE` pixels.
        size: Height and width of the photograph itself.
    """

    picture: Picture
    size: tuple[int, int]


class Workbench:
    """The photographs, marks and predictions of one session.

    Args:
        predictor: The predictor, which gets the marks as examples.
        photos: File -> its path in the results; see `fewshotseg.cli.queries.find_photos`.
        out: Folder to save to.
    """

    def __init__(self, predictor: Any, photos: Mapping[Path, Path], out: Path) -> None:
        self.predictor, self.out = predictor, out
        self.photos: dict[str, Path] = {}
        self._names: dict[Path, Path] = {}
        self.marks: dict[str, dict[str, Tensor]] = {}
        """Class -> photograph -> its mask ``(H, W)`` bool."""
        self._kept = LeastRecentlyUsed(KEPT_BYTES)
        self._found = LeastRecentlyUsed(KEPT_BYTES)
        self._version = 0
        self._encoded: object = None
        for photo, name in photos.items():
            self.add(photo, name)

    def add(self, photo: Path, name: Path | None = None) -> str:
        """Add a photograph; returns its name on the page."""
        name = Path(photo.name) if name is None else name
        shown = name.with_name(photo.name).as_posix()
        self.photos[shown] = photo
        self._names[photo] = name
        return shown

    def shown(self, photo: str) -> Shown:
        """Return a photograph as the page shows it."""
        picture, size = self._kept.get(self._state(photo), lambda: self._read(photo))
        height, width = size.tolist()
        return Shown(picture.numpy(), (height, width))

    # Marks

    def mark(self, photo: str, class_name: str, inside: NDArray[np.bool_]) -> None:
        """Add pixels of the shown image to the mark of a class.

        Raises:
            ValueError: If there are no pixels, the class has no name or one that files cannot hold, or the size
                differs.
        """
        shown = self.shown(photo)
        class_name = class_name.strip()
        if not class_name:
            raise ValueError("name the class first")
        check_labelmap_names([class_name])
        self._check_marks(photo)
        if inside.shape != shown.picture.shape[:2]:
            raise ValueError(f"the mark must have the size of what is shown, {shown.picture.shape[:2]}")
        height, width = shown.size
        full = torch.from_numpy(np.array(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST)))
        if not full.any():
            raise ValueError("the mark is empty: paint over the object, or click around it")
        marks = self.marks.setdefault(class_name, {})
        marks[photo] = full | marks[photo] if photo in marks else full
        self._version += 1

    def mark_box(self, photo: str, class_name: str, corners: Sequence[Point]) -> None:
        """Add a box between two opposite corners, which are included."""
        (left, right), (top, bottom) = (sorted(int(corner[axis]) for corner in corners) for axis in (0, 1))
        inside = np.zeros(self.shown(photo).picture.shape[:2], dtype=bool)
        inside[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = True
        self.mark(photo, class_name, inside)

    def mark_outline(self, photo: str, class_name: str, points: Sequence[Point]) -> None:
        """Add the area inside an outline.

        Raises:
            ValueError: If it has fewer than three points, or as `mark`.
        """
        if len(points) < 3:
            raise ValueError("click at least three points around the object first")
        size = self.shown(photo).picture.shape[:2]
        self.mark(photo, class_name, fill_polygon(np.array(points, dtype=np.float64) + 0.5, size))

    def clear(self, photo: str, class_name: str) -> None:
        """Remove the mark of a class on a photograph."""
        marks = self.marks.get(class_name.strip(), {})
        if marks.pop(photo, None) is not None:
            self._version += 1
        if not marks:
            self.marks.pop(class_name.strip(), None)

    def marked(self, photo: str) -> Tensor | None:
        """Return the marks on a photograph, ``(H, W)`` uint8 (1, 2, ... in the order of the classes), or None.

        Raises:
            ValueError: If the photograph has another size than when it was marked.
        """
        self._check_marks(photo)
        masks = [(number, marks[photo]) for number, marks in enumerate(self.marks.values(), 1) if photo in marks]
        if not masks:
            return None
        labels = torch.zeros(masks[0][1].shape, dtype=torch.uint8)
        for number, mask in masks:
            labels[mask] = number
        return labels

    # Answers

    def ask(self) -> str:
        """Set the marks as the predictor's examples, if they have changed.

        Returns:
            A warning about marks that are not found in their own photographs; empty if all are.

        Raises:
            ValueError: If there is no mark, or a photograph has another size than when it was marked.
        """
        if not self.marks:
            raise ValueError("mark the object on a photograph first")
        photos = list(dict.fromkeys(photo for marks in self.marks.values() for photo in marks))
        state = (self._version, [self._state(photo) for photo in photos])
        if self._encoded != state:
            for photo in photos:
                self._check_marks(photo)
            pixels = {photo: read_image(self.photos[photo]) for photo in photos}
            images = {name: [pixels[photo] for photo in marks] for name, marks in self.marks.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # written below, with the names of the photographs
                self.predictor.set_support(images, {name: [*marks.values()] for name, marks in self.marks.items()})
            self._encoded = state
            self._found = LeastRecentlyUsed(KEPT_BYTES)
        poor = [
            f"{name} in {photo} (IoU {iou:.2f})"
            for (name, marks), found in zip(self.marks.items(), self.predictor.example_iou, strict=False)
            for photo, iou in zip(marks, found, strict=True)
            if iou < POOR
        ]
        if not poor:
            return ""
        return (
            f"Not found in its own photograph: {name_some(poor)}. Expect poor results: mark it tighter, "
            "or on another photograph too."
        )

    def answer(self, photo: str, threshold: float) -> Answer:
        """Predict a photograph at its own size; on a marked photograph return the marks instead."""
        marked = self.marked(photo)
        if marked is not None:
            presence = [float(photo in marks) for marks in self.marks.values()]
            return Answer(marked, 255 * (marked > 0).to(torch.uint8), presence, [True] * len(self.marks))
        self.ask()
        probability, presence_of = self._found.get(self._state(photo), lambda: self._predict(photo))
        model = self.predictor.model
        return answer(
            Scores(probability, presence_of.tolist()),
            self.shown(photo).size,
            threshold,
            peak=peak_of(model, threshold),
            min_presence=min_presence_of(model, threshold),
        )

    def picture(self, photo: str, labels: Tensor | None) -> Picture:
        """Draw labels of the photograph's own size on it, as the page shows it."""
        shown = self.shown(photo).picture
        if labels is None:
            return shown
        height, width = shown.shape[:2]
        reduced = Image.fromarray(labels.numpy()).resize((width, height), Image.Resampling.NEAREST)
        drawn = overlay(np.asarray(shown), np.array(reduced))
        return np.ascontiguousarray(drawn.permute(1, 2, 0).numpy())

    def caption(self, photo: str, answer: Answer) -> str:
        """Describe the prediction in one line."""
        if self.marked(photo) is not None:
            return f"{photo}: your mark"
        parts = []
        for number, (name, presence) in enumerate(zip(self.marks, answer.presence, strict=True), start=1):
            share = 100 * float((answer.mask == number).float().mean())
            class_name = f"{name} " if len(self.marks) > 1 else ""
            parts.append(f"{class_name}{share:.1f} %, presence {presence:.2f}")
        return f"{photo}: {'; '.join(parts)}"

    # Files

    def save(self, threshold: float, kinds: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
        """Write the support set, the marks, and results for all photographs.

        Args:
            threshold: As in `answer`.
            kinds: Some of `KINDS` and `FORMATS`, to write for each photograph.

        Returns:
            The written files, and photograph -> reason for those that failed.

        Raises:
            ValueError: If there is no mark, or a file for all photographs exists that this command did not write.
            OSError: If a file cannot be written.
        """
        self.ask()
        support = self.out / "support.fss"
        if os.path.lexists(support) and not _is_support_set(support):
            raise ValueError(f"{support} exists, and this command did not write it; choose another --out")
        names = [*self.marks]
        results = Results(
            self.out,
            Pictures(self.out, [kind for kind in KINDS if kind in kinds], len(names) > 1),
            Exports(self.out, [each for each in FORMATS if each in kinds], names),
            hashlib.sha256(f"{threshold} {self._version} {names}".encode()).hexdigest()[:16],
        )
        results.prepare(self._names, [], overwrite=True)
        written = [support, *results.exports.shared_paths()]
        self.predictor.save_support(support)
        for class_name, marks in self.marks.items():
            for photo, mask in marks.items():
                stem = f"{photo.replace('/', '-')}-{_plain(class_name)}"
                path = _unused(self.out / "examples", stem, written)
                write_picture(path, Image.fromarray(255 * mask.to(torch.uint8).numpy()), f"{MAKER}example")
                written.append(path)
        faults: dict[Path, str] = {}
        for shown, file in self.photos.items():
            try:
                pixels = read_image(file) if results.needs_pixels else None
                results.save(file, self._names[file], pixels, self.answer(shown, threshold), 0.0)
            except (*EXPECTED, RuntimeError) as error:  # continue with the others
                faults[file] = sentence(error)
                continue
            written += results.paths(self._names[file])
        results.exports.finish(self._names, faults)
        return written, faults

    def _state(self, photo: str) -> tuple[str, int, int]:
        """Return what changes if the file of a photograph is replaced: its name, time of change and size in bytes."""
        file = self.photos[photo].stat()
        return photo, file.st_mtime_ns, file.st_size

    def _check_marks(self, photo: str) -> None:
        """Raise `ValueError` if a photograph has another size than when it was marked."""
        for class_name, marks in self.marks.items():
            if photo in marks and tuple(marks[photo].shape) != (size := self.shown(photo).size):
                height, width = marks[photo].shape
                raise ValueError(
                    f"{photo} must have {width} x {height} pixels as when {class_name} was marked, got {size[1]} x "
                    f"{size[0]}: clear its marks, or bring the photograph back"
                )

    def _read(self, photo: str) -> tuple[Tensor, Tensor]:
        pixels = read_image(self.photos[photo])
        height, width = size = (pixels.shape[1], pixels.shape[2])
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        if max(size) > SHOWN_SIDE:
            picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)), torch.tensor([height, width])

    def _predict(self, photo: str) -> tuple[Tensor, Tensor]:
        pixels = read_image(self.photos[photo])
        factor = factor_for((pixels.shape[1], pixels.shape[2]), int(self.predictor.size))
        probability, presence = ask(self.predictor, reduce_image(pixels, factor))
        return probability, torch.tensor(presence)


def painted(layers: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the pixels that are painted on RGBA layers."""
    inside = np.zeros(size, dtype=bool)
    for layer in layers:
        inside |= layer[..., 3] > 127
    return inside


def _plain(name: str) -> str:
    """Replace characters of a class name that do not belong into a file name."""
    return "".join(letter if letter.isalnum() or letter in " -_" else "_" for letter in name)[:60]


def _is_support_set(path: Path) -> bool:
    """Whether a file is one of `fewshotseg.FewShotPredictor.save_support`, of any model."""
    try:
        content = read_safely(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _unused(folder: Path, stem: str, used: Sequence[Path]) -> Path:
    """Return the path of a PNG file; its name gets a number if another mark or somebody else's file has it already."""
    number, path = 1, folder / f"{stem}.png"
    while path in used or (os.path.lexists(path) and not Pictures.mark_of(path)):
        number += 1
        path = folder / f"{stem}-{number}.png"
    return path
