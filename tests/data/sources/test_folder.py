import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _folders import make_folder, mask_of, save_image, save_mask
from fewshotseg.data.sources.faults import FaultyFilesError
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


def test_class_ids_that_no_mask_can_hold_are_refused(root):
    with pytest.raises(ValueError, match=r"class_names must have ids below 255, .* got 256"):
        source_of(root, class_names={1: "x", 256: "y"})


def test_ids_choose_and_order(root):
    assert source_of(root, ids=["c", "a"]).class_areas == [{}, {1: 4, 2: 8}]


def test_repeated_ids_are_refused(root):
    with pytest.raises(ValueError, match="ids must differ, got 'a' more than once"):
        source_of(root, ids=["a", "b", "a"])


def test_hidden_files_and_other_files_are_passed_over(root):
    for name in (".DS_Store", "._a.jpg", "Thumbs.db", "notes.txt"):
        (root / "images" / name).write_text("x")
    (root / "images" / "sub.jpg.d").mkdir()
    source = source_of(root)
    assert source.ids == ("a", "b", "c")
    assert [path.name for path in source.passed_over] == ["Thumbs.db", "notes.txt"]


def test_endings_in_capitals(tmp_path):
    save_image(tmp_path / "images" / "a.JPG")
    save_mask(tmp_path / "masks" / "a.PNG", mask_of(1))
    assert source_of(tmp_path).class_areas == [{1: 4}]


def test_all_files_of_one_name_are_refused_and_the_rest_can_be_checked(root):
    save_image(root / "images" / "a.png")
    save_mask(root / "masks" / "b.bmp", mask_of(1), palette=False)
    with pytest.raises(
        FaultyFilesError, match=r"2 faults: .*one file of each name, got a\.jpg and a\.png; .*b\.bmp"
    ) as error:
        source_of(root)
    assert error.value.source.class_areas[2] == {}


def test_folders_of_the_folders_are_read(root):
    save_image(root / "images" / "dog" / "rex" / "1.jpg")
    save_mask(root / "masks" / "dog" / "rex" / "1.png", mask_of(9))
    source = source_of(root)
    assert source.ids == ("a", "b", "c", "dog/rex/1")
    assert source.class_areas[3] == {9: 4}
    assert source_of(root, ids=["dog/rex/1"]).load(0).mask.unique().tolist() == [0, 9]


@pytest.mark.parametrize("ending", ["jfif", "gif", "webp", "avif", "tiff", "bmp", "jp2", "jpe"])
def test_images_of_any_format(tmp_path, ending):
    picture = save_image(tmp_path / "images" / "a.png")
    try:
        Image.open(picture).save(tmp_path / "images" / f"a.{ending}")
    except (OSError, KeyError):
        pytest.skip(f"this Pillow does not write {ending}")
    picture.unlink()
    save_mask(tmp_path / "masks" / "a.png", mask_of(1))
    assert source_of(tmp_path).load(0).image.shape == (3, 4, 6)


def test_names_of_macos_and_of_linux_belong_together(tmp_path):
    save_image(tmp_path / "images" / "cafe\u0301.jpg")
    save_mask(tmp_path / "masks" / "caf\u00e9.png", mask_of(1))
    assert source_of(tmp_path).ids == ("caf\u00e9",)
    assert source_of(tmp_path, ids=["cafe\u0301"]).class_areas == [{1: 4}]


def test_names_keep_their_dots(tmp_path):
    for name in ("2007.v1", "2007.v2", "2007"):
        save_image(tmp_path / "images" / f"{name}.jpg")
        save_mask(tmp_path / "masks" / f"{name}.png", mask_of(1))
    assert source_of(tmp_path).ids == ("2007", "2007.v1", "2007.v2")


def test_files_of_other_endings_stand_where_one_is_missing(root):
    (root / "masks" / "b.png").unlink()
    (root / "masks" / "b.npy").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.npy cannot be read"):
        _ = source_of(root).class_areas


def test_special_files_are_named_and_not_opened(root):
    (root / "masks" / "b.png").unlink()
    os.mkfifo(root / "masks" / "b.png")
    (root / "images" / "c.jpg").unlink()
    (root / "images" / "c.jpg").mkdir()
    with pytest.raises(ValueError, match=r"^2 of the files .*: .*c\.jpg is a folder, .*b\.png is no ordinary file$"):
        _ = source_of(root).class_areas


def test_many_missing_files_are_counted(root):
    for number in range(2000):
        (root / "images" / f"{number:04}.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"^2,000 of the files .* and 1,995 more$") as error:
        _ = source_of(root).class_areas
    assert len(str(error.value)) < 1500


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
    with pytest.raises(FileNotFoundError, match=rf"^1 of the files .*{part}.b\.{suffix} is missing$"):
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


def test_areas_are_remembered_in_the_cache(root, tmp_path, monkeypatch):
    _ = source_of(root, cache=tmp_path / "cache").class_areas
    monkeypatch.delattr("fewshotseg.data.sources.files.read_mask")  # nothing is read again
    assert source_of(root, cache=tmp_path / "cache").class_areas == [{1: 4, 2: 8}, {1: 4}, {}]


def test_a_mask_of_another_content_is_counted_again_though_size_and_time_are_the_same(root, tmp_path):
    files = [save_mask(root / "masks" / f"{name}.bmp", mask_of(3), palette=False) for name in "abc"]
    for name in "abc":
        (root / "masks" / f"{name}.png").unlink()
    assert source_of(root, cache=tmp_path / "cache").class_areas == [{3: 4}] * 3
    before = files[0].stat()
    save_mask(files[0], mask_of(5), palette=False)
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files[0].stat().st_size == before.st_size
    assert source_of(root, cache=tmp_path / "cache").class_areas == [{5: 4}, {3: 4}, {3: 4}]


def test_sources_travel_to_workers(root):
    copy = pickle.loads(pickle.dumps(source_of(root, class_names={1: "x", 2: "y"})))
    assert copy.class_areas == [{1: 4, 2: 8}, {1: 4}, {}]
    assert dict(copy.class_names) == {1: "x", 2: "y"}


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
