"""COCO's files: what CVAT, Label Studio and COCO write is read, and what is written opens in pycocotools."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fewshotseg.annotations import read_coco, to_coco

pytestmark = pytest.mark.filterwarnings("ignore:.*NumPy:DeprecationWarning", "ignore:.*__array__:DeprecationWarning")

SQUARE = [[1, 1, 5, 1, 5, 3, 1, 3]]


def save(folder, *annotations, images=None, **more):
    content = {
        "images": images or [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
        "categories": [{"id": 7, "name": "mug"}, {"id": 9, "name": "cup"}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 7, **each} for i, each in enumerate(annotations, 1)],
        **more,
    }
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return path


def box(left, top, right, bottom, height=6, width=8):
    mask = np.zeros((height, width), int)
    mask[top:bottom, left:right] = 1
    return mask


def runs(mask, *, compressed):
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": packed["size"], "counts": packed["counts"].decode()}
    flat = mask.ravel(order="F").tolist()
    counts, value = [0], 0
    for each in flat:
        if each != value:
            counts.append(0)
            value = each
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        SQUARE[0],
        [[[1, 1], [5, 1], [5, 3], [1, 3]]],
        runs(box(1, 1, 5, 3), compressed=True),
        runs(box(1, 1, 5, 3), compressed=False),
    ],
)
def test_outlines(tmp_path, segmentation):
    masks = read_coco(save(tmp_path, {"segmentation": segmentation}), "photos/a.jpg", size=(6, 8))
    assert list(masks) == ["mug"]
    assert str(masks["mug"].dtype) == "torch.int64"
    assert np.array_equal(masks["mug"], box(1, 1, 5, 3))


def test_annotations_of_a_class_are_one_mask_and_crowds_are_void_beside_others(tmp_path):
    crowd = {"segmentation": runs(box(4, 0, 8, 6), compressed=False), "iscrowd": 1}
    other = {"segmentation": [[0, 4, 2, 4, 2, 6, 0, 6]]}
    path = save(tmp_path, {"segmentation": SQUARE}, other, crowd, {**crowd, "category_id": 9})
    masks = read_coco(path, "a.jpg")
    objects = box(1, 1, 5, 3) | box(0, 4, 2, 6)
    assert np.array_equal(masks["mug"], np.where(objects == 1, 1, 255 * box(4, 0, 8, 6)))
    assert np.array_equal(masks["cup"], box(4, 0, 8, 6))  # a crowd alone, as CVAT exports what was drawn by brush


def test_a_box_without_outline_counts_with_a_word(tmp_path):
    with pytest.warns(UserWarning, match="the whole box is taken as the object"):
        masks = read_coco(save(tmp_path, {"segmentation": [], "bbox": [1, 1, 4, 2]}), "a.jpg")
    assert np.array_equal(masks["mug"], box(1, 1, 5, 3))


@pytest.mark.parametrize(
    ("listed", "asked", "found"),
    [
        (["train/a.jpg", "b.jpg"], "elsewhere/a.jpg", 1),
        (["b.jpg", "images\\0f3c2a1d-a.jpg"], "a.jpg", 2),
        (["one/a.jpg", "two/a.jpg"], "photos/two/a.jpg", 2),
        (["one\\a.jpg", "two\\a.jpg"], "photos/two/a.jpg", 2),
    ],
)
def test_photographs_are_found_by_name(tmp_path, listed, asked, found):
    images = [{"id": i, "file_name": name, "height": 6, "width": 8} for i, name in enumerate(listed, 1)]
    annotations = [{"segmentation": SQUARE, "image_id": i, "category_id": 5 + 2 * i} for i in (1, 2)]
    assert list(read_coco(save(tmp_path, *annotations, images=images), asked)) == [["mug", "cup"][found - 1]]


def test_the_only_photograph_may_have_another_name(tmp_path):
    path = save(tmp_path, {"segmentation": SQUARE})
    with pytest.warns(UserWarning, match=r"the annotation of 'a.jpg' is taken as that of renamed.jpg"):
        assert list(read_coco(path, "renamed.jpg", size=(6, 8))) == ["mug"]
    with pytest.raises(ValueError, match=r"must have annotations of renamed.jpg, but those that it has are of 'a.jpg'"):
        read_coco(path, "renamed.jpg", size=(60, 80))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": [[0, 0, float("nan"), 1, 2, 2]]}, "annotation 1: coordinates must be finite"),
        ({"segmentation": [[0, 0, 1e12, 1, 2, 2]]}, "annotation 1: coordinates must fit an image of 8 x 6"),
        ({"segmentation": [[0, 0, 1]]}, "annotation 1: a polygon must have an even number"),
        ({"segmentation": ["a"]}, "annotation 1: a polygon must be a list of numbers"),
        ({"segmentation": [[0, 0, 1, 1]]}, "annotation 1: segmentation must enclose pixels"),
        ({"segmentation": {"size": [6, 8], "counts": [3]}}, "run lengths must fill 48 pixels, got 3"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, r"run lengths must be of size \[6, 8\]"),
        ({"segmentation": None}, "segmentation must be polygons or run lengths, got None"),
        ({"bbox": [0, 0, "a", 1]}, "bbox must be four numbers"),
        ({"bbox": [7, 1, -4, 3]}, r"bbox must have a width and a height above 0, got \[7, 1, -4, 3\]"),
        ({"bbox": [0, 0, 3, float("nan")]}, "bbox must have a width and a height above 0"),
        ({"segmentation": SQUARE, "category_id": 3}, "category_id must be the id of a category .* got 3"),
        ({"segmentation": SQUARE, "image_id": 3}, "image_id must be the id of an image"),
        ({"segmentation": SQUARE, "iscrowd": "maybe"}, "iscrowd must be 0 or 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, annotation, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_coco(save(tmp_path, annotation), "a.jpg")
    assert "a.json" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"says that a.jpg has 8 x 6 pixels, but it has 6 x 8"):
        read_coco(save(tmp_path, {"segmentation": SQUARE}), "a.jpg", size=(8, 6))


def scenes():
    y, x = np.mgrid[:60, :90]
    ids = np.zeros((60, 90), np.uint8)
    ids[(x - 40) ** 2 + (y - 30) ** 2 < 25**2] = 1
    ids[40:59, 70:88] = ids[3:9, 80:85] = 2
    ring = ids.copy()
    ring[(x - 40) ** 2 + (y - 30) ** 2 < 9**2] = 0
    ring[:, 0] = 255
    frame = np.ones((5, 7), bool)
    frame[2, 3] = False
    return {"a.jpg": ids, "more/b.jpg": ring, "c.jpg": np.zeros((5, 7), np.uint8), "d.jpg": frame}


def test_pycocotools_opens_what_is_written(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(to_coco(scenes(), ["mug", "cup"])))
    with contextlib.redirect_stdout(io.StringIO()):
        opened = COCO(path)
    assert {image["file_name"] for image in opened.dataset["images"]} == set(scenes())
    assert [each["name"] for each in opened.loadCats(opened.getCatIds())] == ["mug", "cup"]
    kinds = set()
    for image in opened.dataset["images"]:
        ids = scenes()[image["file_name"]]
        assert (image["height"], image["width"]) == ids.shape
        annotations = opened.loadAnns(opened.getAnnIds(image["id"]))
        assert sorted(each["category_id"] for each in annotations) == sorted(set(np.unique(ids).tolist()) - {0, 255})
        for each in annotations:
            mask = opened.annToMask(each)
            assert np.array_equal(mask, ids == each["category_id"])
            assert each["area"] == mask.sum()
            packed = coco_mask.encode(np.asfortranarray(mask))
            assert each["bbox"] == coco_mask.toBbox(packed).tolist()
            assert each["iscrowd"] == 0
            kinds.add(type(each["segmentation"]))
    assert kinds == {list, dict}  # run lengths for what has holes
    assert len({each["id"] for each in opened.dataset["annotations"]}) == 5


def test_masks_may_be_lists_but_need_the_names_of_their_files():
    lists = to_coco({"a.jpg": [[0, 1]]}, ["mug"])
    assert lists == to_coco({"a.jpg": np.array([[0, 1]])}, ["mug"])
    with pytest.raises(TypeError, match="masks must be a dict of file names and masks, got list"):
        to_coco([[[0, 1]]], ["mug"])


def test_masks_come_back(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(to_coco(scenes(), ["mug", "cup"])))
    for name in ("a.jpg", "more/b.jpg"):
        masks = read_coco(path, name)
        for class_id, each in [(1, "mug"), (2, "cup")]:
            assert np.array_equal(masks[each], scenes()[name] == class_id)
    path.write_text(json.dumps(to_coco(scenes(), ["mug", "cup"], tolerance=1)))
    assert (read_coco(path, "a.jpg")["mug"].numpy() != (scenes()["a.jpg"] == 1)).mean() < 0.02
