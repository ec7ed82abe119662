import numpy as np
import pytest

from _folders import save_image, save_mask
from fewshotseg.data.sources.faults import FaultyFilesError
from fewshotseg.data.sources.fss1000 import FSS1000Source


def add(root, name, number, white=1):
    """An image of 6 x 4 with ``white`` white columns in the mask."""
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[:, :white] = 255
    save_image(root / name / f"{number}.jpg")
    save_mask(root / name / f"{number}.png", mask, palette=False)


def test_classes_are_numbered_by_name(tmp_path):
    for name in ("zebra", "abacus", "Bell"):
        add(tmp_path, name, 1)
    source = FSS1000Source(tmp_path)
    assert dict(source.class_names) == {1: "Bell", 2: "abacus", 3: "zebra"}
    assert source.ids == ("Bell/1", "abacus/1", "zebra/1")
    assert source.class_areas == [{1: 4}, {2: 4}, {3: 4}]


def test_images_are_in_numerical_order(tmp_path):
    for number in (10, 9, 1, 2):
        add(tmp_path, "abacus", number, white=number // 2)
    source = FSS1000Source(tmp_path)
    assert source.ids == ("abacus/1", "abacus/2", "abacus/9", "abacus/10")
    assert source.class_areas == [{}, {1: 4}, {1: 16}, {1: 20}]


def test_masks_are_the_class_where_bright(tmp_path):
    add(tmp_path, "abacus", 1)
    add(tmp_path, "bell", 1)
    save_mask(tmp_path / "bell" / "1.png", [[0, 127, 128, 255, 3, 200]] * 4, palette=False)
    mask = FSS1000Source(tmp_path).load(1).mask
    assert mask.tolist() == [[0, 0, 2, 2, 0, 2]] * 4


def test_no_class_is_255(tmp_path):
    for number in range(1, 301):
        (tmp_path / f"class {number:03}").mkdir()
    add(tmp_path, "class 254", 1)
    add(tmp_path, "class 255", 1)
    add(tmp_path, "class 300", 1)
    source = FSS1000Source(tmp_path)
    assert [next(iter(areas)) for areas in source.class_areas] == [254, 256, 301]
    assert source.class_names[256] == "class 255"
    assert 255 not in source.class_names
    assert len(source.class_names) == 300
    assert source.load(1).mask.unique().tolist() == [0, 256]


def test_a_class_more_is_noticed(tmp_path):
    add(tmp_path / "set", "bell", 1)
    assert FSS1000Source(tmp_path / "set").class_areas == [{1: 4}]
    (tmp_path / "set" / "abacus").mkdir()  # no file changes, but ids do
    assert FSS1000Source(tmp_path / "set").class_areas == [{2: 4}]


def test_hidden_folders_and_loose_files_are_passed_over(tmp_path):
    add(tmp_path, "bell", 1)
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "bell" / "deep").mkdir()
    (tmp_path / "readme.txt").touch()
    (tmp_path / "bell" / "readme.txt").touch()
    source = FSS1000Source(tmp_path)
    assert (source.ids, source.class_names) == (("bell/1",), {1: "bell"})
    assert source.passed_over == tuple(tmp_path / name for name in ("readme.txt", "bell/deep", "bell/readme.txt"))


def test_an_empty_folder_keeps_its_id_and_is_named(tmp_path):
    add(tmp_path, "bell", 1)
    add(tmp_path, "zebra", 1)
    (tmp_path / "cup").mkdir()
    source = FSS1000Source(tmp_path)
    assert source.class_names == {1: "bell", 2: "cup", 3: "zebra"}
    assert source.class_areas == [{1: 4}, {3: 4}]
    assert source.incomplete == (f"{tmp_path / 'cup'} holds no images",)


def test_photographs_of_other_endings(tmp_path):
    for number, ending in enumerate(["jpeg", "JPG", "jfif", "bmp"], start=1):
        add(tmp_path, "bell", number)
        (tmp_path / "bell" / f"{number}.jpg").rename(tmp_path / "bell" / f"{number}.{ending}")
    source = FSS1000Source(tmp_path)
    assert source.ids == ("bell/1", "bell/2", "bell/3", "bell/4")
    assert source.load(3).image.shape == (3, 4, 6)  # its content is JPEG, whatever its name
    assert source.passed_over == ()


def test_a_mask_is_never_taken_for_its_missing_photograph(tmp_path):
    add(tmp_path, "bell", 1)
    (tmp_path / "bell" / "1.jpg").unlink()
    assert FSS1000Source(tmp_path).images == (tmp_path / "bell" / "1.jpg",)


def test_all_files_of_one_name_are_refused_and_the_rest_can_be_checked(tmp_path):
    for name in ("bell", "cup"):
        add(tmp_path, name, 8)
        save_image(tmp_path / name / "8.JPEG")
    with pytest.raises(FaultyFilesError, match=r"2 faults: .*bell must .* 8\.JPEG and 8\.jpg; .*cup must") as error:
        FSS1000Source(tmp_path)
    assert error.value.source.ids == ("bell/8", "cup/8")


def test_names_are_the_same_on_every_system(tmp_path):
    add(tmp_path, "cafe\u0301", 1)
    source = FSS1000Source(tmp_path)
    assert (source.ids, source.class_names) == (("caf\u00e9/1",), {1: "caf\u00e9"})


def test_missing_partners_are_named(tmp_path):
    add(tmp_path, "bell", 1)
    add(tmp_path, "bell", 2)
    (tmp_path / "bell" / "2.png").unlink()
    source = FSS1000Source(tmp_path)
    assert source.ids == ("bell/1", "bell/2")
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        _ = source.class_areas


def test_empty_folders_are_refused(tmp_path):
    (tmp_path / "bell").mkdir()
    with pytest.raises(ValueError, match="root must hold a folder of images for each class, got"):
        FSS1000Source(tmp_path)
    with pytest.raises(FileNotFoundError):
        FSS1000Source(tmp_path / "nowhere")
