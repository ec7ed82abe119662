import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _folders import make_folder, mask_of, save_image, save_mask
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.folder import FolderSource
from fewshotseg.data.splits import PASCAL_CLASSES


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set", {"b": (1, 255), "a": (2, 2, 1), "c": ()})


def source_of(root, **options):
    return FolderSource(root / "images", root / "masks", **options)


def test_files_are_paired_by_name_and_sorted(root):
    source = source_of(root)
    assert source.ids == ("a", "b", "c")
    assert source.class_areas == [{1: 4, 2: 8}, {1: 4}, {}]
    for index, class_ids in enumerate([(2, 2, 1), (1, 255), ()]):
        image, mask = source.load(index)
        assert (image.shape, image.dtype, mask.dtype) == ((3, 4, 6), torch.uint8, torch.int64)
        assert np.array_equal(mask.numpy(), mask_of(*class_ids))


def test_classes_without_names_are_named_by_number(root):
    assert dict(source_of(root).class_names) == {1: "1", 2: "2"}


def test_given_names_come_back_in_order(root):
    assert list(source_of(root, class_names={9: "x", 2: "dog"}).class_names.items()) == [(2, "dog"), (9, "x")]


@pytest.mark.parametrize("class_id", [0, -1, 255])
def test_background_and_void_cannot_be_named(root, class_id):
    with pytest.raises(ValueError, match=f"class_names must have ids of 1 and up without 255, got {class_id}"):
        source_of(root, class_names={class_id: "x"})


def test_ids_choose_and_order(root):
    assert source_of(root, ids=["c", "a"]).class_areas == [{}, {1: 4, 2: 8}]


def test_repeated_ids_are_refused(root):
    with pytest.raises(ValueError, match="ids must differ, got 'a' more than once"):
        source_of(root, ids=["a", "b", "a"])


def test_hidden_files_and_other_files_are_passed_over(root):
    for name in (".DS_Store", "._a.jpg", "Thumbs.db", "notes.txt"):
        (root / "images" / name).write_text("x")
    (root / "images" / "sub.jpg.d").mkdir()
    assert source_of(root).ids == ("a", "b", "c")


def test_endings_in_capitals(tmp_path):
    save_image(tmp_path / "images" / "a.JPG")
    save_mask(tmp_path / "masks" / "a.PNG", mask_of(1))
    assert source_of(tmp_path).class_areas == [{1: 4}]


def test_two_images_of_one_name_are_refused(root):
    save_image(root / "images" / "a.png")
    with pytest.raises(ValueError, match=r"must hold one file of each name, got a\.jpg and a\.png"):
        source_of(root)


def test_no_images_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match=r"images must be a folder with images, got .*images, which holds none"):
        source_of(tmp_path)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="images"):
        source_of(tmp_path)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_missing_partners_are_named_before_anything_is_read(root, part):
    suffix = "jpg" if part == "images" else "png"
    (root / part / f"b.{suffix}").unlink()
    source = source_of(root)
    assert source.ids == ("a", "b", "c")
    with pytest.raises(FileNotFoundError, match=rf"1 of the files .* the first is .*{part}.b\.{suffix}"):
        _ = source.class_areas
    with pytest.raises(FileNotFoundError, match=rf"b\.{suffix}"):
        source.load(1)


def test_sizes_that_differ_are_named_with_both_files(root):
    save_mask(root / "masks" / "b.png", mask_of(1, size=(5, 7)))
    with pytest.raises(ValueError, match=r"images.b\.jpg is 6 x 4 pixels .* does not fit 5 x 7 of .*masks.b\.png"):
        source_of(root).load(1)


def test_a_turned_photograph_does_not_fit_the_mask_of_the_stored_pixels(root):
    exif = Image.Exif()
    exif[0x0112] = 8
    save_image(root / "images" / "b.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"b\.jpg is 4 x 6 pixels \(EXIF orientation applied\).* 6 x 4 of"):
        source_of(root).load(1)
    save_mask(root / "masks" / "b.png", mask_of(1, size=(4, 6)))
    assert source_of(root).load(1).image.shape == (3, 6, 4)


def test_broken_masks_are_named(root):
    (root / "masks" / "c.png").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"c\.png cannot be read"):
        _ = source_of(root).class_areas


def test_positions_beyond_the_end_are_refused(root):
    with pytest.raises(IndexError):
        source_of(root).load(3)


def test_making_a_source_opens_nothing(root, user_cache):
    for file in root.rglob("*.*"):
        file.write_bytes(b"rubbish")
    assert source_of(root, class_names={1: "x"}).class_names == {1: "x"}
    assert not user_cache.exists()


def test_areas_are_remembered_in_the_cache(root, tmp_path):
    _ = source_of(root, cache=tmp_path / "cache").class_areas
    for file in (root / "masks").iterdir():  # same size and time, other content
        stat = file.stat()
        file.write_bytes(b"x" * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source_of(root, cache=tmp_path / "cache").class_areas == [{1: 4, 2: 8}, {1: 4}, {}]


def test_sources_travel_to_workers(root):
    copy = pickle.loads(pickle.dumps(source_of(root, class_names={1: "x", 2: "y"})))
    assert copy.class_areas == [{1: 4, 2: 8}, {1: 4}, {}]
    assert dict(copy.class_names) == {1: "x", 2: "y"}


class TestFromRoot:
    def test_two_folders_are_enough(self, root):
        source = FolderSource.from_root(root)
        assert source.ids == ("a", "b", "c")
        assert not source.named

    def test_classes_are_named_by_csv(self, root):
        (root / "classes.csv").write_text("id,name,more\n0,background,\n2,dog,x\n1,cat,y\n255,void,\n")
        assert list(FolderSource.from_root(root).class_names.items()) == [(1, "cat"), (2, "dog")]

    def test_an_index_pairs_and_orders(self, root):
        (root / "index.csv").write_text("w,image,mask\n6,images/c.jpg,masks/a.png\n6,images/a.jpg,masks/b.png\n")
        source = FolderSource.from_root(root)
        assert source.ids == ("c", "a")
        assert source.class_areas == [{1: 4, 2: 8}, {1: 4}]

    def test_an_index_may_give_ids(self, root):
        (root / "index.csv").write_text("id,image,mask\nfirst,images/c.jpg,masks/c.png\n,images/a.jpg,masks/a.png\n")
        assert FolderSource.from_root(root).ids == ("first", "a")

    def test_spreadsheets_write_a_byte_order_mark(self, root):
        (root / "index.csv").write_bytes("image,mask\r\nimages/a.jpg,masks/a.png\r\n".encode("utf-8-sig"))
        assert FolderSource.from_root(root).ids == ("a",)

    @pytest.mark.parametrize("name", ["index.csv", "classes.csv"])
    @pytest.mark.parametrize("text", ["", "x,y\n1,2\n"])
    def test_missing_columns_are_named(self, root, name, text):
        (root / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name} must have the columns (image, mask|id, name), got"):
            FolderSource.from_root(root)

    def test_missing_values_are_named_by_row(self, root):
        (root / "index.csv").write_text("image,mask\nimages/a.jpg,masks/a.png\nimages/b.jpg,\n")
        with pytest.raises(ValueError, match="a value for image and mask in each row, row 3 has not"):
            FolderSource.from_root(root)

    def test_an_index_without_rows_is_refused(self, root):
        (root / "index.csv").write_text("image,mask\n")
        with pytest.raises(ValueError, match=r"index\.csv must have a row for each image, got none"):
            FolderSource.from_root(root)

    @pytest.mark.parametrize("rows", ["1,cat\n1,dog\n", "one,cat\n", "-1,cat\n", "1.5,cat\n"])
    def test_odd_class_ids_are_refused(self, root, rows):
        (root / "classes.csv").write_text(f"id,name\n{rows}")
        with pytest.raises(ValueError, match="a different whole number as id in each row, got"):
            FolderSource.from_root(root)


class TestFileSource:
    def test_files_of_any_place_and_name(self, tmp_path):
        image = save_image(tmp_path / "x" / "photo.webp")
        mask = save_mask(tmp_path / "y" / "photo_label.png", mask_of(5))
        source = FileSource([str(image)], [mask])
        assert (source.ids, source.class_areas) == (("photo",), [{5: 4}])

    def test_lengths_must_agree(self):
        with pytest.raises(ValueError, match="equally many, got 2, 1 and 2"):
            FileSource(["a.jpg", "b.jpg"], ["a.png"])
        with pytest.raises(ValueError, match="equally many, got 1, 1 and 2"):
            FileSource(["a.jpg"], ["a.png"], ids=["a", "b"])

    def test_none_are_refused(self):
        with pytest.raises(ValueError, match="images must not be empty"):
            FileSource([], [])


@pytest.mark.data
def test_voc_val_as_a_folder():
    data = os.environ.get("FEWSHOTSEG_DATA")
    if not data or not Path(data, "voc12_val").is_dir():
        pytest.skip("FEWSHOTSEG_DATA does not point at a folder with voc12_val")
    source = FolderSource.from_root(Path(data, "voc12_val"))
    assert len(source.ids) == 1449
    assert dict(source.class_names) == PASCAL_CLASSES
    assert set().union(*source.class_areas) == set(range(1, 21))
    assert [sum(class_id in areas for areas in source.class_areas) for class_id in (1, 15, 20)] == [90, 446, 74]
    sample = source.load(0)
    assert sample.image.shape[1:] == sample.mask.shape
