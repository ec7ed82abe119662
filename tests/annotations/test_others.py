"""YOLO's lines, mask pictures of several classes, the one door, overlays and cut-outs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import draw_segmentation_masks

from fewshotseg._checks import shown
from fewshotseg.annotations import (
    cutout,
    labelmap_text,
    overlay,
    read_annotations,
    read_class_mask,
    read_example,
    to_coco,
    to_labelme,
    to_yolo,
    yolo_data,
)
from fewshotseg.annotations.class_masks import check_labelmap_names
from fewshotseg.annotations.overlays import COLOURS
from fewshotseg.annotations.polygons import fill_polygon
from fewshotseg.images import write_mask


def classes():
    ids = np.zeros((40, 60), np.uint8)
    ids[5:25, 10:30] = 1
    ids[10:15, 15:20] = 0
    ids[30:38, 40:58] = 2
    return ids


def test_yolos_lines_are_shares_of_the_sides():
    ids, found = classes(), np.zeros((40, 60), int)
    for line in to_yolo(ids, ["mug", "cup"]).splitlines():
        number, *shares = line.split()
        assert all(0 <= float(share) <= 1 for share in shares)
        polygon = np.array(shares, float).reshape(-1, 2) * [60, 40]
        found[fill_polygon(polygon, (40, 60))] = int(number) + 1
    assert np.array_equal(found, ids)
    assert to_yolo(np.zeros((3, 4), int), ["mug"]) == ""
    assert yolo_data(['a "b"', "c: d"]).splitlines()[3:] == ["names:", '  0: "a \\"b\\""', '  1: "c: d"']


def test_names_in_yolos_yaml_are_read_back():
    names = ["\U0001f600 mug", "bücher", "a\x07\x7f\x85\u2028\ufeff\xa0b", '\\ "\n\t', "\U000e0001", "yes", "1"]
    yaml = pytest.importorskip("yaml")
    assert [*yaml.safe_load(yolo_data(names))["names"].values()] == names
    assert "\U0001f600 mug" in yolo_data(names)


def test_masks_with_named_colours(tmp_path):
    ids = classes()
    ids[0] = 255
    (tmp_path / "labelmap.txt").write_text(labelmap_text(["mug", "cup"]))
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "a.png", ids)
    with Image.open(tmp_path / "masks" / "a.png") as palette:
        palette.convert("RGB").save(tmp_path / "rgb.png")
    for path in (tmp_path / "masks" / "a.png", tmp_path / "rgb.png"):
        masks = read_annotations(path, "a.jpg", size=(40, 60))
        assert list(masks) == ["mug", "cup"]
        assert np.array_equal(masks["cup"], np.where(ids == 2, 1, np.where(ids == 255, 255, 0)))
        assert np.array_equal(read_example(path, "a.jpg", name="mug") == 1, ids == 1)
    with pytest.raises(ValueError, match=r"rgb.png must mark 'pen' on a.jpg, but it has \"mug\", \"cup\""):
        read_example(tmp_path / "rgb.png", "a.jpg", name="pen")


def test_several_colours_of_one_name_are_one_class(tmp_path):
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nmug:128,0,0::\ncup:128,128,0::\nmug:0,128,0::\n")
    ids = classes()
    write_mask(tmp_path / "a.png", ids)
    masks = read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")
    assert {*np.unique(ids)} == {0, 1, 2}
    assert list(masks) == ["mug"]
    assert np.array_equal(masks["mug"], ids > 0)


@pytest.mark.parametrize("name", ["a:b", "a\nb", "mug\n", "a\u2028b", "#1", "background", " mug", "mug\t", " "])
def test_names_that_would_not_be_read_back_are_refused(name):
    for write in (labelmap_text, check_labelmap_names):
        with pytest.raises(ValueError, match=r"names must be such that labelmap.txt can hold them: .* got ") as caught:
            write(["cup", name])
        assert str(caught.value).endswith(f"got {shown(name)}")


def test_names_are_read_back(tmp_path):
    names = ["mug", "big cup", "a#", "Background", "1", "ü, '\""]
    (tmp_path / "labelmap.txt").write_text(labelmap_text(names), "utf-8")
    write_mask(tmp_path / "a.png", np.arange(7, dtype=np.uint8)[None])
    assert list(read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")) == names


def test_one_colour_of_two_names_is_refused(tmp_path):
    write_mask(tmp_path / "a.png", classes() % 2)
    (tmp_path / "labelmap.txt").write_text("mug:128,0,0::\ncup:128,0,0::\n")
    with pytest.raises(ValueError, match=r"must have one name for each colour, got 'mug' and 'cup' for 128,0,0"):
        read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")
    (tmp_path / "labelmap.txt").write_text("mug:128,0,0::\nmug:128,0,0::\n")
    assert list(read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")) == ["mug"]


def test_colours_without_names_are_refused(tmp_path):
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nmug:128,0,0::\n")
    write_mask(tmp_path / "a.png", classes())
    with pytest.raises(ValueError, match=r"must have the colours of .*#800000 mug, got also #008000"):
        read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")
    (tmp_path / "labelmap.txt").write_text("mug:1²,0,0")
    with pytest.raises(ValueError, match=r"labelmap.txt must have lines such as mug:128,0,0::, got 'mug:1²,0,0'"):
        read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")
    (tmp_path / "labelmap.txt").write_text("mug 128 0 0")
    with pytest.raises(ValueError, match=r"labelmap.txt must have lines such as mug:128,0,0::, got 'mug 128 0 0'"):
        read_class_mask(tmp_path / "a.png", tmp_path / "labelmap.txt")


@pytest.mark.filterwarnings("ignore:.*255 but no 1:UserWarning")
def test_a_plain_mask_beside_named_colours_is_plain(tmp_path):
    (tmp_path / "labelmap.txt").write_text(labelmap_text(["mug", "cup"]))
    Image.fromarray(255 * (classes() == 1).astype(np.uint8)).save(tmp_path / "a.png")
    assert list(read_annotations(tmp_path / "a.png", "a.jpg")) == ["object"]
    assert np.array_equal(read_example(tmp_path / "a.png", "a.jpg", name="mug"), classes() == 1)


def test_one_class_of_a_file(tmp_path):
    path = tmp_path / "a.json"
    for content in (to_labelme(classes(), ["mug", "cup"], "a.jpg"), to_coco({"a.jpg": classes()}, ["mug", "cup"])):
        path.write_text(json.dumps(content))
        assert list(read_annotations(path, "a.jpg")) == ["mug", "cup"]
        assert np.array_equal(read_example(path, "a.jpg", name="cup", size=(40, 60)), classes() == 2)
        with pytest.raises(ValueError, match=r'must mark one class on a.jpg, or .* got "mug", "cup"'):
            read_example(path, "a.jpg")
        with pytest.raises(ValueError, match=r"must mark 'Mug' on a.jpg, but it has .mug., .cup."):
            read_example(path, "a.jpg", name="Mug")
    path.write_text(json.dumps(to_labelme(classes() == 1, ["mug"], "a.jpg")))
    assert np.array_equal(read_example(path, "a.jpg"), classes() == 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "must hold an object with what LabelMe or COCO write, got a list"),
        ('{"polygons": 1}', "must have LabelMe's shapes or COCO's images and annotations, got 'polygons'"),
        ("{}", "got nothing"),
    ],
)
def test_other_json_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_annotations(tmp_path / "a.json", "a.jpg")


def test_overlays_tint_and_outline_each_class():
    photo = torch.full((3, 60, 90), 100, dtype=torch.uint8)
    ids = np.zeros((60, 90), np.uint8)
    ids[20:40, 10:40] = 1
    ids[20:40, 50:80] = 2
    ids[0] = 255
    drawn = overlay(photo, ids)
    assert (drawn.dtype, drawn.shape) == (torch.uint8, photo.shape)
    assert (drawn[:, torch.from_numpy(ids % 255 == 0)] == 100).all()
    for left, colour in [(10, COLOURS[0]), (50, COLOURS[1])]:
        assert tuple(drawn[:, 20, left].tolist()) == tuple(drawn[:, 21, left + 1].tolist()) == colour
        inner = [int(0.6 * 100 + 0.4 * value) for value in colour]
        assert drawn[:, 22, left + 2].tolist() == pytest.approx(inner, abs=1)
    assert (photo == 100).all()
    assert torch.equal(overlay(photo.permute(1, 2, 0).numpy(), torch.from_numpy(ids)), drawn)


def test_overlays_are_torchvisions():
    photo = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 60, 90), np.uint8))
    mask = np.zeros((60, 90), bool)
    mask[10:50, 10:80] = True
    drawn = draw_segmentation_masks(photo, torch.from_numpy(mask), alpha=0.3, colors=(1, 200, 99))
    inner = overlay(photo, mask, colours=[(1, 200, 99)], alpha=0.3)[:, 12:48, 12:78]
    assert torch.equal(inner, drawn[:, 12:48, 12:78])


@pytest.mark.parametrize(
    ("colours", "error", "message"),
    [
        ([], ValueError, r"colours must be one or more of three numbers each, got \[\]"),
        ([(1, 2)], ValueError, r"colours must be one or more of three numbers each, got \[\[1, 2\]\]"),
        ([(300, 0, 0)], ValueError, "every number of colours must be at most 255, got 300"),
        ([(0, -1, 0)], ValueError, "every number of colours must be at least 0, got -1"),
        ([(0.5, 0, 0)], TypeError, "every number of colours must be an integer, got float"),
        (["red"], TypeError, "every colour must be three numbers, got str"),
        (3, TypeError, "colours must be a list, got int"),
    ],
)
def test_colours_are_three_bytes(colours, error, message):
    with pytest.raises(error, match=message):
        overlay(np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=bool), colours=colours)


def test_outlines_are_as_wide_as_the_photograph_asks_for():
    mask = np.zeros((100, 4000), bool)
    mask[20:80, 100:300] = True
    drawn = overlay(torch.zeros(3, 100, 4000, dtype=torch.uint8), mask)
    assert (drawn[0, 50] == COLOURS[0][0]).sum() == 2 * 10


def test_cut_outs_are_transparent_around_the_objects():
    photo = np.full((40, 60, 3), 7, np.uint8)
    picture = cutout(photo, np.where(classes() == 0, 255, classes()))
    assert picture.mode == "RGBA"
    values = np.array(picture)
    assert (values[..., :3] == 7).all()
    assert np.array_equal(values[..., 3], 255 * (classes() > 0))
    for draw in (cutout, overlay):
        with pytest.raises(ValueError, match="mask must have the size of its image"):
            draw(photo, np.zeros((3, 3), int))
