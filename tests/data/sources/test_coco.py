import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from _folders import box, make_coco
from fewshotseg.data.sources.coco import COCOSource, draw_coco_mask


def source_of(root, annotations, **options):
    return COCOSource(root / "images", make_coco(root, annotations, **options))


def test_class_ids_are_ranks_of_sorted_categories(tmp_path):
    source = source_of(tmp_path, [box(0, 0, 2, 4, category_id=90), box(3, 0, 4, 4, category_id=13)])
    assert list(source.class_names.items()) == [(1, "person"), (2, "sign"), (3, "brush")]
    assert source.class_areas == [{3: 8, 2: 4}]
    assert source.ids == ("nine",)
    image, mask = source.load(0)
    assert image.shape == (3, 4, 6)
    assert mask.tolist() == [[3, 3, 0, 2, 0, 0]] * 4


def test_later_annotations_overwrite_earlier(tmp_path):
    first, second = box(0, 0, 4, 4, category_id=1), box(2, 0, 6, 4, category_id=13)
    assert source_of(tmp_path / "a", [first, second]).load(0).mask.tolist() == [[1, 1, 2, 2, 2, 2]] * 4
    assert source_of(tmp_path / "b", [second, first]).load(0).mask.tolist() == [[1, 1, 1, 1, 2, 2]] * 4


def test_crowds_are_skipped(tmp_path):
    crowd = box(0, 0, 6, 4, category_id=13, iscrowd=1)
    crowd["segmentation"] = {"size": [4, 6], "counts": [0, 24]}
    source = source_of(tmp_path, [box(0, 0, 1, 4, category_id=1), crowd])
    assert source.class_areas == [{1: 4}]


def test_images_without_annotation_or_with_crowds_alone_are_left_out(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i in (30, 2, 11, 4)]
    annotations = [
        box(0, 0, 1, 4, category_id=1, image_id=30),
        box(0, 0, 6, 4, category_id=1, image_id=11, iscrowd=1),
        box(0, 0, 2, 4, category_id=1, image_id=4),
    ]
    source = source_of(tmp_path, annotations, images=images)
    assert source.ids == ("4", "30")
    assert source.class_areas == [{1: 8}, {1: 4}]


def test_all_polygons_and_run_lengths_count(tmp_path):
    two = box(0, 0, 1, 4, category_id=1)
    two["segmentation"].append([5, 0, 6, 0, 6, 4, 5, 4])
    uncompressed = {**box(0, 0, 0, 0, category_id=13), "segmentation": {"size": [4, 6], "counts": [8, 2, 14]}}
    bitmap = np.zeros((4, 6), dtype=np.uint8, order="F")
    bitmap[3, 3] = 1
    rle = coco_mask.encode(bitmap)
    compressed = {**uncompressed, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
    assert source_of(tmp_path, [two, uncompressed, compressed]).load(0).mask.tolist() == [
        [1, 0, 2, 0, 0, 1],
        [1, 0, 2, 0, 0, 1],
        [1, 0, 0, 0, 0, 1],
        [1, 0, 0, 2, 0, 1],
    ]


def test_points_and_lines_among_polygons_enclose_nothing():
    annotation = box(0, 0, 1, 2, category_id=5)
    annotation["segmentation"] = [[0, 0, 4, 2], *annotation["segmentation"]]
    assert draw_coco_mask((2, 4), [annotation], {5: 254}).tolist() == [[254, 0, 0, 0]] * 2


def test_nothing_gives_background():
    assert draw_coco_mask((2, 3), [], {}).tolist() == [[0, 0, 0]] * 2


def test_masks_are_drawn_once_and_kept_apart_by_content(tmp_path, user_cache, monkeypatch):
    annotations = [box(0, 0, 1, 4, category_id=1)]
    assert source_of(tmp_path, annotations).class_areas == [{1: 4}]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pycocotools.coco", None)  # nothing is drawn again
        assert source_of(tmp_path, annotations).class_areas == [{1: 4}]
    assert source_of(tmp_path, [box(0, 0, 2, 4, category_id=1)]).class_areas == [{1: 8}]
    folders = [path for path in user_cache.iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert all(folder.name.startswith("instances-") for folder in folders)


def test_an_interrupted_drawing_goes_on(tmp_path, user_cache):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i in (1, 2)]
    annotations = [box(0, 0, i, 4, category_id=1, image_id=i) for i in (1, 2)]
    first = source_of(tmp_path, annotations, images=images).masks
    kept = first[0].stat().st_mtime_ns
    first[1].unlink()
    again = source_of(tmp_path, annotations, images=images)
    assert again.class_areas == [{1: 4}, {1: 8}]
    assert first[0].stat().st_mtime_ns == kept


def test_given_cache(tmp_path, user_cache):
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=1)])
    source = COCOSource(tmp_path / "images", path, cache=tmp_path / "mine")
    assert source.class_areas == [{1: 4}]
    assert source.masks[0].is_relative_to(tmp_path / "mine")
    assert not user_cache.exists()


def test_file_names_lead_nowhere_else(tmp_path, user_cache):
    images = [{"id": 9, "file_name": "../../outside.jpg", "height": 4, "width": 6}]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    source = source_of(tmp_path / "deep" / "er", [box(0, 0, 1, 4, category_id=1)], images=images)
    assert source.masks[0].is_relative_to(user_cache)
    assert not list(tmp_path.rglob("outside.png"))


def test_sizes_other_than_announced_are_named_on_loading(tmp_path):
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=1)])
    content = json.loads(path.read_text())
    content["images"][0]["width"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"nine\.jpg is 6 x 4 pixels .* 7 x 4 of"):
        COCOSource(tmp_path / "images", path).load(0)


def test_missing_images_are_named(tmp_path):
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=1)])
    (tmp_path / "images" / "nine.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"nine\.jpg"):
        _ = COCOSource(tmp_path / "images", path).class_areas


def test_all_annotations_that_cannot_be_drawn_are_named(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i in (1, 2)]
    annotations = [
        box(0, 0, 1, 4, category_id=1, image_id=1),
        {**box(0, 0, 1, 4, category_id=1, image_id=1), "segmentation": []},
        {**box(0, 0, 1, 4, category_id=1, image_id=1), "segmentation": [[0, 0, 1, 1]]},
        box(0, 0, 1, 4, category_id=77, image_id=2),
        {"image_id": 2, "category_id": 1},
        {**box(0, 0, 1, 4, category_id=1, image_id=2), "segmentation": "rubbish"},
    ]
    for _ in range(2):  # the second time too, though the first kept what it could draw
        with pytest.raises(ValueError, match=r"instances\.json has annotations that cannot be drawn") as error:
            source_of(tmp_path, annotations, images=images)
        named = [i for i in range(6) if f"annotation {i}:" in str(error.value)]
        assert named == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("\u00ff" * 9, "cannot be read as JSON"),
        ("[]", "is not a COCO instances file"),
        ("{}", "is not a COCO instances file: KeyError"),
        ('{"categories": [], "images": [], "annotations": [3]}', "is not a COCO instances file"),
        ('{"categories": [], "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}', "KeyError.'height'"),
        (
            '{"categories": [], "annotations": [], "images": [{"id": 1, "file_name": "a", "height": 0, "width": 3}]}',
            "image 1 has no name or no size",
        ),
        ('{"categories": [], "images": [], "annotations": [{"image_id": 5}]}', "images that it does not list: 5"),
    ],
)
def test_other_files_are_refused(tmp_path, text, reason):
    path = tmp_path / "captions.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"captions\.json .*{reason}"):
        COCOSource(tmp_path, path)


def test_too_many_categories_are_refused(tmp_path):
    categories = [{"id": i, "name": str(i)} for i in range(255)]
    with pytest.raises(ValueError, match="must have at most 254 categories, got 255"):
        source_of(tmp_path, [box(0, 0, 1, 4, category_id=1)], categories=categories)


def test_without_annotations_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="images must not be empty"):
        source_of(tmp_path, [])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"instances\.json"):
        COCOSource(tmp_path, tmp_path / "instances.json")


def test_without_pycocotools_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"pip install 'fewshotseg\[coco\]'"):
        source_of(tmp_path, [box(0, 0, 1, 4, category_id=1)])


def test_pycocotools_is_imported_when_needed_only():
    text = Path(sys.modules[COCOSource.__module__].__file__).read_text()
    assert not [line for line in text.splitlines() if line.startswith(("import pycoco", "from pycoco"))]
