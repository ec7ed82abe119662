"""Segmenting files from the command line: what is written, what masks mean, what is refused and how."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewshotseg as fs
from _segmenting import labels, masks_of, photo, pixels, results, run, value
from fewshotseg.cli import main
from fewshotseg.cli.large import Answer
from fewshotseg.cli.pictures import Pictures
from fewshotseg.images import write_mask


def test_results_are_those_of_the_predictor_at_the_size_of_each_query(files, reddest, capsys):
    assert run() == 0
    assert results() == masks_of("first.png", "second.png")
    for name, expected in {"first": pixels(seed=1), "second": pixels(50, 70, 2)}.items():
        assert value(f"out/{name}-mask.png").dtype == np.uint8
        assert np.array_equal(value(f"out/{name}-mask.png"), 255 * (expected[..., 0] > 127).astype(np.uint8))
        assert np.array_equal(value(f"out/{name}-probability.png"), expected[..., 0])
        assert value(f"out/{name}-overlay.jpg").shape == expected.shape
    photos, masks = reddest.supports
    assert np.array_equal(photos[0].permute(1, 2, 0), pixels())
    assert np.array_equal(masks[0], labels())
    assert reddest.opened == ("scnet-lite2", "model", torch.device("cpu"))
    share = 100 * (pixels(seed=1)[..., 0] > 127).mean()
    output = capsys.readouterr()
    assert "example support.png  11.1 % object\n" in output.out
    assert re.search(rf"\[1/2\] queries/first\.png  \d\.\d\d s  {share:.1f} % object  presence 1\.00\n", output.out)
    assert re.search(r"2 done in \d\.\d\d s each \(median\), 0 done before, 0 failed; results in out\n$", output.out)
    assert output.err == ""


def test_the_real_predictor(tmp_path, monkeypatch):
    """Of a model that has learned nothing."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = fs.build_scnet("mobilenet_v2", hidden_channels=4, bins=(1.0,)).eval()
    fs.save_model(model, tmp_path / "model.pth")
    photo(tmp_path / "support.png")
    write_mask(tmp_path / "mask.png", labels())
    query = photo(tmp_path / "query.png", 50, 70, seed=2)
    assert run("--model", "model.pth", "--size", 65, "--threshold", 0.4, query=["query.png"]) == 0
    predictor = fs.FewShotPredictor.from_pretrained(tmp_path / "model.pth", size=65)
    predictor.set_support(tmp_path / "support.png", labels() == 1)
    expected = predictor.predict(query, threshold=0.4)
    assert np.array_equal(value("out/query-mask.png"), 255 * expected.mask.numpy())
    assert np.abs(value("out/query-probability.png") / 255 - expected.probability.numpy()).max() < 0.51 / 255


def test_pictures_of_a_photograph(tmp_path):
    pictures = Pictures(tmp_path, ["mask", "probability", "overlay", "cutout"])
    shown = torch.full((3, 60, 90), 100, dtype=torch.uint8)
    answer = Answer(torch.from_numpy(labels()), torch.from_numpy(7 * labels()), [0.5], [True])
    pictures.save(Path("a"), "mark", shown, answer)
    assert np.array_equal(value(tmp_path / "a-mask.png"), 255 * labels())
    assert np.array_equal(value(tmp_path / "a-probability.png"), 7 * labels())
    assert abs(value(tmp_path / "a-overlay.jpg")[30, 45].astype(int) - [151, 60, 77]).max() < 9
    assert np.array_equal(value(tmp_path / "a-cutout.png"), np.dstack([np.full((60, 90, 3), 100), 255 * labels()]))
    assert {Pictures.mark_of(path) for path in pictures.paths(Path("a"))} == {"mark"}


def test_only_what_is_asked_for_is_saved(files):
    assert run("--save", "mask", "overlay") == 0
    assert results() == sorted(f"{n}-{kind}" for n in ("first", "second") for kind in ("mask.png", "overlay.jpg"))


def test_a_kind_may_be_named_twice(files):
    assert run("--save", "mask", "mask") == 0
    assert results() == ["first-mask.png", "second-mask.png"]


def test_options_given_again_add_up(files, reddest):
    photo(files / "other.png", 80, 50, seed=5)
    write_mask("other-mask.png", labels(80, 50))
    words = ["--support", "support.png", "--support", "other.png", "--mask", "mask.png", "--mask", "other-mask.png"]
    words += ["--query", "queries/first.png", "--query", "queries/second.png", "--out", "out", "--device", "cpu"]
    assert main(["segment", *words, "--save", "mask", "--save", "cutout", "--format", "csv", "--format", "yolo"]) == 0
    assert [mask.shape for mask in reddest.supports[1]] == [(60, 90), (50, 80)]
    names = {f"{name}-{kind}.png" for name in ("first", "second") for kind in ("mask", "cutout")}
    assert names | {"results.csv", "data.yaml"} <= set(results())


def test_a_value_of_a_deep_mask_may_be_void(files, reddest):
    values = 1500 * labels().astype(np.uint16)
    values[18:20, 30:60] = 300
    Image.fromarray(values).save("mask.png")
    assert run("--void", 300) == 0
    assert np.array_equal(reddest.supports[1][0], np.where(values == 1500, 1, np.where(values == 300, 255, 0)))


def test_the_threshold_is_the_predictors(files):
    assert run("--threshold", 0.8, "--save", "mask") == 0
    assert np.array_equal(value("out/first-mask.png") > 0, pixels(seed=1)[..., 0] / 255 > 0.8)


@pytest.mark.filterwarnings("default:.*255 but no 1:UserWarning")
@pytest.mark.parametrize(("name", "kept"), [("mask.png", 255), ("mask.tif", 1), ("mask.bmp", 7)])
def test_masks_are_drawings(files, reddest, name, kept, capsys):
    Image.fromarray(kept * labels()).save(name)
    assert run(shown=["--mask", name]) == 0
    assert np.array_equal(reddest.supports[1][0], labels())
    assert ("255 but no 1, so 255 is read as the object" in capsys.readouterr().err) == (kept == 255)


def test_a_value_may_be_void(files, reddest):
    values = 15 * labels()
    values[18:20, 30:60] = 255
    Image.fromarray(values).save("mask.png")
    assert run("--void", 255) == 0
    assert np.array_equal(reddest.supports[1][0], np.where(values == 15, 1, values))


def test_a_box_is_its_pixels(files, reddest):
    assert run(shown=["--box", 30, 20, 60, 40]) == 0
    assert np.array_equal(reddest.supports[1][0], labels())


def test_several_supports_each_with_its_mask(files, reddest):
    photo(files / "other.png", 80, 50, seed=5)
    write_mask("other-mask.png", labels(80, 50))
    both = ["support.png", "other.png"]
    assert run(support=both, shown=["--mask", "mask.png", "other-mask.png"], out="a") == 0
    assert [mask.shape for mask in reddest.supports[1]] == [(60, 90), (50, 80)]
    assert run(support=both, shown=["--box", 30, 20, 60, 40] * 2, out="b") == 0
    assert np.array_equal(reddest.supports[1][1], labels(80, 50))


def test_photographs_are_turned_as_the_camera_noted(files):
    with Image.open("queries/second.png") as upright:
        turned = upright.transpose(Image.Transpose.ROTATE_90)
    note = Image.Exif()
    note[0x0112] = 6  # to be shown a quarter turn clockwise
    turned.save("queries/turned.png", exif=note)
    assert run() == 0
    for kind in ("mask.png", "probability.png", "overlay.jpg"):
        assert np.array_equal(value(f"out/turned-{kind}"), value(f"out/second-{kind}"))


def test_a_photograph_of_16_bits_is_that_of_8(files):
    grey = pixels()[..., 0]
    Image.fromarray(grey).save("queries/8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save("queries/16.png")
    assert run() == 0
    assert np.array_equal(value("out/8-probability.png"), grey)
    assert np.array_equal(value("out/16-probability.png"), grey)


# What cannot be done


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown": ["--mask", "none.png"]}, "none.png: No such file or directory"),
        ({"support": ["queries/broken.jpg"]}, "queries/broken.jpg cannot be read"),
        (
            {"shown": ["--mask", "lossy.jpg"]},
            "lossy.jpg must be in a lossless format such as PNG, as JPEG changes the pixels",
        ),
        (
            {"shown": ["--mask", "small.png"]},
            "small.png must have the size of support.png, 90 x 60 pixels, got 50 x 60",
        ),
        ({"shown": ["--mask", "black.png"]}, r"black.png must mark the object, but has no pixel of it, .* \[0\]"),
        ({"shown": ["--mask", "white.png", "--void", 255]}, r"only the values \[0, 255\]; 255 is void"),
        ({"shown": ["--mask", "noisy.png"]}, r"noisy.png must mark one object, but holds \[0, 1, 2, 3, 255\]"),
        (
            {"shown": ["--mask", "support.png"]},
            "support.png must mark the object by one colour on black, but has several",
        ),
        ({"shown": ["--mask", "mask.png", "mask.png"]}, "mask or box must be given for each support, 1 of them, got 2"),
        ({"shown": ["--box", 0, 0, 91, 60]}, "box must be LEFT TOP RIGHT BOTTOM within 90 x 60 pixels, got 0 0 91 60"),
        ({"shown": ["--box", 9, 9, 9, 60]}, "box must be LEFT TOP RIGHT BOTTOM"),
        ({"shown": ["--box", 1, 1, 9, 9, "--void", 255]}, "void must go with a mask that is an image, got boxes"),
        (
            {"shown": ["--mask", "mask.json", "--void", 9]},
            "void must go with a mask that is an image, got boxes or JSON",
        ),
        (
            {"support": ["set.fss"], "shown": ["--void", 9]},
            "support must be set.fss alone, without mask, box, class or",
        ),
        ({"options": ["--void", 0]}, "void must be from 1 to 255 for mask.png, as 0 is the background, got 0"),
        ({"options": ["--void", 256]}, "void must be from 1 to 255 for mask.png, as 0 is the background, got 256"),
        ({"options": ["--void", -1]}, "void must be from 1 to 255 for mask.png, as 0 is the background, got -1"),
        ({"out": "support.png"}, "out must be a folder, but support.png is a file"),
        ({"out": "support.png/inner"}, "out must be a folder, but support.png is a file"),
        ({"out": ""}, "argument --out: must not be empty; see fewshotseg segment --help"),
        ({"options": ["--model", ""]}, "argument --model: must not be empty; see fewshotseg segment --help"),
        ({"options": ["--device", ""]}, "argument --device: must not be empty; see fewshotseg segment --help"),
        ({"options": ["--device", "meta"]}, "device must be one that computes, such as 'cpu', got 'meta'"),
        ({"options": ["--unknown"]}, "unrecognized arguments: --unknown; see fewshotseg segment --help"),
        ({"support": ["pipe.fss"], "shown": []}, "support must be a regular file, but pipe.fss is"),
        ({"support": ["pipe.png"]}, "pipe.png must be a regular file, but it is a pipe"),
        ({"shown": ["--mask", "pipe.png"]}, "pipe.png must be a regular file, but it is a pipe"),
        ({"shown": ["--mask", "pipe.json"]}, "pipe.json is no ordinary file"),
        ({"options": ["--device", "gpu"]}, "device must be one that this machine has, such as 'cpu', got 'gpu'"),
        ({"options": ["--threshold", "nan"]}, "threshold must be .* got nan"),
        ({"options": ["--threshold", 1.5]}, "threshold must be .* got 1.5"),
        ({"options": ["--threshold", "half"]}, "argument --threshold: invalid float value: 'half'"),
        ({"options": ["--save", "everything"]}, "argument --save: invalid choice: 'everything'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(changes, message, files, capsys):
    Path("queries/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    for name in ("pipe.fss", "pipe.png", "pipe.json"):
        os.mkfifo(name)
    Image.fromarray(labels(50)).save("small.png")
    Image.fromarray(0 * labels()).save("black.png")
    Image.fromarray(255 * labels()).save("white.png")
    Image.fromarray(255 * labels()).save("lossy.jpg")
    strewn = np.random.default_rng(0).integers(0, 4, (60, 90))
    Image.fromarray(np.where(labels(), 255, strewn).astype(np.uint8)).save("noisy.png")
    try:
        status = run(*changes.pop("options", ()), **{"query": ["queries/first.png"], **changes})
    except SystemExit as stopped:
        status = stopped.code
    output = capsys.readouterr()
    assert status == 2
    assert output.err.count("\n") == 1
    assert re.search(message, output.err)
    assert len(output.err) < 400


@pytest.mark.parametrize("model", ["none.pth", "queries/first.png", "broken.pth", "no-such-model", "other.pth"])
def test_a_model_that_is_none_is_said_in_one_sentence(files, monkeypatch, capsys, model):
    monkeypatch.undo()
    monkeypatch.chdir(files)
    Path("broken.pth").write_text("no model")
    torch.save({"model": {}, "recipe": {"backbone": 3, "model": {}}, "data": {}}, "other.pth")
    assert run("--model", model) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.err.startswith("fewshotseg segment: ")
    assert not Path("out").exists()
