"""What happens on the page, without a page."""

import socket
from pathlib import Path

import numpy as np
import pytest

from _segmenting import photo, pixels
from _workbench import Predictor, rectangle
from fewshotseg.app.handlers import ANSWERS, BOX, OUTLINE, Handlers, Place, told
from fewshotseg.app.page import _checked_port, picture_file
from fewshotseg.app.workbench import Workbench


@pytest.fixture
def handlers(tmp_path):
    files = {photo(tmp_path / f"{number}.png", seed=number): Path(str(number)) for number in range(8)}
    return Handlers(Workbench(Predictor(), files, tmp_path / "out"))


def place(name="0.png", threshold=0.5, turn=1):
    return Place(name, threshold, turn)


def test_nothing_is_answered_before_a_mark(handlers):
    view = handlers.view(place())
    assert view.picture.shape == (60, 90, 3)
    assert (view.answers, view.said, view.points) == ([], "Nothing is marked yet.", [])
    assert handlers.view(place(None)).picture is None


def test_every_kind_of_mark_is_answered_at_once(handlers):
    layer = np.zeros((60, 90, 4), np.uint8)
    layer[:9, :9, 3] = 255
    views = [
        handlers.paint(place(), "mug", [layer]),
        handlers.click(place("1.png"), "mug", BOX, [(5, 5)], (20, 30)),
        handlers.close(place("2.png"), "mug", [(5, 5), (20, 5), (20, 30)]),
    ]
    for number, view in enumerate(views):
        assert len(view.answers) == ANSWERS
        captions = [caption for _, caption in view.answers]
        assert [caption.endswith("your mark") for caption in captions] == [i <= number for i in range(ANSWERS)]
        assert view.said == "Ready."
        assert view.points == []
    assert np.array_equal(handlers.workbench.marks["mug"]["1.png"].numpy(), rectangle((60, 90), 5, 31, 5, 21))
    assert len(handlers.clear(place(), "mug").answers) == ANSWERS
    assert "0.png" not in handlers.workbench.marks["mug"]


def test_a_point_alone_is_no_mark(handlers):
    assert handlers.click(place(), "mug", BOX, [], (5, 5)) is None
    assert handlers.click(place(), "mug", OUTLINE, [(1, 1), (9, 9), (3, 9)], (5, 5)) is None
    assert handlers.workbench.marks == {}
    plain, crossed = handlers.view(place()).picture, handlers.with_points("0.png", [(5, 40), (0, 0)])
    changed = (plain != crossed).any(axis=2)
    assert changed[40, 5]
    assert changed[0, 0]
    assert not changed[20:30].any()


def test_photographs_come_in_turns(handlers):
    handlers.click(place(), "mug", BOX, [(5, 5)], (20, 30))
    names = [caption.partition(":")[0] for turn in (1, 2, 3) for _, caption in handlers.answers(place(turn=turn))[0]]
    assert names == [f"{number}.png" for number in range(8)]
    for wrong in (0, -3, None):
        assert len(handlers.answers(place(turn=wrong))[0]) == ANSWERS


def test_a_broken_photograph_is_named_beside_the_answers(handlers, tmp_path):
    (tmp_path / "3.png").write_bytes(b"broken")
    view = handlers.click(place(), "mug", BOX, [(5, 5)], (20, 30))
    assert len(view.answers) == ANSWERS - 1
    assert view.said.startswith("3.png is left out: ")


def test_saving_says_where(handlers, tmp_path):
    (tmp_path / "3.png").write_bytes(b"broken")
    handlers.click(place(), "mug", BOX, [(5, 5)], (20, 30))
    said = handlers.save(0.5, ["mask"])
    assert said.startswith(f"Saved 9 files in {tmp_path / 'out'}. Not done: {tmp_path / '3.png'} cannot be read")


def test_photographs_that_are_sent_are_kept(handlers, tmp_path):
    sent = photo(tmp_path / "sent" / "0.png", seed=20), photo(tmp_path / "sent" / "more" / "0.png", seed=21)
    assert handlers.upload([str(file) for file in sent]) == ["0-2.png", "0-3.png"]
    kept = sorted((tmp_path / "out" / "photos").iterdir())
    assert [path.name for path in kept] == ["0-2.png", "0-3.png"]
    handlers.click(place("0-2.png"), "mug", BOX, [(5, 5)], (20, 30))
    assert np.array_equal(handlers.workbench.shown("0-3.png").picture, pixels(seed=21))
    assert handlers.save(0.5, ["mask"]).startswith("Saved 12 files")


def test_pictures_of_other_shapes_are_other_files(tmp_path):
    wide, high = (picture_file(np.zeros((*size, 3), np.uint8), tmp_path) for size in ((2, 6), (6, 2)))
    assert wide != high


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port must be free, but {number} is not"):
            _checked_port(number)
    assert _checked_port(number) == number
    assert _checked_port(None) > 0


def test_what_cannot_be_done_is_told():
    class Told(Exception):
        pass

    def fail(kind, *arguments):
        raise kind(*arguments)

    with pytest.raises(Told, match=r"^x\.png: No such file$"):
        told(fail, Told)(FileNotFoundError, 2, "No such file", "x.png")
    with pytest.raises(KeyError):  # a mistake of this package
        told(fail, Told)(KeyError)
