"""A folder as people have them: photographs of every kind, and everything else that gathers there."""

import json
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from _segmenting import labels, photo, pixels, results, run, value
from fewshotseg.cli import exports, pictures
from fewshotseg.images import write_mask

OPTIONS = ["--save", "mask", "overlay", "--format", "coco", "csv"]


def make_photographs(folder):
    """Photographs of every kind, and for each what a mask of it should be where that is plain to see."""
    kinds = {
        "jpeg.jpg": {},
        "upper.JPG": {},
        "progressive.jpeg": {"progressive": True},
        "png.png": {},
        "webp.webp": {"lossless": True},
        "bitmap.bmp": {},
        "tiff.tif": {},
        "packed.tiff": {"compression": "tiff_lzw"},
        "gif.gif": {},
        "targa.tga": {},
        "portable.ppm": {},
        "jpeg2000.jp2": {},
        "with space and ümlaut.png": {},
    }
    for seed, (name, options) in enumerate(kinds.items()):
        photo(folder / name, 90, 60, seed, **options)
    shown = Image.fromarray(pixels())
    shown.convert("L").save(folder / "grey.png")
    shown.convert("CMYK").save(folder / "cmyk.jpg")
    shown.convert("RGBA").save(folder / "transparent.png")
    shown.convert("P").save(folder / "palette.png")
    shown.convert("1").save(folder / "two-tone.png")
    Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(pixels()[..., 0].astype(np.float32) / 255).save(folder / "float.tif")
    pillow_heif.from_pillow(shown).save(folder / "telephone.HEIC")
    (folder / "misnamed.png").write_bytes((folder / "jpeg.jpg").read_bytes())
    note = Image.Exif()
    note[0x0112] = 6
    shown.save(folder / "sideways.jpg", exif=note)
    shown.resize((20, 15)).save(folder / "tiny.png")
    shown.resize((1, 1)).save(folder / "pixel.png")
    shown.resize((2000, 60)).save(folder / "panorama.png")
    shown.resize((2400, 1800)).save(folder / "large.jpg")
    return sorted(path.name for path in folder.iterdir())


def make_others(folder):
    """What cannot be segmented, and what is said of it."""
    cut = photo(folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "other.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    return ["cut.jpg", "empty.png", "page.jpg", "other.heic"]


def make_rest(folder):
    """Files that are not photographs, and the beginning of the reason why each is skipped."""
    rest = {
        ".hidden.jpg": "hidden",
        "._jpeg.jpg": "hidden",
        ".DS_Store": "hidden",
        "Thumbs.db": "not the file ending",
        "clip.mp4": "videos",
        "clip.mpg": "videos",
        "paper.pdf": "documents",
        "drawing.svg": "documents",
        "raw.CR2": "raw files",
        "notes.txt": "not the file ending",
        "inner": "folders",
    }
    for name in rest:
        if name == "inner":
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(b"%PDF \0\0\1\xba" + bytes(200))
    return rest


@pytest.fixture
def folder(files):
    place = files / "holiday"
    place.mkdir()
    made = make_photographs(place), make_others(place), make_rest(place)
    photo(place / "support.png")
    write_mask(place / "support-drawn.png", labels())
    return made


def ask(out="out"):
    support = ["holiday/support.png"]
    return run(*OPTIONS, support=support, shown=["--mask", "holiday/support-drawn.png"], query=["holiday"], out=out)


def expected(photographs):
    stems = [os.path.splitext(name)[0] for name in photographs]  # noqa: PTH122 (one form for names and masks)
    return sorted(f"{stem}-{kind}" for stem in stems for kind in ("mask.png", "overlay.jpg"))


def pictures_in(out="out"):
    return [name for name in results(out) if not name.startswith(".") and name.endswith((".png", ".jpg"))]


def check_complete(photographs, others):
    assert pictures_in() == expected(photographs)
    for name in photographs:
        with Image.open(f"out/{os.path.splitext(name)[0]}-mask.png") as mask:  # noqa: PTH122
            mask.load()
            assert set(np.unique(mask).tolist()) <= {0, 255}
    assert value("out/sideways-mask.png").shape == (90, 60)
    assert value("out/panorama-mask.png").shape == (60, 2000)
    assert value("out/large-mask.png").shape == (1800, 2400)
    assert len(json.loads(Path("out/annotations.json").read_text())["images"]) == len(photographs)
    assert len(Path("out/results.csv").read_text().splitlines()) == 1 + len(photographs) + len(others)
    assert not [name for name in results() if name.endswith(".part")]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_photographs_are_done_and_all_others_are_named(folder, capsys):
    photographs, others, rest = folder
    assert ask() == 1
    output = capsys.readouterr()
    check_complete(photographs, others)
    for name in others:
        assert f"holiday/{name}" in output.err
    for name, word in rest.items():
        line = next(line for line in output.err.splitlines() if f"({word}" in line)
        assert name in line
    assert "examples, with their masks beside them): holiday/support.png" in output.err
    assert "masks of the examples): holiday/support-drawn.png" in output.err
    assert f"{len(photographs)} done" in output.out
    assert all(len(line) < 400 for line in output.err.splitlines())
    assert "Traceback" not in output.err


def run_until(count):
    """Be killed in the middle of the file with that number."""
    write, written = pictures.write_atomically, []

    def die(path, content):
        written.append(path)
        if len(written) == count:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.0.part").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    pictures.write_atomically = exports.write_atomically = die
    ask()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*use of fork:DeprecationWarning")
def test_a_run_that_is_killed_again_and_again_completes(folder, reddest):
    photographs, others, _ = folder
    for count in (1, 17, 30):
        process = get_context("fork").Process(target=run_until, args=(count,))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for name in pictures_in():
            with Image.open(f"out/{name}") as picture:
                picture.load()  # none is cut
    assert 0 < len(pictures_in()) < len(expected(photographs))
    assert ask() == 1
    check_complete(photographs, others)
    asked = len(reddest.asked)
    assert 0 < asked < len(photographs) + 40
    assert ask() == 1
    assert len(reddest.asked) == asked
    check_complete(photographs, others)
