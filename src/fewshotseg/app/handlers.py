"""What happens when somebody does something on the page: a workbench is changed, and what is shown follows."""

import shutil
from collections.abc import Callable, Container, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fewshotseg.app.workbench import Picture, Point, Workbench, painted
from fewshotseg.cli.errors import EXPECTED, sentence

ANSWERS = 6
"""How many photographs are answered at once."""

BOX, OUTLINE = "two corners of a box", "points around the object"

Result = TypeVar("Result")


class View(NamedTuple):
    """All that changes with a mark.

    Attributes:
        picture: The photograph with its marks; None if there is no photograph.
        answers: Pictures of what was found, with their captions.
        said: To somebody.
        points: That were clicked and belong to no mark yet.
    """

    picture: Picture | None
    answers: list[tuple[Picture, str]]
    said: str
    points: list[Point]


class Place(NamedTuple):
    """Where somebody is on the page.

    Attributes:
        photo: That is marked.
        threshold: Of the answers.
        turn: Of `ANSWERS` photographs each, from 1 on.
    """

    photo: str | None
    threshold: float
    turn: float = 1


class Handlers:
    """What the page's buttons do to a workbench."""

    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench

    def answers(self, place: Place) -> tuple[list[tuple[Picture, str]], str]:
        """What is found in the photographs of this turn, and what to say."""
        workbench = self.workbench
        if not workbench.marks:
            return [], "Nothing is marked yet."
        said, shown = [workbench.ask()], []
        start = ANSWERS * (max(1, int(place.turn or 1)) - 1)
        for name in [*workbench.photos][start : start + ANSWERS]:
            try:
                answer = workbench.answer(name, place.threshold)
                shown.append((workbench.picture(name, answer.mask), workbench.caption(name, answer)))
            except (*EXPECTED, RuntimeError) as error:  # the others may do
                said.append(f"{name} is left out: {sentence(error)}.")
        return shown, " ".join(filter(None, said)) or "Ready."

    def view(self, place: Place) -> View:
        """The photograph with its marks, and what is found by them."""
        picture = None
        if place.photo is not None:
            picture = self.workbench.picture(place.photo, self.workbench.marked(place.photo))
        return View(picture, *self.answers(place), [])

    def paint(self, place: Place, class_name: str, layers: Sequence[Any]) -> View:
        """Mark what is painted on layers of RGB and opacity."""
        photo = _chosen(place)
        height, width = self.workbench.shown(photo).picture.shape[:2]
        self.workbench.mark(photo, class_name, painted(layers, (height, width)))
        return self.view(place)

    def click(self, place: Place, class_name: str, way: str, points: Sequence[Point], point: Point) -> View | None:
        """Note a point; the second corner makes a box. None if the point made no mark."""
        if way != BOX or not points:
            return None
        self.workbench.mark_box(_chosen(place), class_name, [points[0], point])
        return self.view(place)

    def close(self, place: Place, class_name: str, points: Sequence[Point]) -> View:
        """Mark what lies within the points."""
        self.workbench.mark_outline(_chosen(place), class_name, points)
        return self.view(place)

    def clear(self, place: Place, class_name: str) -> View:
        """Forget the mark of a class on the photograph."""
        self.workbench.clear(_chosen(place), class_name)
        return self.view(place)

    def with_points(self, photo: str, points: Sequence[Point]) -> Picture:
        """The photograph with its marks and with crosses at points."""
        drawn = np.array(self.workbench.picture(photo, self.workbench.marked(photo)))
        for x, y in np.array(points, dtype=int).reshape(-1, 2).tolist():
            for reach, colour in ((7, 255), (5, 0)):
                drawn[max(y - 1, 0) : y + 2, max(x - reach, 0) : x + reach + 1] = colour
                drawn[max(y - reach, 0) : y + reach + 1, max(x - 1, 0) : x + 2] = colour
        return drawn

    def save(self, threshold: float, kinds: Sequence[str]) -> str:
        """Write everything; returns what to say."""
        written, faults = self.workbench.save(threshold, kinds)
        missing = "".join(f" Not done: {said}." for said in faults.values())
        return f"Saved {len(written)} files in {self.workbench.out.resolve()}.{missing}"

    def upload(self, files: Sequence[str]) -> list[str]:
        """Keep photographs that were sent, and add them; returns what they are called."""
        folder = self.workbench.out / "photos"
        return [self.workbench.add(_copied(Path(file), folder, self.workbench.photos)) for file in files]


def told(handler: Callable[..., Result], tell: Callable[[str], Exception]) -> Callable[..., Result]:
    """A handler that says in a sentence what cannot be done, by an exception of the page's."""

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
    """A file in another folder, under a name that is free there and elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / file.name, 1
    while target.exists() or target.name in taken:
        number += 1
        target = folder / f"{file.stem}-{number}{file.suffix}"
    shutil.copyfile(file, target)
    return target
