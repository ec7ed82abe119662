"""LabelMe's files: what shapes mean, what is refused, and masks that come back."""

import base64
import json
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fewshotseg.annotations import read_labelme, to_labelme


def shape(label="mug", kind="polygon", points=((1, 1), (5, 1), (5, 3), (1, 3)), **more):
    return {"label": label, "shape_type": kind, "points": [list(point) for point in points], **more}


def save(folder, *shapes, **more):
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None}
    path = folder / "a.json"
    path.write_text(json.dumps({**content, "imageHeight": 6, "imageWidth": 8, **more}))
    return path


def box(left, top, right, bottom, height=6, width=8):
    mask = np.zeros((height, width), int)
    mask[top:bottom, left:right] = 1
    return mask


def picture(values):
    content = BytesIO()
    Image.fromarray(values).save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    "given",
    [
        shape(),
        shape(kind="rectangle", points=((5, 3), (1, 1))),
        shape(kind="oriented_rectangle", points=((1, 1), (5, 1), (5, 3), (1, 3))),
        shape(kind="mask", points=((1, 1), (4, 2)), mask=picture(np.ones((2, 4), bool))),
        {"label": "mug", "points": [[1, 1], [5, 1], [5, 3], [1, 3]]},
    ],
)
def test_shapes(tmp_path, given):
    masks = read_labelme(save(tmp_path, given), size=(6, 8))
    assert list(masks) == ["mug"]
    assert str(masks["mug"].dtype) == "torch.int64"
    assert np.array_equal(masks["mug"], box(1, 1, 5, 3))


def test_a_circle_is_its_middle_and_a_point_of_its_rim(tmp_path):
    mask = read_labelme(save(tmp_path, shape(kind="circle", points=((3, 3), (3, 1)))))["mug"]
    assert mask.tolist()[1] == [0, 0, 1, 1, 0, 0, 0, 0]
    assert mask.sum() == 12


@pytest.mark.parametrize(("left", "top"), [(-1, -1), (6, 5), (2, 2)])
def test_a_mask_that_reaches_out_of_the_photograph_is_cut(tmp_path, left, top):
    values = np.ones((3, 4), bool)
    points = ((left, top), (left + 3, top + 2))
    mask = read_labelme(save(tmp_path, shape(kind="mask", points=points, mask=picture(values))))["mug"]
    assert np.array_equal(mask, box(max(left, 0), max(top, 0), left + 4, top + 3))


def test_labels_are_classes_and_ignored_is_void(tmp_path):
    path = save(
        tmp_path,
        shape(),
        shape(points=((6, 4), (8, 4), (8, 6), (6, 6))),
        shape("cup", "rectangle", ((0, 4), (3, 6))),
        shape("__ignore__", "rectangle", ((4, 2), (8, 5))),
        shape("_background_", "rectangle", ((0, 0), (8, 6))),
    )
    masks = read_labelme(path)
    assert list(masks) == ["mug", "cup"]
    mug = box(1, 1, 5, 3) | box(6, 4, 8, 6)
    assert np.array_equal(masks["mug"], np.where(mug == 1, 1, 255 * box(4, 2, 8, 5)))
    assert np.array_equal(masks["cup"], np.where(box(0, 4, 3, 6) == 1, 1, 255 * box(4, 2, 8, 5)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shapes": None}, "must have LabelMe's list shapes, got None"),
        ({"shapes": ["mug"]}, "shape 1: it must be an object"),
        ({"shapes": [shape(label=3)]}, "shape 1: label must be a name, got 3"),
        ({"shapes": [shape(), shape(points=((0, 0), (float("nan"), 1), (2, 2)))]}, "shape 2: points of 'mug' must fit"),
        ({"shapes": [shape(points=((0, 0), (1e9, 1), (2, 2)))]}, "points of 'mug' must fit 8 x 6 pixels"),
        ({"shapes": [shape(points=((0, 0), ("a", 1), (2, 2)))]}, r"points of 'mug' must be a list of \[x, y\]"),
        ({"shapes": [shape(points=((0, 0, 0), (1, 1, 1)))]}, r"points of 'mug' must be a list of \[x, y\]"),
        ({"shapes": [shape(points=())]}, r"points of 'mug' must be a list of \[x, y\]"),
        ({"shapes": [shape(points=((0, 0), (1, 1)))]}, "a polygon must have 3 points or more, got 2"),
        ({"shapes": [shape(points=((20, 0), (30, 0), (30, 9)))]}, "polygon of 'mug' must enclose pixels"),
        ({"shapes": [shape(kind="circle", points=((1, 1),))]}, "a circle must have 2 points, got 1"),
        ({"shapes": [shape(kind="line", points=((1, 1), (2, 2)))]}, "shape_type must be polygon, .* got 'line'"),
        ({"shapes": [shape(kind="mask", points=((1, 1), (2, 2)), mask="%")]}, "mask must be a picture in base64"),
        (
            {"shapes": [shape(kind="mask", points=((1, 1), (2, 2)), mask="abcd")]},
            "mask cannot be read: it is not a PNG, or",
        ),
        ({"imageHeight": 7}, "is of 8 x 7 pixels, but its photograph has 8 x 6"),
        ({"imageHeight": None}, "must have imageHeight and imageWidth of at least 1"),
        ({"imageHeight": -1}, "must have imageHeight and imageWidth of at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_labelme(save(tmp_path, shape()).with_name(save(tmp_path, shape(), **changed).name), size=(6, 8))
    assert "a.json" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_absurd_sizes_take_no_memory(tmp_path):
    with pytest.raises(ValueError, match="MAX_IMAGE_PIXELS"):
        read_labelme(save(tmp_path, shape(), imageHeight=99999, imageWidth=99999))


def test_many_long_edges_take_little_memory(tmp_path):
    points = [(x / 4, 4000 * (x % 2)) for x in range(8000)]  # 32 million crossings of edges with rows
    path = save(tmp_path, shape(points=points), imageHeight=4000, imageWidth=2000)
    tracemalloc.start()
    try:
        mask = read_labelme(path)["mug"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mask.any()
    assert most < 200e6


def test_without_sizes_the_photographs_counts(tmp_path):
    path = save(tmp_path, shape(), imageHeight=None, imageWidth=None)
    assert read_labelme(path, size=(6, 8))["mug"].sum() == 8


def test_written_files_have_labelmes_schema():
    mask = box(1, 1, 5, 3)
    mask[5, 7] = 2
    content = json.loads(json.dumps(to_labelme(mask, ["mug", "cup"], "photos\\a.jpg".replace("\\", "/"))))
    assert list(content) == ["version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"]
    assert (content["imagePath"], content["imageData"]) == ("photos/a.jpg", None)
    assert (content["imageHeight"], content["imageWidth"]) == (6, 8)
    assert [each["label"] for each in content["shapes"]] == ["mug", "cup"]
    for each in content["shapes"]:
        assert set(each) == {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
        assert each["shape_type"] == "polygon"
        assert all(len(point) == 2 for point in each["points"])


@pytest.mark.parametrize(("tolerance", "most"), [(0, 0), (1, 0.02)])
def test_masks_come_back(tmp_path, tolerance, most):
    y, x = np.mgrid[:80, :120]
    ids = np.zeros((80, 120), np.uint8)
    ids[(x - 50) ** 2 + (y - 40) ** 2 < 30**2] = 1
    ids[(x - 50) ** 2 + (y - 40) ** 2 < 10**2] = 0
    ids[60:79, 90:118] = 2
    ids[0] = 255
    path = tmp_path / "a.json"
    path.write_text(json.dumps(to_labelme(ids, ["mug", "cup"], "a.jpg", tolerance=tolerance)))
    masks = read_labelme(path)
    for class_id, name in [(1, "mug"), (2, "cup")]:
        wrong = masks[name].numpy() != (ids == class_id)
        assert wrong.mean() <= most * (name == "mug")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((2, 2), 3), "mask must hold 0, the ids 1 to 2 of mug, cup, or 255 for void, got .*3"),
        (np.full((2, 2), -1), "mask must hold 0, .* got -1"),
        (np.full((2, 2), 300), "mask must hold 0, .* got 300"),
        (np.zeros((2, 2, 2), int), r"mask must be \(H, W\) of whole numbers or bools"),
        (np.zeros((2, 2)), r"mask must be \(H, W\) of whole numbers or bools, got float64"),
    ],
)
def test_masks_without_names_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        to_labelme(mask, ["mug", "cup"], "a.jpg")
    with pytest.raises(ValueError, match="names must be different"):
        to_labelme(np.zeros((2, 2), int), ["mug", "mug"], "a.jpg")
