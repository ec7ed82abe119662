"""`fewshotseg annotate` up to its page, which tests/app drives."""

import importlib.util
import os
import signal
import sys
import threading

import pytest

from _segmenting import photo
from _segmenting import run as segment
from fewshotseg.app import page
from fewshotseg.cli import annotate, main


@pytest.fixture
def served(monkeypatch, reddest):
    """What the page was asked to show; it ends at once."""
    asked = []
    monkeypatch.setattr(annotate, "find_spec", lambda name: name)
    monkeypatch.setattr(page, "serve", lambda workbench, **how: asked.append((workbench, how)))
    return asked


def test_photographs_are_found_and_shown(files, served, monkeypatch, capsys):
    photo(files / "queries" / "deep" / "third.png")
    (files / "queries" / "film.mp4").touch()
    assert main(["annotate", "support.png", "queries", "--port", "7861", "--no-browser", "--out", "found"]) == 0
    ((workbench, how),) = served
    assert sorted(workbench.photos) == ["queries/first.png", "queries/second.png", "support.png"]
    assert workbench.out.name == "found"
    assert (how["port"], how["browser"]) == (7861, False)
    said = capsys.readouterr()
    assert "fewshotseg annotate: " in said.err
    assert "film.mp4" in said.err
    assert said.out == ""
    assert main(["annotate", "queries", "--recursive"]) == 0
    assert len(served[1][0].photos) == 3
    assert (served[1][1]["port"], served[1][1]["browser"]) == (None, True)
    assert main(["annotate"]) == 0
    assert served[2][0].photos == {}


def test_results_are_no_photographs_to_mark(files, served):
    photo(files / "queries" / "out" / "first-mask.png")
    assert main(["annotate", "queries", "--recursive", "--out", "queries/out"]) == 0
    assert sorted(served[0][0].photos) == ["first.png", "second.png"]


def test_results_of_segment_in_another_folder_are_no_photographs_to_mark(files, served):
    assert segment(out="queries") == 0
    assert main(["annotate", "queries", "--out", "found"]) == 0
    assert sorted(served[0][0].photos) == ["first.png", "second.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "photos must be photographs or folders of them, got missing.png"),
        (["queries", "--port", "0"], "port must be at least 1, got 0"),
        (["queries", "--port", "65536"], "port must be at most 65535, got 65536"),
        (["queries", "--out", "support.png"], "out must be a folder, but support.png is a file"),
        (["queries", "--device", "meta"], "device must be one that computes"),
        (["queries", "--device", "nonsense"], "device must be one that this machine has"),
    ],
)
def test_what_cannot_be_meant_is_refused(files, served, capsys, arguments, message):
    assert main(["annotate", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert served == []


def test_without_the_extra_it_says_what_to_install(files, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(annotate, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert main(["annotate", "queries"]) == 2
    assert capsys.readouterr().err == ('fewshotseg annotate: gradio must be installed: pip install "fewshotseg[app]"\n')


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_page_ends_with_a_signal(files, served, monkeypatch, kind):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def serve(workbench, *, ended, started, **how):
        started("http://127.0.0.1:1")
        threading.Timer(0.2, os.kill, (os.getpid(), kind)).start()
        assert ended.wait(30)

    monkeypatch.setattr(page, "serve", serve)
    assert main(["annotate", "queries"]) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
