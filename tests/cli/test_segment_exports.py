"""Exports of ``fewshotseg segment``: they open elsewhere, and are complete when a run is taken up again."""

import contextlib
import csv
import io
import json
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from _segmenting import labels, photo, pixels, results, run, run_classes, value
from fewshotseg.annotations import read_coco, read_labelme
from fewshotseg.cli import exports

ALL = ["--format", "coco", "labelme", "yolo", "csv", "--save", "mask"]

pytestmark = pytest.mark.filterwarnings("ignore:.*NumPy:DeprecationWarning", "ignore:.*__array__:DeprecationWarning")


def smooth(path, shift):
    """A photograph with a red disc, and a blue hole in it."""
    y, x = np.mgrid[:60, :90]
    values = np.zeros((60, 90, 3), np.uint8)
    values[(x - 40 - shift) ** 2 + (y - 30) ** 2 < 400] = 255, 0, 0
    values[(x - 40 - shift) ** 2 + (y - 30) ** 2 < 50] = 0, 0, 255
    path.parent.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    Image.fromarray(values).save(path)


@pytest.fixture
def discs(files):
    for number, name in enumerate(["first.png", "second.png", "inner/third.png"]):
        smooth(files / "queries" / name, 3 * number)
    return files


def rows():
    with Path("out/results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def opened():
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO("out/annotations.json")


def test_every_format_says_what_the_mask_says(discs):
    assert run(*ALL, "--recursive") == 0
    coco = opened()
    assert [each["file_name"] for each in coco.dataset["images"]] == ["first.png", "second.png", "inner/third.png"]
    for image in coco.dataset["images"]:
        name = os.path.splitext(image["file_name"])[0]  # noqa: PTH122 (folders stay)
        mask = value(f"out/{name}-mask.png") // 255
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [each["category_id"] for each in annotations] == [1]
        assert np.array_equal(coco.annToMask(annotations[0]), mask)
        content = json.loads(Path(f"out/{name}.json").read_text())
        assert (Path("out") / Path(name).parent / content["imagePath"]).resolve().samefile(f"queries/{name}.png")
        assert (read_labelme(f"out/{name}.json")["object"].numpy() != mask).mean() < 0.02
        assert np.array_equal(read_coco("out/annotations.json", image["file_name"])["object"], mask)
        assert Path(f"out/labels/{name}.txt").read_text().startswith("0 0.")
    assert 'names:\n  0: "object"\n' in Path("out/data.yaml").read_text()
    assert [row["photo"] for row in rows()] == [f"queries/{n}.png" for n in ("first", "second", "inner/third")]
    assert float(rows()[0]["share"]) == pytest.approx((value("out/first-mask.png") > 0).mean(), abs=1e-6)
    assert (rows()[0]["width"], rows()[0]["height"], rows()[0]["presence"], rows()[0]["error"]) == (
        "90",
        "60",
        "1.0",
        "",
    )


def test_classes_have_columns_and_categories_of_their_own(files):
    assert run_classes(["mug", "support.png", "mask.png"], ["cup", "support.png", "mask.png"], options=ALL) == 0
    columns = ["photo", "width", "height", "seconds", "share mug", "presence mug", "share cup", "presence cup", "error"]
    assert list(rows()[0]) == columns
    assert [each["name"] for each in opened().dataset["categories"]] == ["mug", "cup"]
    assert {each["label"] for each in json.loads(Path("out/first.json").read_text())["shapes"]} == {"mug", "cup"}


def test_exports_alone_come_with_the_mask_only(files):
    assert run("--format", "csv") == 0
    assert [name for name in results() if not name.startswith(".")] == [
        "first-mask.png",
        "results.csv",
        "second-mask.png",
    ]


def test_what_could_not_be_done_is_in_the_table(files):
    Path("queries/broken.jpg").write_bytes(b"no image")
    assert run(*ALL) == 1
    assert [(row["photo"], bool(row["error"])) for row in rows()] == [
        ("queries/broken.jpg", True),
        ("queries/first.png", False),
        ("queries/second.png", False),
    ]
    assert "queries/broken.jpg cannot be read" in rows()[0]["error"]
    assert len(opened().dataset["images"]) == 2


def test_a_run_taken_up_again_ends_with_complete_exports(files, reddest):
    assert run(*ALL) == 0
    before = Path("out/annotations.json").read_bytes()
    photo(files / "queries" / "third.png", seed=3)
    reddest.asked.clear()
    assert run(*ALL) == 0
    assert len(reddest.asked) == 1
    assert len(rows()) == len(opened().dataset["images"]) == 3
    Path("queries/third.png").unlink()
    assert run(*ALL) == 0
    assert Path("out/annotations.json").read_bytes() == before
    Path("out/first.json").unlink()
    assert run(*ALL) == 0
    assert len(reddest.asked) == 2
    assert Path("out/first.json").exists()


@pytest.mark.parametrize("entry", ["row", "coco", "size", "formats", "mark"])
def test_a_record_that_lacks_something_does_not_count(files, reddest, entry):
    assert run(*ALL) == 0
    path = Path("out/.fewshotseg/first.json")
    record = json.loads(path.read_text())
    del record[entry]
    path.write_text(json.dumps(record))
    assert run(*ALL) == 0
    assert len(reddest.asked) == 3
    assert len(opened().dataset["images"]) == len(rows()) == 2


def test_photographs_that_have_moved_are_named_as_they_lie_now(files, reddest):
    assert run(*ALL) == 0
    Path("queries").rename("photos")
    assert run(*ALL, query=["photos"]) == 0
    assert len(reddest.asked) == 2
    assert [row["photo"] for row in rows()] == ["photos/first.png", "photos/second.png"]


def test_another_format_is_added(files, reddest):
    assert run("--save", "mask") == 0
    assert run("--format", "csv") == 0
    assert run("--format", "coco") == 0
    assert len(reddest.asked) == 6
    assert run("--format", "coco", "csv") == 0
    assert len(opened().dataset["images"]) == len(rows()) == 2
    reddest.asked.clear()
    assert run("--format", "csv") == 0
    assert reddest.asked == []


def test_other_settings_are_not_mixed(files, capsys):
    assert run("--format", "yolo") == 0
    for path in Path("out").glob("*-mask.png"):
        path.unlink()
    assert run("--format", "yolo", "--threshold", 0.7) == 2
    assert "out holds 2 results of other or changed photographs, examples or settings" in capsys.readouterr().err
    assert run("--format", "yolo", "--threshold", 0.7, "--overwrite") == 0


@pytest.mark.parametrize("name", ["annotations.json", "results.csv", "data.yaml"])
def test_shared_files_of_others_are_never_overwritten(files, capsys, name):
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    assert run(*ALL, "--overwrite") == 2
    assert f"out/{name} exists, and this command did not write it" in capsys.readouterr().err
    assert Path("out", name).read_text() == "mine"


def test_files_of_others_beside_a_photograph_are_never_overwritten(files, capsys):
    Path("queries/first.json").write_text("mine")
    assert run(*ALL, "--overwrite", out="queries") == 1
    assert "queries/first.json exists, and this command did not write it" in capsys.readouterr().err
    assert Path("queries/first.json").read_text() == "mine"
    assert Path("queries/second.json").exists()


def test_a_photograph_called_as_a_shared_file_is_refused(files, capsys):
    photo(files / "queries" / "annotations.png")
    assert run(*ALL) == 2
    assert "queries/annotations.png must have another name" in capsys.readouterr().err


def test_a_photograph_without_its_object_is_in_every_format(files):
    photo(files / "queries" / "first.png").write_bytes(b"")
    from PIL import Image

    Image.new("RGB", (9, 7)).save("queries/first.png")
    assert run(*ALL) == 0
    assert Path("out/labels/first.txt").read_text() == ""
    assert json.loads(Path("out/first.json").read_text())["shapes"] == []
    assert [each["width"] for each in opened().dataset["images"]] == [9, 50]
    assert rows()[0]["share"] == "0.0"


def run_with(write):
    exports.write_atomically = write
    run(*ALL)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of threads that PyTorch keeps
@pytest.mark.parametrize("place", ["first.json", "second.txt", ".fewshotseg/second.json", "annotations.json"])
def test_a_killed_run_is_taken_up_again(files, place):
    """The process is killed when it is about to write one of the files."""
    write = exports.write_atomically

    def die(path, content):
        if path.as_posix().endswith(place):
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    process = get_context("fork").Process(target=run_with, args=(die,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run(*ALL) == 0
    assert len(opened().dataset["images"]) == len(rows()) == 2
    assert {"first.json", "second.json", "labels/first.txt", "labels/second.txt"} <= set(results())
    assert not [name for name in results() if name.endswith(".part")]
    assert np.array_equal(value("out/second-mask.png") > 0, pixels(50, 70, 2)[..., 0] > 127)
    assert labels().any()


@pytest.mark.parametrize("name", [b"caf\xe9.png", "kätzchen 1.png".encode(), b"a\nb.png", b"a,b;c=.png"])
def test_names_of_any_characters(files, name, capsys):
    path = "queries/" + os.fsdecode(name)
    photo(Path(path), seed=7)
    assert run(*ALL, query=["queries"]) == 0
    assert capsys.readouterr().out.count("\n") == 1 + 1 + 3 + 1
    assert len(opened().dataset["images"]) == 3
    with Path("out/results.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert path in [row["photo"] for row in csv.DictReader(file)]
