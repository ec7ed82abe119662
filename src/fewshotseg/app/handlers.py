"""Handlers of the page's events: each changes the workbench and returns what to show."""

import shutil
from collections.abc import Callable, Container, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fewshotseg.app.workbench import Picture, Point, Workbench, painted
from fewshotseg.cli.errors import EXPECTED, sentence

ANSWERS = 6
"""Number of photographs whose predictions are shown at a time."""

BOX, OUTLINE = "two corners of a box", "points around the object"

Result = TypeVar("Result")


class View(NamedTuple):
    """What the page shows after a mark has changed.

    Attributes:
        picture: The photograph with its marks; None if there is no photograph.
        answers: Pictures of the predictions, with their captions.
        said: The status message.
        points: Clicked points that are not part of a mark yet.
    """

    picture: Picture | None
    answers: list[tuple[Picture, str]]
    said: str
    points: list[Point]


class Place(NamedTuple):
    """The current selections on the page.

    Attributes:
        photo: The photograph to mark.
        threshold: The threshold of the predictions.
        turn: The page of predictions, from 1 on, with `ANSWERS` photographs each.
    """

    photo: str | None
    threshold: float
    turn: float = 1


class Handlers:
    """The actions of the page on a workbench."""

    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench

    def answers(self, place: Place) -> tuple[list[tuple[Picture, str]], str]:
        """Predict the photographs of the current page of predictions; returns pictures and the status message."""
        workbench = self.workbench
        if not workbench.marks:
            return [], "Nothing is marked yet."
        said, shown = [workbench.ask()], []
        start = ANSWERS * (max(1, int(place.turn or 1)) - 1)
        for name in [*workbench.photos][start : start + ANSWERS]:
            try:
                answer = workbench.answer(name, place.threshold)
                shown.append((workbench.picture(name, answer.mask), workbench.caption(name, answer)))
            except (*EXPECTED, RuntimeError) as error:  # continue with the others
                said.append(f"{name} is left out: {sentence(error)}.")
        return shown, " ".join(filter(None, said)) or "Ready."

    def view(self, place: Place) -> View:
        """Show the photograph with its marks, and the predictions."""
        picture = None
        if place.photo is not None:
            picture = self.workbench.picture(place.photo, self.workbench.marked(place.photo))
        return View(picture, *self.answers(place), [])

    def paint(self, place: Place, class_name: str, layers: Sequence[Any]) -> View:
        """Add what is painted on RGBA layers to the mark."""
        photo = _chosen(place)
        height, width = self.workbench.shown(photo).picture.shape[:2]
        self.workbench.mark(photo, class_name, painted(layers, (height, width)))
        return self.view(place)

    def click(self, place: Place, class_name: str, way: str, points: Sequence[Point], point: Point) -> View | None:
        """Handle a click: the second corner completes a box. Returns None if no mark was completed."""
        if way != BOX or not points:
            return None
        self.workbench.mark_box(_chosen(place), class_name, [points[0], point])
        return self.view(place)

    def close(self, place: Place, class_name: str, points: Sequence[Point]) -> View:
        """Add the area inside the clicked points to the mark."""
        self.workbench.mark_outline(_chosen(place), class_name, points)
        return self.view(place)

    def clear(self, place: Place, class_name: str) -> View:
        """Remove the mark of a class on the photograph."""
        self.workbench.clear(_chosen(place), class_name)
        return self.view(place)

    def with_points(self, photo: str, points: Sequence[Point]) -> Picture:
        """Draw the photograph with its marks, and crosses at the points."""
        drawn = np.array(self.workbench.picture(photo, self.workbench.marked(photo)))
        for x, y in np.array(points, dtype=int).reshape(-1, 2).tolist():
            for reach, colour in ((7, 255), (5, 0)):
                drawn[max(y - 1, 0) : y + 2, max(x - reach, 0) : x + reach + 1] = colour
                drawn[max(y - reach, 0) : y + reach + 1, max(x - 1, 0) : x + 2] = colour
        return drawn

    def save(self, threshold: float, kinds: Sequence[str]) -> str:
        """Save everything; returns the status message."""
        written, faults = self.workbench.save(threshold, kinds)
        missing = "".join(f" Not done: {said}." for said in faults.values())
        return f"Saved {len(written)} files in {self.workbench.out.resolve()}.{missing}"

    def upload(self, files: Sequence[str]) -> list[str]:
        """Copy uploaded photographs to the output folder, and add them; returns their names."""
        folder = self.workbench.out / "photos"
        return [self.workbench.add(_copied(Path(file), folder, self.workbench.photos)) for file in files]


def told(handler: Callable[..., Result], tell: Callable[[str], Exception]) -> Callable[..., Result]:
    """Wrap a handler so that expected errors are raised as the page's own exception, with one sentence."""

    @wraps(handler)
    def tried(*arguments: Any) -> Result:
        try:
            return handler(*arguments)
        except (*EXPECTED, RuntimeError) as error:
            raise tell(sentence(error)) from error

    return tried


def _chosen(place: Place) -> str:
    if place.photo is None:
        raise ValueError("choose a photograph first")
    return place.photo


def _copied(file: Path, folder: Path, taken: Container[str]) -> Path:
    """Copy a file to a folder, under a name that is not taken."""
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / file.name, 1
    while target.exists() or target.name in taken:
        number += 1
        target = folder / f"{file.stem}-{number}{file.suffix}"
    shutil.copyfile(file, target)
    return target
