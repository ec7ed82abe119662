import json
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from _folders import box, make_coco, save_image
from fewshotseg.data.sources.coco import COCOSource
from fewshotseg.data.sources.faults import FaultyFilesError
from fewshotseg.data.splits import COCO_CLASSES


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


def test_masks_are_drawn_once_and_kept_apart_by_content(tmp_path, user_cache, monkeypatch):
    annotations = [box(0, 0, 1, 4, category_id=1)]
    assert source_of(tmp_path, annotations).class_areas == [{1: 4}]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pycocotools", None)  # nothing is drawn again
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


def test_too_many_categories_are_refused(tmp_path):
    categories = [{"id": i, "name": str(i)} for i in range(255)]
    with pytest.raises(ValueError, match="must have at most 254 categories, got 255"):
        source_of(tmp_path, [box(0, 0, 1, 4, category_id=1)], categories=categories)


def test_without_annotations_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="has 1 fault: no image has an annotation that is no crowd"):
        source_of(tmp_path, [])


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"instances\.json is missing"):
        COCOSource(tmp_path, tmp_path / "instances.json")
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=1)])
    with pytest.raises(FileNotFoundError, match="nowhere must be a folder, but there is none"):
        COCOSource(tmp_path / "nowhere", path)


def test_without_pycocotools_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"pip install 'fewshotseg\[coco\]'"):
        source_of(tmp_path, [box(0, 0, 1, 4, category_id=1)])


def test_a_cache_that_cannot_keep_masks_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder is wanted")
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=1)])
    with pytest.raises(OSError, match=r"cache.instances-\w+-\d cannot keep masks, so give another cache: \w+"):
        COCOSource(tmp_path / "images", path, cache=tmp_path / "cache")


def test_masks_of_other_rules_are_not_taken_for_these(tmp_path, monkeypatch):
    annotations = [box(0, 0, 1, 4, category_id=1)]
    first = source_of(tmp_path, annotations).masks[0]
    monkeypatch.setattr("fewshotseg.data.sources.coco._RULES", 99)
    assert source_of(tmp_path, annotations).masks[0] != first


class TestFileNames:
    """What a file may be called, and where its name may lead."""

    @staticmethod
    def sized(name, image_id=9):
        return {"id": image_id, "file_name": name, "height": 4, "width": 6}

    def source(self, tmp_path, name, there=None):
        save_image(tmp_path / "images" / (there or name))
        path = make_coco(tmp_path / "file", [box(0, 0, 1, 4, category_id=1)])
        content = json.loads(path.read_text())
        content["images"] = [self.sized(name)]
        path.write_text(json.dumps(content))
        return COCOSource(tmp_path / "images", path)

    @pytest.mark.parametrize(
        ("name", "there", "image_id"),
        [
            ("val/a.jpg", None, "val/a"),
            ("val\\a.jpg", "val/a.jpg", "val/a"),
            ("./val/../a.jpg", "a.jpg", "a"),
            ("img.v1.2.png", None, "img.v1.2"),
            ("no-ending.v1", None, "no-ending.v1"),
            ("caf\u00e9.jpg", "cafe\u0301.jpg", "caf\u00e9"),
            ("cafe\u0301.jpg", "caf\u00e9.jpg", "caf\u00e9"),
            ("with blanks .jpeg", None, "with blanks "),
        ],
    )
    def test_names_of_other_systems_are_found(self, tmp_path, name, there, image_id):
        if there is None and name.endswith("v1"):
            there = "no-ending.png"
            save_image(tmp_path / "images" / there).rename(tmp_path / "images" / name)
        source = self.source(tmp_path, name, there)
        assert source.ids == (image_id,)
        assert source.load(0).mask.tolist() == [[1, 0, 0, 0, 0, 0]] * 4

    @pytest.mark.parametrize(
        "name",
        [
            *("../outside.jpg", "val/../../outside.jpg", "..\\outside.jpg", "/etc/outside.jpg", "C:\\outside.jpg"),
            *("\\\\server\\outside.jpg", "https://example.org/outside.jpg", "file:///outside.jpg", "..", ".", ""),
            *(" ", None, 5, ["a.jpg"], "nul\0.jpg"),
        ],
    )
    def test_names_lead_nowhere_else(self, tmp_path, user_cache, name):
        save_image(tmp_path / "outside.jpg")
        with pytest.raises(
            ValueError, match=r"1 fault: file_name of image 9 must be (a path inside|the name of a file)"
        ):
            self.source(tmp_path, name, there="a.jpg")
        assert not list(tmp_path.rglob("outside.png"))

    def test_absolute_names_inside_are_inside(self, tmp_path):
        assert self.source(tmp_path, str(tmp_path / "images" / "val" / "a.jpg"), there="val/a.jpg").ids == ("val/a",)

    def test_links_inside_are_the_users_own(self, tmp_path):
        save_image(tmp_path / "elsewhere" / "a.jpg")
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
        assert self.source(tmp_path, "linked/a.jpg", there="b.jpg").load(0).image.shape == (3, 4, 6)

    @pytest.mark.parametrize("name", ["x" * 5000 + ".jpg", "a\nb.jpg", "\ud800.jpg", "gone.jpg"])
    def test_names_that_no_file_has_are_missing(self, tmp_path, name):
        with pytest.raises(FileNotFoundError, match=r"^1 of the files .* is missing$") as error:
            _ = self.source(tmp_path, name, there="a.jpg").class_areas
        assert len(str(error.value)) < 600

    def test_equal_names_but_for_the_ending_keep_it_as_id(self, tmp_path):
        images = [self.sized("a.jpg", 1), self.sized("a.png", 2), self.sized("b.jpg", 3)]
        annotations = [box(0, 0, i, 4, category_id=1, image_id=i) for i in (1, 2, 3)]
        assert source_of(tmp_path, annotations, images=images).ids == ("a.jpg", "a.png", "b")

    def test_one_file_of_two_images_is_refused(self, tmp_path):
        images = [self.sized("val/a.jpg", 1), self.sized("val/a.jpg", 2)]
        annotations = [box(0, 0, i, 4, category_id=1, image_id=i) for i in (1, 2)]
        path = make_coco(tmp_path, annotations, images=images)
        path.write_text(path.read_text().replace("val/a.jpg", "val\\\\a.jpg", 1))
        with pytest.raises(ValueError, match=r"images must have files of their own, got .*a\.jpg for images 1, 2"):
            COCOSource(tmp_path / "images", path)


def test_images_of_ids_that_are_names_have_masks_of_their_own(tmp_path):
    ids = ["5f3a", "../../x", -4, 10**300, "7"]
    images = [{"id": name, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i, name in enumerate(ids)]
    annotations = [box(0, 0, 1 + i, 4, category_id=1, image_id=name) for i, name in enumerate(ids)]
    source = source_of(tmp_path, annotations, images=images)
    assert source.ids == ("2", "4", "3", "1", "0")  # numbers, then strings
    assert source.class_areas == [{1: 12}, {1: 20}, {1: 16}, {1: 8}, {1: 4}]
    assert len(set(source.masks)) == 5


def test_all_faults_are_named_and_counted(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i in (1, 2, 3)]
    good = box(0, 0, 1, 4, category_id=1, image_id=3)
    bad = [{**box(0, 0, 1, 4, category_id=1, image_id=1 + i % 2), "segmentation": []} for i in range(1240)]
    for _ in range(2):  # the second time too, though the first kept what it could draw
        with pytest.raises(
            FaultyFilesError, match=r"instances\.json has 1,240 faults: image 1, annotation 0: "
        ) as error:
            source_of(tmp_path, [*bad, good], images=images)
        assert str(error.value).endswith("and 1,235 more")
        assert len(str(error.value)) < 1000
        assert {fault.split(":")[0] for fault in error.value.faults} == {
            f"image {1 + i % 2}, annotation {i}" for i in range(1240)
        }
        assert error.value.source.class_areas == [{1: 4}]
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.data
def test_annotations_of_coco_itself(tmp_path):
    data = os.environ.get("FEWSHOTSEG_DATA")
    if not data or not Path(data, "coco_mini").is_dir():
        pytest.skip("FEWSHOTSEG_DATA does not point at a folder with coco_mini")
    source = COCOSource(Path(data, "coco_mini/images"), Path(data, "coco_mini/instances.json"), cache=tmp_path)
    assert source.class_names == COCO_CLASSES
    truth = COCO(Path(data, "coco_mini/instances.json"))
    for index in range(0, len(source.ids), 20):
        image_id = int(source.ids[index])
        expected = np.zeros(tuple(source.load_mask(index).shape), dtype=np.int64)
        for annotation in truth.loadAnns(truth.getAnnIds(imgIds=image_id, iscrowd=False)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                inside = truth.annToMask(annotation) == 1
            expected[inside] = sorted(truth.cats).index(annotation["category_id"]) + 1
        assert np.array_equal(source.load_mask(index).numpy(), expected)
