"""Segmenting many files: which are queries, what a bad one does to the others, going on after a stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from _segmenting import labels, masks_of, photo, pixels, results, run, value
from fewshotseg._io import replacing
from fewshotseg.cli import pictures
from fewshotseg.cli.queries import find_photos
from fewshotseg.images import write_mask


def test_queries_may_be_files_folders_and_patterns_and_count_once(files):
    (files / "queries" / "notes.txt").write_text("no image")
    found = find_photos(["queries/first.png", "queries/*.*g", str(files / "queries")])
    assert [path.name for path in found.photos] == ["first.png", "second.png"]
    assert found.faults == []
    assert [path.name for path in found.skipped["not the file ending of an image"]] == ["notes.txt"]


def test_what_a_folder_holds_besides_photographs_is_counted_and_named(files, reddest, capsys):
    for name in ("._first.png", ".hidden.jpg", "notes.txt", "clip.mpg", "paper.pdf", "raw.dng"):
        (files / "queries" / name).write_bytes(b"\0\5\x16\7" + bytes(200))
    photo(files / "queries" / "inner" / "third.png")
    photo(files / "queries" / ".thumbnails" / "fourth.png")
    write_mask("queries/mask.png", labels())
    assert run(shown=["--mask", "queries/mask.png"]) == 0
    assert results() == masks_of("first.png", "second.png")
    said = capsys.readouterr().err
    assert "3 skipped (hidden): queries/.thumbnails, queries/._first.png, queries/.hidden.jpg\n" in said
    assert "1 skipped (folders: --recursive searches them): queries/inner\n" in said
    assert "1 skipped (videos: save frames of them as images first): queries/clip.mpg\n" in said
    assert "1 skipped (documents and drawings: save them as PNG first): queries/paper.pdf\n" in said
    assert "1 skipped (raw files of cameras: save them as JPEG or TIFF first): queries/raw.dng\n" in said
    assert "1 skipped (not the file ending of an image): queries/notes.txt\n" in said
    assert "1 skipped (masks of the examples): queries/mask.png\n" in said
    assert said.count("\n") == 7


def test_long_lists_are_cut(files, capsys):
    for number in range(9):
        (files / "queries" / f"{number}.txt").touch()
    run()
    assert "9 skipped (not the file ending of an image): queries/0.txt, queries/1.txt, queries/2.txt, " in (
        said := capsys.readouterr().err
    )
    assert said.endswith("queries/4.txt, ...\n")


def test_folders_in_folders(files, capsys):
    photo(files / "queries" / "inner" / "deep" / "first.png", seed=3)
    Path("queries/loop").symlink_to(files / "queries")
    assert run("--recursive", out="queries/out") == 0
    assert results("queries/out") == masks_of("first.png", "inner/deep/first.png", "second.png")
    assert np.array_equal(value("queries/out/inner/deep/first-probability.png"), pixels(seed=3)[..., 0])
    assert "1 skipped (links to folders, which are not followed): queries/loop\n" in capsys.readouterr().err
    Path("queries/second.png").unlink()
    assert run("--recursive", out="queries/out") == 0  # results are no queries, not even those of another time
    assert len(results("queries/out")) == 9


def test_the_same_name_in_several_folders_or_with_several_endings(files):
    photo(files / "queries" / "first.bmp", seed=3)
    photo(files / "more" / "first.png", seed=4)
    assert run(query=["queries", "more"]) == 0
    assert results() == masks_of("more/first.png", "queries/first.bmp", "queries/first.png", "queries/second.png")
    for name, seed in {"more/first": 4, "queries/first.bmp": 3, "queries/first.png": 1}.items():
        assert np.array_equal(value(f"out/{name}-probability.png"), pixels(seed=seed)[..., 0])


def make_bad(folder):
    """Every kind of query that cannot be segmented, and what is said of it."""
    whole = photo(folder / "a-cut.jpg", quality=95).read_bytes()
    (folder / "a-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b-empty.png").touch()
    (folder / "c-text.png").write_text("not found, said the server")
    os.mkfifo(folder / "d-pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    Path("socket").rename(folder / "e-socket.png")
    (folder / "f-device.png").symlink_to("/dev/zero")
    (folder / "g-broken-link.png").symlink_to("nowhere")
    Image.fromarray(np.full((4, 6), 9.5, np.float32)).save(folder / "h-float.tif")
    Image.fromarray(np.full((4, 6), 99, np.uint16)).save(folder / "i-black.png")
    (folder / "j-telephone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    return {
        "a-cut.jpg": "cannot be read: image file is truncated",
        "b-empty.png": "cannot be read: the file is empty",
        "c-text.png": "cannot be read: it is not an image in a format that Pillow reads",
        "d-pipe.png": "must be a regular file, but it is a pipe, a socket or a device",
        "e-socket.png": "must be a regular file",
        "f-device.png": "must be a regular file",
        "g-broken-link.png": "No such file or directory",
        "h-float.tif": "must hold numbers from 0 to 1 if floating-point, got 9.5 to 9.5",
        "i-black.png": "nearly black",
        "j-telephone.heic": "HEIC needs pillow-heif: pip install 'fewshotseg[heif]'",
    }


def as_folder(names):
    return ["queries"]


def as_files(names):
    return ["queries/first.png", *(f"queries/{name}" for name in names), "queries/second.png"]


@pytest.mark.parametrize("query", [as_folder, as_files])
def test_what_cannot_be_read_is_named_and_the_rest_is_done(files, monkeypatch, capsys, query):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    bad = make_bad(files / "queries")
    assert run(query=query(bad)) == 1
    assert results() == masks_of("first.png", "second.png")
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert len(lines) == len(bad)
    for (name, reason), line in zip(bad.items(), lines, strict=True):
        assert line.startswith("fewshotseg segment: queries/")
        assert name in line
        assert reason in line
        assert len(line) < 300
    assert "2 done" in output.out
    assert f"{len(bad)} failed" in output.out


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail] can't allocate memory: 10^9"), MemoryError(), ValueError("x")]
)
def test_a_photograph_that_the_model_cannot_carry_is_named_too(files, reddest, monkeypatch, capsys, error):
    predict = reddest.predict

    def fail_once(image, **options):
        if image.shape[1] == 60:
            raise error
        return predict(image, **options)

    monkeypatch.setattr(reddest, "predict", fail_once)
    assert run() == 1
    assert results() == masks_of("second.png")
    said = capsys.readouterr().err
    assert said.startswith("fewshotseg segment: queries/first.png: ")
    assert said.count("\n") == 1
    assert ("memory" in said) == (str(error) != "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jpg", "none.jpg is not a file, not a folder and not a pattern that matches files"),
        ("queries/*.jpg", r"queries/\*.jpg is not a file, not a folder and not a pattern that matches files"),
        ("empty", "empty holds no photographs"),
        ("a\0b", "is not a file, not a folder and not a pattern"),
        ("x" * 5000, "is not a file, not a folder and not a pattern"),
    ],
)
def test_names_that_lead_to_nothing_are_said_and_the_rest_is_done(files, capsys, name, message):
    Path("empty").mkdir()
    assert run(query=[name, "queries/first.png"]) == 1
    assert results() == masks_of("first.png")
    assert re.search(message, capsys.readouterr().err)
    assert run(query=[name]) == 1


def test_a_folder_that_may_not_be_listed_is_named(files, monkeypatch, capsys):
    listing = os.scandir

    def refuse(path):
        if str(path) == "locked":
            raise PermissionError(13, "Permission denied", "locked")
        return listing(path)

    Path("locked").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    assert run(query=["locked", "queries"]) == 1
    assert capsys.readouterr().err == "fewshotseg segment: locked: Permission denied\n"
    assert results() == masks_of("first.png", "second.png")


def test_names_that_are_no_text_can_be_printed(files):
    name = os.fsdecode(b"queries/caf\xe9.png")
    photo(Path(name))
    broken = os.fsdecode(b"queries/na\xefve.png")
    Path(broken).touch()
    assert run() == 1
    assert os.fsdecode(b"caf\xe9-mask.png") in results()


# Going on, and overwriting


def test_what_is_done_is_not_done_again(files, reddest, capsys):
    run()
    before = {path: (Path("out") / path).stat().st_mtime_ns for path in results()}
    photo(files / "queries" / "third.png", seed=3)
    reddest.asked.clear()
    assert run() == 0
    assert len(reddest.asked) == 1
    assert "1 done" in (said := capsys.readouterr().out)
    assert "2 done before" in said
    assert results() == masks_of("first.png", "second.png", "third.png")
    assert all((Path("out") / path).stat().st_mtime_ns == time_ for path, time_ in before.items())
    assert run("--overwrite") == 0
    assert len(reddest.asked) == 4


def test_what_is_missing_or_damaged_is_done_again(files, reddest):
    run()
    Path("out/first-overlay.jpg").unlink()
    content = {name: Path("out", name).read_bytes() for name in ("second-probability.png", "second-overlay.jpg")}
    for number, (name, whole) in enumerate(content.items()):
        Path("out", name).write_bytes(whole[: 200 if number else -20])
    reddest.asked.clear()
    assert run() == 0
    assert len(reddest.asked) == 2
    assert all(Path("out", name).read_bytes() == whole for name, whole in content.items())


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_what_was_done_of_another_photograph_is_not_done(files, capsys, seconds):
    """Of a camera that gives names again, or of the same photograph before it was edited."""
    run()
    later = time.time() + seconds
    os.utime(photo(files / "queries" / "first.png", seed=9), (later, later))
    capsys.readouterr()
    assert run() == 2
    assert "out holds 3 results of other or changed photographs, examples or settings" in capsys.readouterr().err
    assert run("--overwrite") == 0
    assert np.array_equal(value("out/first-probability.png"), pixels(seed=9)[..., 0])
    capsys.readouterr()
    assert run() == 0
    assert "2 done before" in capsys.readouterr().out


CHANGES = {
    "threshold": ["--threshold", 0.6],
    "min-presence": ["--min-presence", 0.6],
    "mask": [],
    "support": [],
    "model": [],
    "size": [],
}


@pytest.mark.parametrize("change", CHANGES)
def test_results_of_other_examples_or_settings_are_not_taken_for_these(files, reddest, capsys, change):
    run()
    if change == "mask":
        write_mask("mask.png", np.roll(labels(), 1, axis=0))
    elif change == "support":
        photo(files / "support.png", seed=77)
    elif change == "model":
        nn.init.ones_(reddest.model.bias)
    elif change == "size":
        reddest.size = 97
    reddest.asked.clear()
    capsys.readouterr()
    assert run(*CHANGES[change]) == 2
    said = "out holds 6 results of other or changed photographs, examples or settings, such as out/first-mask.png; "
    assert f"{said}choose another" in capsys.readouterr().err
    assert reddest.asked == []
    assert run(*CHANGES[change], "--overwrite") == 0
    assert len(reddest.asked) == 2
    assert run(*CHANGES[change]) == 0
    assert len(reddest.asked) == 2


def test_results_of_another_photograph_of_that_name_are_not_taken_for_its_own(files, capsys):
    run()
    Path("queries/first.png").unlink()
    os.utime(photo(files / "queries" / "first.bmp", seed=9), (0, 0))  # older than the results
    assert run() == 2
    assert (
        "out holds 3 results of other or changed photographs, examples or settings, such as out/first"
        in capsys.readouterr().err
    )
    assert run("--overwrite") == 0
    assert np.array_equal(value("out/first-probability.png"), pixels(seed=9)[..., 0])


def test_a_box_and_its_mask_are_the_same_example(files, reddest):
    run()
    assert run(shown=["--box", 30, 20, 60, 40]) == 0
    assert len(reddest.asked) == 2


WHOLE = "whole"
OTHERS = {
    WHOLE: None,
    "text": b"my notes",
    "empty": b"",
    "cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0",
    "text that quotes": b"fewshotseg segment 0123456789abcdef",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_pictures_of_others_are_never_overwritten(files, capsys, options, kind):
    if kind == WHOLE:
        photo(files / "out" / "first-mask.png", seed=8)
    else:
        Path("out").mkdir()
        Path("out/first-mask.png").write_bytes(OTHERS[kind])
    before = Path("out/first-mask.png").read_bytes()
    assert run(*options) == 1
    assert (
        "queries/first.png is not segmented, as out/first-mask.png exists and this command did not write"
        in capsys.readouterr().err
    )
    assert Path("out/first-mask.png").read_bytes() == before
    assert results() == sorted(["first-mask.png", *masks_of("second.png")])


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_of_others_too(files, capsys, make):
    Path("out").mkdir()
    make(Path("out/first-mask.png"))
    assert run() == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith("first.png is not segmented, as out/first-mask.png exists and this command did not write it")
    assert results() == masks_of("second.png")


def test_results_in_another_folder_are_no_photographs(files, reddest, capsys):
    assert run("--save", "mask", "overlay", "probability", "cutout", out="queries") == 0
    photo(files / "queries" / "own-mask.png", seed=3)  # somebody's own
    reddest.asked.clear()
    capsys.readouterr()
    assert run(out="new") == 0
    assert len(reddest.asked) == 3
    assert results("new") == masks_of("first.png", "own-mask.png", "second.png")
    assert "8 skipped (results of an earlier run): queries/first-cutout.png, " in capsys.readouterr().err


@pytest.mark.parametrize("length", [210, 239])
def test_names_as_long_as_file_systems_allow(files, length):
    photo(files / "queries" / f"{'q' * (length - 4)}.png", seed=3)
    assert run() == 0
    assert f"{'q' * (length - 4)}-probability.png" in results()
    assert len(results()) == 9


def test_what_is_left_of_a_long_name_is_removed(files, monkeypatch):
    photo(files / "queries" / f"{'q' * 230}.png", seed=3)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(OSError, match="killed"), replacing(Path("queries", f"{'q' * 230}-mask.png")):
            raise OSError("killed")
    assert [name for name in results("queries") if name.endswith(".part")]
    assert run(out="queries") == 0
    assert not [name for name in results("queries") if name.endswith(".part")]


READER_LEAVES = """
import os, sys
from fewshotseg.cli.talk import say
stream = getattr(sys, sys.argv[1])
reader, writer = os.pipe()
os.dup2(writer, stream.fileno())
os.close(writer)
os.close(reader)
for number in range(3):
    say(f"line {number}", to=stream)
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_leaves_does_not_end_the_run(stream):
    """As ``| head`` does."""
    command = [sys.executable, "-c", READER_LEAVES, stream]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_no_input_is_overwritten(files, capsys):
    Path("mask.png").rename("queries/first-mask.png")
    assert run("--overwrite", shown=["--mask", "queries/first-mask.png"], out="queries") == 2
    assert "out must be another folder, as queries/first-mask.png would be overwritten" in capsys.readouterr().err
    assert np.array_equal(value("queries/first-mask.png"), labels())


def test_results_may_lie_beside_their_photographs(files, reddest):
    assert run(out="queries") == 0
    reddest.asked.clear()
    assert run(out="queries") == 0
    assert reddest.asked == []
    assert len(results("queries")) == 2 + 6


def run_with(write):
    pictures.write_atomically = write
    run()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of threads that PyTorch keeps
def test_a_killed_run_leaves_no_half_file_and_goes_on(files):
    """The process is killed in the middle of writing the first picture of its second photograph."""
    write = pictures.write_atomically

    def die(path, content):
        if "second" not in path.name:
            write(path, content)
            return
        with replacing(path) as file:
            file.write(content[:50])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    process = get_context("fork").Process(target=run_with, args=(die,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [name for name in results() if not name.startswith(".")] == masks_of("first.png")
    assert len(results()) == 4  # and half a file, hidden
    assert run() == 0
    assert results() == masks_of("first.png", "second.png")
