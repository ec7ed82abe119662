"""Folders that describe themselves by classes.csv and index.csv."""

import pytest

from _folders import make_folder, save_image
from fewshotseg.data.sources.faults import FaultyFilesError
from fewshotseg.data.sources.folder import FolderSource


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set", {"b": (1, 255), "a": (2, 2, 1), "c": ()})


def test_two_folders_are_enough(root):
    source = FolderSource.from_root(root)
    assert source.ids == ("a", "b", "c")
    assert not source.named


def test_classes_are_named_by_csv(root):
    (root / "classes.csv").write_text("id,name,more\n0,background,\n2,dog,x\n1,cat,y\n255,void,\n")
    assert list(FolderSource.from_root(root).class_names.items()) == [(1, "cat"), (2, "dog")]


def test_an_index_pairs_and_orders(root):
    (root / "index.csv").write_text("w,image,mask\n6,images/c.jpg,masks/a.png\n6,images/a.jpg,masks/b.png\n")
    source = FolderSource.from_root(root)
    assert source.ids == ("c", "a")
    assert source.class_areas == [{1: 4, 2: 8}, {1: 4}]


def test_an_index_may_give_ids(root):
    (root / "index.csv").write_text("id,image,mask\nfirst,images/c.jpg,masks/c.png\n,images/a.jpg,masks/a.png\n")
    assert FolderSource.from_root(root).ids == ("first", "a")


def test_spreadsheets_write_a_byte_order_mark(root):
    (root / "index.csv").write_bytes("image,mask\r\nimages/a.jpg,masks/a.png\r\n".encode("utf-8-sig"))
    assert FolderSource.from_root(root).ids == ("a",)


@pytest.mark.parametrize("name", ["index.csv", "classes.csv"])
@pytest.mark.parametrize("text", ["", "x,y\n1,2\n"])
def test_missing_columns_are_named(root, name, text):
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name} must have the columns (image, mask|id, name), got"):
        FolderSource.from_root(root)


def test_missing_values_are_named_by_row(root):
    (root / "index.csv").write_text("image,mask\nimages/a.jpg,masks/a.png\nimages/b.jpg,\n")
    with pytest.raises(ValueError, match="row 3 must have a value for image and mask"):
        FolderSource.from_root(root)


def test_an_index_without_rows_is_refused(root):
    (root / "index.csv").write_text("image,mask\n")
    with pytest.raises(ValueError, match=r"index\.csv must have a row for each image, got none"):
        FolderSource.from_root(root)


def test_odd_class_ids_are_refused(root):
    bad = ("one", "-1", "1.5", "256", "99999999999999999999", "\u00b2", "1e2", "0x1")
    (root / "classes.csv").write_text("id,name\n1,cat\n1,dog\n" + "".join(f"{name},x\n" for name in bad))
    with pytest.raises(FaultyFilesError, match=r"classes\.csv has 9 faults: id must differ .* got 1 twice") as error:
        FolderSource.from_root(root)
    assert [fault.rpartition("got ")[2] for fault in error.value.faults[1:]] == [repr(name) for name in bad]


@pytest.mark.parametrize("name", ["index.csv", "classes.csv"])
def test_a_list_that_is_no_file_is_not_passed_over(root, name):
    (root / name).symlink_to("gone.csv")
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        FolderSource.from_root(root)


def test_frames_of_several_videos_are_told_apart_by_their_folders(root):
    rows = ["image,mask"]
    for video in ("x", "y"):
        save_image(root / "images" / video / "1.jpg")
        rows.append(f"images\\{video}\\1.jpg,masks/a.png")
    (root / "index.csv").write_text("\n".join([*rows, "images/b.jpg,masks/b.png"]))
    source = FolderSource.from_root(root)
    assert source.ids == ("images/x/1", "images/y/1", "b")
    assert source.class_areas == [{1: 4, 2: 8}, {1: 4, 2: 8}, {1: 4}]


def test_all_faults_of_an_index_are_named_and_the_rest_can_be_checked(root):
    (root / "index.csv").write_text(
        "image,mask,id\n../a.jpg,masks/a.png,\nimages/a.jpg,/etc/a.png,\nimages/b.jpg,masks/b.png,x\n"
        "images/c.jpg,masks/c.png,x\nimages/a.jpg,masks/a.png,y\nhttps://a.org/a.jpg,masks/a.png,\n"
    )
    with pytest.raises(
        FaultyFilesError, match=r"index\.csv has 4 faults: image and mask must be a path inside of"
    ) as error:
        FolderSource.from_root(root)
    assert error.value.faults[3] == "ids must differ, got 'x' in 2 rows: give each row its own in a column id"
    assert error.value.source.ids == ("y",)
