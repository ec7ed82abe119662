"""What a page does to photographs: marks of every kind, answers to them, and files that hold what was shown."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewshotseg as fs
from _models import tiny
from _segmenting import photo, pixels
from _workbench import Predictor, rectangle
from fewshotseg.annotations import overlay
from fewshotseg.app.workbench import SHOWN_SIDE, Workbench, painted


@pytest.fixture
def bench(tmp_path):
    files = {photo(tmp_path / "a.png", seed=1): "a", photo(tmp_path / "b.png", 50, 70, seed=2): "b",
             photo(tmp_path / "more" / "b.png", seed=3): "more/b"}  # fmt: skip
    names = {file: Path(name) for file, name in files.items()}
    return Workbench(Predictor(), names, tmp_path / "out")


def test_photographs_are_called_as_their_folders_tell_them_apart(bench):
    assert [*bench.photos] == ["a.png", "b.png", "more/b.png"]
    assert bench.shown("b.png").size == (70, 50)
    assert np.array_equal(bench.shown("a.png").picture, pixels(seed=1))


# Marks


def test_paint_box_and_outline_are_marks(bench):
    bench.mark("a.png", "mug", rectangle((60, 90), 10, 20, 30, 50))
    assert np.array_equal(bench.marks["mug"]["a.png"].numpy(), rectangle((60, 90), 10, 20, 30, 50))
    bench.mark_box("b.png", "mug", [(40, 60), (9.7, 5)])
    assert np.array_equal(bench.marks["mug"]["b.png"].numpy(), rectangle((70, 50), 5, 61, 9, 41))
    bench.mark_outline("more/b.png", "cup", [(10, 10), (20, 10), (20, 30), (10, 30)])
    found = bench.marks["cup"]["more/b.png"].numpy()
    assert found[11:29, 11:19].all()
    assert not found[:9].any()
    assert found.sum() == pytest.approx(200, abs=35)


def test_a_box_may_reach_beyond_the_photograph(bench):
    bench.mark_box("a.png", "mug", [(-20, -3), (400, 20)])
    assert np.array_equal(bench.marks["mug"]["a.png"].numpy(), rectangle((60, 90), 0, 21, 0, 90))


def test_marks_of_a_class_add_up_and_can_be_cleared(bench):
    bench.mark_box("a.png", "mug ", [(0, 0), (9, 9)])
    bench.mark_box("a.png", " mug", [(20, 20), (29, 29)])
    bench.mark_box("a.png", "cup", [(25, 25), (40, 40)])
    assert bench.marks["mug"]["a.png"].sum() == 200
    labels = bench.marked("a.png")
    assert labels.unique().tolist() == [0, 1, 2]
    assert labels[25:30, 25:30].unique().tolist() == [2]  # the later class lies above
    assert bench.marked("b.png") is None
    bench.clear("a.png", "mug")
    assert [*bench.marks] == ["cup"]
    bench.clear("a.png", "mug")
    bench.clear("b.png", "cup")
    assert [*bench.marks] == ["cup"]


def test_a_large_photograph_is_shown_smaller_and_marked_at_its_own_size(bench, tmp_path):
    name = bench.add(photo(tmp_path / "large.png", 3000, 1500, seed=4))
    shown = bench.shown(name)
    assert shown.picture.shape == (SHOWN_SIDE // 2, SHOWN_SIDE, 3)
    assert shown.size == (1500, 3000)
    bench.mark_box(name, "mug", [(100, 200), (299, 399)])
    assert np.array_equal(bench.marks["mug"][name].numpy(), rectangle((1500, 3000), 500, 1000, 250, 750))
    drawn = bench.picture(name, bench.marked(name))
    assert np.array_equal(drawn, overlay(shown.picture, rectangle(shown.picture.shape[:2], 200, 400, 100, 300))
                          .permute(1, 2, 0).numpy())  # fmt: skip


def test_layers_of_paint_are_one_mark():
    layers = np.zeros((2, 4, 5, 4), np.uint8)
    layers[0, 0, 0] = (255, 0, 0, 255)
    layers[1, 2, 3] = (0, 0, 0, 128)
    layers[1, 3, 3] = (255, 255, 255, 127)  # a soft edge
    assert np.argwhere(painted(layers, (4, 5))).tolist() == [[0, 0], [2, 3]]
    assert not painted([], (4, 5)).any()


@pytest.mark.parametrize("name", ["a:b", "#1", "background", "a\nb"])
def test_names_that_files_cannot_hold_are_refused_at_once(bench, name):
    with pytest.raises(ValueError, match=r"names must be such that labelmap.txt can hold them"):
        bench.mark_box("a.png", name, [(0, 0), (5, 5)])
    assert bench.marks == {}


def test_what_is_no_mark_is_refused(bench):
    with pytest.raises(ValueError, match="name the class first"):
        bench.mark_box("a.png", "  ", [(0, 0), (5, 5)])
    with pytest.raises(ValueError, match="the mark is empty: paint over the object, or click around it"):
        bench.mark("a.png", "mug", np.zeros((60, 90), bool))
    with pytest.raises(ValueError, match="click at least three points"):
        bench.mark_outline("a.png", "mug", [(0, 0), (5, 5)])
    with pytest.raises(ValueError, match=r"must have the size of what is shown, \(60, 90\)"):
        bench.mark("a.png", "mug", np.ones((60, 91), bool))
    with pytest.raises(ValueError, match="mark the object on a photograph first"):
        bench.answer("a.png", 0.5)
    assert bench.marks == {}


# Answers


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_answers_are_the_predictors_at_any_threshold(bench, threshold):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    answer = bench.answer("b.png", threshold)
    red = pixels(50, 70, 2)[..., 0] / np.float32(255)
    assert np.array_equal(answer.mask.numpy(), red > threshold)
    assert answer.presence == [pytest.approx(red.max())]
    share = 100 * (red > threshold).mean()
    assert bench.caption("b.png", answer) == f"b.png: {share:.1f} %, presence {red.max():.2f}"


def test_the_predictor_is_asked_once_for_a_mark_whatever_the_threshold(bench):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    for threshold in (0.2, 0.5, 0.8):
        bench.answer("b.png", threshold)
    assert len(bench.predictor.asked) == 1
    bench.mark_box("a.png", "mug", [(20, 20), (29, 29)])
    bench.answer("b.png", 0.5)
    assert len(bench.predictor.asked) == 2
    images, masks = bench.predictor.supports
    assert masks["mug"][0].sum() == 200
    assert torch.equal(images["mug"][0], torch.from_numpy(pixels(seed=1)).permute(2, 0, 1))


def test_several_classes_and_photographs_are_shown_to_the_predictor(bench):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    bench.mark_box("b.png", "cup", [(0, 0), (9, 9)])
    bench.mark_box("b.png", "mug", [(20, 20), (29, 29)])
    answer = bench.answer("more/b.png", 0.6)
    _, masks = bench.predictor.supports
    assert {name: len(each) for name, each in masks.items()} == {"mug": 2, "cup": 1}
    red, green = (pixels(seed=3)[..., channel] / 255 for channel in (0, 1))
    best = np.where(green > red, 2, 1) * (np.maximum(red, green) > 0.6)
    assert np.array_equal(answer.mask.numpy(), best)
    assert bench.caption("more/b.png", answer).startswith("more/b.png: mug ")
    assert "; cup " in bench.caption("more/b.png", answer)


def test_a_marked_photograph_is_answered_by_its_marks(bench):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    bench.mark_box("b.png", "cup", [(0, 0), (9, 9)])
    answer = bench.answer("b.png", 0.5)
    assert np.array_equal(answer.mask.numpy(), 2 * rectangle((70, 50), 0, 10, 0, 10))
    assert answer.presence == [0, 1]
    assert bench.caption("b.png", answer) == "b.png: your mark"


def test_the_models_smallest_presence_and_peak_empty_masks_as_the_predictor_does(tmp_path):
    photos = {photo(tmp_path / "a.png"): Path("a"), photo(tmp_path / "b.png", seed=5): Path("b")}
    shares = []
    for settings in ({}, {"min_presence": 1.0}, {"peak_threshold": 0.999}):
        predictor = fs.FewShotPredictor(tiny(threshold=0.3, **settings).eval(), size=65)
        bench = Workbench(predictor, photos, tmp_path / "out")
        bench.mark_box("a.png", "mug", [(10, 10), (60, 40)])
        answer = bench.answer("b.png", 0.3)
        assert torch.equal(predictor.predict(tmp_path / "b.png").mask.to(torch.uint8), answer.mask)
        shares.append(answer.mask.float().mean())
    assert shares[0] > 0
    assert shares[1:] == [0, 0]
    assert bench.answer("b.png", 0.31).mask.any()  # another threshold than the model's is applied alone


def test_examples_that_are_not_found_at_home_are_named(bench, monkeypatch):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    assert bench.ask() == ""
    monkeypatch.setattr(bench.predictor, "example_iou", ((0.07,),))
    assert bench.ask() == (
        "Not found in its own photograph: mug in a.png (IoU 0.07). Expect poor results: mark it tighter, "
        "or on another photograph too."
    )


def test_a_replaced_photograph_is_read_anew(bench, tmp_path):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    before = bench.answer("b.png", 0.5).mask
    photo(tmp_path / "b.png", 44, 66, seed=5)
    assert np.array_equal(bench.shown("b.png").picture, pixels(44, 66, 5))
    assert bench.answer("b.png", 0.5).mask.shape == (66, 44) != before.shape
    photo(tmp_path / "a.png", seed=6)  # of the same size: the mark stays
    bench.answer("b.png", 0.5)
    assert torch.equal(bench.predictor.supports[0]["mug"][0], torch.from_numpy(pixels(seed=6)).permute(2, 0, 1))


def test_marks_on_a_photograph_of_another_size_are_named(bench, tmp_path):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    bench.mark_box("b.png", "mug", [(0, 0), (9, 9)])
    photo(tmp_path / "a.png", 44, 66, seed=5)
    actions = [
        lambda: bench.marked("a.png"),
        lambda: bench.answer("more/b.png", 0.5),
        lambda: bench.answer("a.png", 0.5),
        bench.ask,
        lambda: bench.mark_box("a.png", "mug", [(0, 0), (9, 9)]),
        lambda: bench.save(0.5, ["mask"]),
    ]
    for act in actions:
        with pytest.raises(
            ValueError, match=r"a.png must have 90 x 60 pixels as when mug was marked, got 44 x 66: clear"
        ):
            act()
    assert not (tmp_path / "out").exists()
    bench.clear("a.png", "mug")
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    assert bench.answer("a.png", 0.5).mask.shape == (66, 44)


# Files


KINDS = ["mask", "overlay", "probability", "cutout", "coco", "labelme", "yolo", "csv"]


def test_files_hold_what_was_shown(bench, tmp_path):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    written, faults = bench.save(0.7, KINDS)
    assert faults == {}
    out = tmp_path / "out"
    assert {path for path in out.rglob("*") if path.is_file() and ".fewshotseg" not in path.parts} == {*written}
    for name, shown in (("a", "a.png"), ("b", "b.png"), ("more/b", "more/b.png")):
        mask = np.array(Image.open(out / f"{name}-mask.png"))
        assert set(np.unique(mask)) == {0, 255}
        assert np.array_equal(mask == 255, bench.answer(shown, 0.7).mask.numpy() == 1)
    assert np.array_equal(
        np.array(Image.open(out / "examples/a.png-mug.png")) == 255, rectangle((60, 90), 0, 10, 0, 10)
    )
    assert torch.load(out / "support.fss")["supports"] == 2
    assert len(json.loads((out / "annotations.json").read_text())["annotations"]) == 3
    assert json.loads((out / "b.json").read_text())["shapes"][0]["label"] == "mug"
    assert [row["photo"] for row in csv.DictReader((out / "results.csv").read_text().splitlines())] == [
        str(path) for path in bench.photos.values()
    ]


def test_only_what_is_ticked_is_written_and_again_after_a_change(bench, tmp_path):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    bench.save(0.7, ["mask"])
    before = np.array(Image.open(tmp_path / "out/b-mask.png"))
    bench.mark_box("a.png", "a/b; ..", [(30, 30), (49, 49)])
    written, _ = bench.save(0.2, ["mask"])
    after = np.array(Image.open(tmp_path / "out/b-mask.png"))
    assert set(np.unique(before)) == {0, 255}
    assert set(np.unique(after)) == {0, 1, 2}
    assert {path.name for path in (tmp_path / "out/examples").iterdir()} == {"a.png-mug.png", "a.png-a_b_ __.png"}
    assert not [path for path in written if path.suffix == ".jpg"]


def test_a_photograph_that_broke_is_named_and_the_others_are_done(bench, tmp_path):
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    (tmp_path / "b.png").write_bytes(b"no photograph")
    written, faults = bench.save(0.5, ["mask", "csv"])
    assert list(faults) == [tmp_path / "b.png"]
    assert "cannot be read" in faults[tmp_path / "b.png"]
    assert tmp_path / "out/more/b-mask.png" in written
    assert not (tmp_path / "out/b-mask.png").exists()
    assert "cannot be read" in (tmp_path / "out/results.csv").read_text()


def test_others_files_are_left_alone(bench, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/annotations.json").write_text("mine")
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    with pytest.raises(ValueError, match=r"annotations.json exists, and this command did not write it"):
        bench.save(0.5, ["coco"])
    assert (tmp_path / "out/annotations.json").read_text() == "mine"


@pytest.mark.parametrize("content", [b"mine", b"", None])
def test_a_support_set_of_somebody_else_is_left_alone(bench, tmp_path, content):
    own = tmp_path / "out/support.fss"
    own.parent.mkdir()
    torch.save({"format": "another"}, own) if content is None else own.write_bytes(content)
    before = own.read_bytes()
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    with pytest.raises(
        ValueError, match=r"support.fss exists, and this command did not write it; choose another --out"
    ):
        bench.save(0.5, KINDS)
    assert own.read_bytes() == before
    assert [*own.parent.iterdir()] == [own]


def test_example_pictures_of_somebody_else_are_left_alone(bench, tmp_path):
    folder = tmp_path / "out/examples"
    own = photo(folder / "a.png-mug.png", seed=9)
    (folder / "a.png-mug-2.png").write_text("no picture")
    before = own.read_bytes()
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    for _ in range(2):
        written, _ = bench.save(0.5, [])
        assert folder / "a.png-mug-3.png" in written
    assert own.read_bytes() == before
    assert len([*folder.iterdir()]) == 3


@pytest.mark.parametrize(("kind", "file"), [("mask", "b-mask.png"), ("labelme", "b.json"), ("yolo", "labels/b.txt")])
def test_a_file_of_ones_own_is_kept_and_the_other_photographs_are_done(bench, tmp_path, kind, file):
    own = tmp_path / "out" / file
    own.parent.mkdir(parents=True)
    photo(own, seed=9) if own.suffix == ".png" else own.write_text("mine")
    before = own.read_bytes()
    bench.mark_box("a.png", "mug", [(0, 0), (9, 9)])
    for _ in range(2):
        written, faults = bench.save(0.5, [kind])
        assert [*faults] == [tmp_path / "b.png"]
        assert "this command did not write it" in faults[tmp_path / "b.png"]
        assert own.read_bytes() == before
        assert own not in written
        assert own.with_name(own.name.replace("b", "a", 1)) in written


def test_marks_whose_names_differ_by_signs_have_files_of_their_own(bench, tmp_path):
    bench.mark_box("a.png", "mug!", [(0, 0), (9, 9)])
    bench.mark_box("a.png", "mug?", [(30, 30), (49, 49)])
    bench.save(0.5, [])
    files = [tmp_path / "out/examples" / name for name in ("a.png-mug_.png", "a.png-mug_-2.png")]
    sides = [np.argwhere(np.array(Image.open(file)) == 255).min(axis=0).tolist() for file in files]
    assert sides == [[0, 0], [30, 30]]


def test_a_support_set_of_the_page_is_one_for_the_predictor(tmp_path):
    predictor = fs.FewShotPredictor(tiny(), size=65, check_examples=True)
    bench = Workbench(predictor, {photo(tmp_path / "a.png"): Path("a"), photo(tmp_path / "b.png", seed=5):
                                  Path("b")}, tmp_path / "out")  # fmt: skip
    first, second = bench.photos
    bench.mark_box(first, "mug", [(10, 10), (60, 40)])
    answer = bench.answer(second, 0.5)
    assert 0 <= answer.presence[0] <= 1
    bench.save(0.5, [])
    again = fs.FewShotPredictor(tiny(), size=65)
    again.load_support(tmp_path / "out/support.fss")
    assert again.class_names == ("mug",)
    found = again.predict(tmp_path / "b.png", threshold=0.5)
    assert torch.equal(found.mask.to(torch.uint8), answer.mask)
