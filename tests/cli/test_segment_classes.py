"""Several classes and annotation files on the command line, and which examples are queries."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewshotseg as fs
from _segmenting import labels, masks_of, photo, pixels, results, run, run_classes, value
from fewshotseg import to_coco, to_labelme
from fewshotseg.annotations import labelmap_text, read_annotations
from fewshotseg.images import write_mask


def annotate(path, ids, names, image="support.png"):
    Path(path).write_text(json.dumps(to_labelme(ids, names, image, tolerance=0)))


def test_classes_of_mixed_kinds(files, reddest, capsys):
    other = np.zeros((60, 90), np.uint8)
    other[:9] = 1
    annotate("mug.json", labels() + 2 * other, ["mug", "cup"])
    Path("cups.json").write_text(json.dumps(to_coco({"x/support.png": 2 * other}, ["mug", "cup"])))
    mug = ["mug", "support.png", "mug.json", "support.png", "mask.png"]
    cup = ["cup", "support.png", "cups.json", "support.png", "box:0,0,90,9"]
    assert run_classes(mug, cup) == 0
    photos, masks = reddest.supports
    assert list(photos) == list(masks) == ["mug", "cup"]
    assert all(np.array_equal(mask, labels()) for mask in masks["mug"])
    assert all(np.array_equal(mask, other) for mask in masks["cup"])
    assert [len(each) for each in photos.values()] == [2, 2]
    output = capsys.readouterr()
    assert "example cup: support.png  15.0 % object\n" in output.out
    assert output.err == ""
    shown = pixels(seed=1)[..., :2]
    expected = np.where(shown.max(axis=2) > 127, shown.argmax(axis=2) + 1, 0)
    with Image.open("out/first-mask.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.array(mask), expected)
    assert np.array_equal(value("out/first-probability.png"), shown.max(axis=2))
    assert Path("out/labelmap.txt").read_text() == labelmap_text(["mug", "cup"])
    read = read_annotations("out/first-mask.png", "first.png")
    assert np.array_equal(read["cup"], expected == 2)
    shares = [100 * (expected == number).mean() for number in (1, 2)]
    assert re.search(
        rf"first.png  \d.\d\d s  {shares[0]:.1f} % mug  presence 1.00, {shares[1]:.1f} % cup  presence 1.00\n",
        output.out,
    )
    assert results() == sorted(["labelmap.txt", ".fewshotseg/labelmap.txt.own", *masks_of("first.png", "second.png")])


def test_one_class_by_name_has_a_white_mask(files, capsys):
    assert run_classes(["mug", "support.png", "mask.png"], options=["--save", "mask"]) == 0
    assert np.array_equal(value("out/first-mask.png"), 255 * (pixels(seed=1)[..., 0] > 127).astype(np.uint8))
    assert "mug  presence" in capsys.readouterr().out


def test_annotation_files_in_place_of_a_mask(files, reddest):
    annotate("mug.json", labels(), ["whatever"])
    assert run(shown=["--mask", "mug.json"]) == 0
    assert np.array_equal(reddest.supports[1][0], labels())


def test_the_order_of_classes_and_their_names_make_other_results(files, reddest, capsys):
    mug, cup = ["mug", "support.png", "mask.png"], ["cup", "support.png", "box:0,0,90,9"]
    assert run_classes(mug, cup) == 0
    assert run_classes(cup, mug) == 2
    assert "results of other or changed photographs, examples or settings" in capsys.readouterr().err
    assert run_classes(mug, cup) == 0
    assert len(reddest.asked) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "mug"], "class mug must be followed by pairs of a photograph and its annotation, got none"),
        (["--class", "mug", "support.png"], "class mug must be followed by pairs .*, got support.png"),
        (["--class", "mug", "support.png", "box:1,2,3"], "box must be box:LEFT,TOP,RIGHT,BOTTOM .*, got box:1,2,3"),
        (["--class", "mug", "support.png", "box:0,0,91,60"], "box must be LEFT TOP RIGHT BOTTOM within 90 x 60"),
        (["--class", "mug", "support.png", "none.json"], "none.json is missing"),
        (
            ["--class", "pen", "support.png", "two.json"],
            "two.json must mark 'pen' on support.png, but it has .mug., .c",
        ),
        (["--class", "mug", "support.png", "mask.png", "--support", "support.png"], "class must not go with support"),
        (
            ["--support", "support.png", "--mask", "two.json"],
            "two.json must mark one class on support.png, or .* named",
        ),
        (
            ["--support", "support.png", "--mask", "small.json"],
            "small.json is of 50 x 60 pixels, but its photograph has",
        ),
        (["--support", "support.png"], "mask or box must be given for each support, 1 of them, got 0"),
        ([], "an example of what to look for must be given: --support with --mask or --box, or --class"),
        (
            ["--support", "set.fss", "--mask", "mask.png"],
            "support must be set.fss alone, without mask, box, class or void",
        ),
        (["--support", "set.fss"], "set.fss: No such file or directory"),
    ],
)
def test_examples_that_cannot_be_used_are_said_in_one_sentence(files, capsys, arguments, message):
    two = labels()
    two[:9] = 2
    annotate("two.json", two, ["mug", "cup"])
    annotate("small.json", labels(50), ["mug"])
    assert run.__globals__["main"](["segment", *arguments, "--query", "queries", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1


def test_a_mark_nearly_everywhere_is_remarked(files, capsys):
    assert run(shown=["--box", 0, 0, 90, 59]) == 0
    assert "support.png is marked nearly everywhere: is the background marked" in capsys.readouterr().err


def test_a_saved_support_set_is_the_predictors(files, reddest):
    def load(path):
        reddest.loaded = path
        reddest.class_names = ("mug", "cup")
        reddest.supports = {"mug": 0, "cup": 0}, {}

    reddest.load_support = load
    Path("set.fss").write_bytes(b"first")
    assert run(support=["set.fss"], shown=[]) == 0
    assert reddest.loaded == Path("set.fss")
    assert Path("out/labelmap.txt").read_text() == labelmap_text(["mug", "cup"])
    assert run(support=["set.fss"], shown=[]) == 0
    assert len(reddest.asked) == 2
    Path("set.fss").write_bytes(b"other")
    assert run(support=["set.fss"], shown=[]) == 2


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.filterwarnings("ignore:.*expect poor results", "ignore:.*own photograph")
def test_a_real_support_set(tmp_path, monkeypatch, several, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    fs.save_model(fs.build_scnet("mobilenet_v2", hidden_channels=4, bins=(1.0,)).eval(), "model.pth")
    predictor = fs.FewShotPredictor.from_pretrained("model.pth", size=65, check_examples=False)
    if several:
        predictor.set_support({"mug": pixels(), "cup": pixels(seed=5)}, {"mug": labels() == 1, "cup": labels() == 1})
    else:
        predictor.set_support(pixels(), labels() == 1)
    predictor.save_support("set.fss")
    query = photo(tmp_path / "query.png", 50, 70, seed=2)
    options = ["--model", "model.pth", "--size", 65, "--threshold", 0.4]
    assert run(*options, query=["query.png"], support=["set.fss"], shown=[]) == 0
    expected = predictor.predict(query, threshold=0.4)
    assert np.array_equal(value("out/query-mask.png"), expected.mask.numpy() * (1 if several else 255))
    presence = ", ".join(f"presence {each:.2f}" for each in expected.presence.reshape(-1).tolist())
    said = capsys.readouterr().out
    assert all(part in said for part in presence.split(", "))
    other = [*options[:2], "--size", 97]
    assert run(*other, query=["query.png"], support=["set.fss"], shown=[], out="other") == 2
    assert capsys.readouterr().err.count("\n") == 1


# Which examples are queries


def test_an_example_beside_its_mask_is_no_query(files, capsys):
    photo(files / "queries" / "example.png")
    write_mask("queries/example-mask.png", labels())
    shown = ["--mask", "queries/example-mask.png"]
    for query in (["queries"], ["queries/*.png"]):
        assert run(support=["queries/example.png"], shown=shown, query=query, out=query[0][-1]) == 0
        said = capsys.readouterr().err
        assert "1 skipped (examples, with their masks beside them): queries/example.png\n" in said
        assert "1 skipped (masks of the examples): queries/example-mask.png\n" in said
        assert results(query[0][-1]) == masks_of("first.png", "second.png")


def test_an_example_that_is_named_or_lies_apart_from_its_mask_is_a_query(files):
    photo(files / "queries" / "example.png")
    assert run(support=["queries/example.png"], out="a") == 0
    assert results("a") == masks_of("example.png", "first.png", "second.png")
    assert run(support=["queries/example.png"], shown=["--box", 30, 20, 60, 40], out="b") == 0
    assert results("b") == results("a")
    write_mask("queries/example-mask.png", labels())
    shown = ["--mask", "queries/example-mask.png"]
    assert run(support=["queries/example.png"], shown=shown, query=["queries/example.png"], out="c") == 0
    assert results("c") == masks_of("example.png")


@pytest.mark.parametrize("name", ["a:b", "#1", "background"])
def test_names_that_labelmap_cannot_hold_are_refused_before_anything_is_done(name, files, capsys):
    assert run_classes([name, "support.png", "mask.png"], ["cup", "support.png", "box:0,0,30,30"]) == 2
    assert "labelmap.txt" in capsys.readouterr().err
    assert not Path("out").exists()
    assert run_classes([name, "support.png", "mask.png"]) == 0  # one class needs no labelmap.txt


def test_an_object_on_void_alone_is_said(files, capsys):
    mask = np.full((60, 90), 255, np.uint8)
    mask[10:30, 10:30] = 1
    Image.fromarray(mask).save("void.png")
    assert run(shown=("--mask", "void.png")) == 0
    assert "support.png is marked nearly everywhere" in capsys.readouterr().err
