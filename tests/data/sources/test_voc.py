import numpy as np
import pytest

from _folders import make_voc, mask_of, save_image, save_mask
from fewshotseg.data.sources.voc import VOCSource
from fewshotseg.data.splits import PASCAL_CLASSES


@pytest.fixture
def voc(tmp_path):
    """SBD has masks of all but ``t1``; classification trains on ``s1``, ``t2`` and an image without mask."""
    return make_voc(tmp_path, sbd=("s1", "s2", "none"), main_train=("s1", "t2", "none"))


@pytest.fixture
def augmented(voc):
    """The masks of both: VOC's own show class 20, SBD's class 3."""
    for name in ("t1", "t2", "v1"):
        save_mask(voc / "SegmentationClassAug" / f"{name}.png", mask_of(20, 255))
    for name in ("s1", "s2"):
        save_mask(voc / "SegmentationClassAug" / f"{name}.png", mask_of(3))
    return voc


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_root_may_be_a_folder_above(voc, tmp_path, place):
    source = VOCSource(tmp_path / place, split="val")
    assert source.ids == ("v1",)
    assert source.images == (voc / "JPEGImages" / "v1.jpg",)
    assert source.masks == (voc / "SegmentationClass" / "v1.png",)
    assert dict(source.class_names) == PASCAL_CLASSES
    assert source.class_areas == [{20: 4}]
    assert np.array_equal(source.load(0).mask.numpy(), mask_of(20, 255))


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"one of these folders must exist: .*VOCdevkit.VOC2012.JPEGImages"):
        VOCSource(tmp_path, split="val")


def test_lists_of_voc(voc):
    assert VOCSource(voc, split="train").ids == ("t1", "t2")


def test_splits_with_sbd_need_its_masks(voc):
    for split in ("pfenet", "trainaug"):
        with pytest.raises(
            ValueError, match=f"split '{split}' needs .*SegmentationClassAug, which write_sbd_masks makes"
        ):
            VOCSource(voc, split=split)


def test_masks_of_both(augmented):
    source = VOCSource(augmented, split="trainaug")
    assert source.ids == ("t1", "t2", "s1", "s2")
    assert source.class_areas == [{20: 4}, {20: 4}, {3: 4}, {3: 4}]
    assert VOCSource(augmented, split="val").masks[0].parent == augmented / "SegmentationClassAug"


def test_hidden_files_are_no_images(augmented):
    (augmented / "SegmentationClassAug" / "._s1.png").write_bytes(b"of macOS")
    assert VOCSource(augmented, split="trainaug").ids == ("t1", "t2", "s1", "s2")


def test_pfenet_trains_on_voc_and_the_part_of_sbd_in_the_list_for_classification(augmented):
    assert VOCSource(augmented, split="pfenet").ids == ("t1", "t2", "s1")


def test_training_never_meets_val(augmented):
    (augmented / "ImageSets" / "Main" / "train.txt").write_text("s1\nv1\n")
    for split in ("pfenet", "trainaug"):
        assert "v1" not in VOCSource(augmented, split=split).ids


def test_a_list_of_that_name_comes_first(augmented):
    (augmented / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("s2\n")
    assert VOCSource(augmented, split="trainaug").ids == ("s2",)


@pytest.mark.parametrize(
    "text",
    [
        "s2\nt1\ns2\n",
        "JPEGImages/s2.jpg SegmentationClassAug/s2.png\r\nJPEGImages/t1.jpg SegmentationClassAug/t1.png\r\n",
        "/JPEGImages/s2.jpg /SegmentationClassAug/s2.png\n\n/JPEGImages/t1.jpg /SegmentationClassAug/t1.png",
        "JPEGImages\\s2.jpg SegmentationClassAug\\s2.png\r\nJPEGImages\\t1.jpg\r\n",
        "../../elsewhere/s2\n/t1\n",
        "\ufeffs2\nt1",
        "s2  1\nt1 -1\ns2 0\n",
    ],
)
def test_lists_in_files(augmented, tmp_path, text):
    (tmp_path / "my_list.txt").write_text(text)
    assert VOCSource(augmented, split=tmp_path / "my_list.txt").ids == ("s2", "t1")
    assert VOCSource(augmented, split=str(tmp_path / "my_list.txt")).ids == ("s2", "t1")


@pytest.mark.parametrize("split", ["valid", "/nowhere/list.txt"])
def test_unknown_splits_are_refused(voc, split):
    with pytest.raises(ValueError, match=f"split must be 'val', 'pfenet', 'trainaug', .* got '{split}'"):
        VOCSource(voc, split=split)


def test_empty_lists_are_refused(voc, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"split must name images, got .*empty\.txt', which names none"):
        VOCSource(voc, split=tmp_path / "empty.txt")


@pytest.mark.parametrize("ending", ["jpg", "JPG", "png", "jfif"])
@pytest.mark.parametrize("name", ["img.v1", "img.v2.1", "two words", "cafe\u0301"])
def test_images_of_ones_own_may_have_any_name(voc, tmp_path, name, ending):
    for number in (1, 2):
        save_image(voc / "JPEGImages" / f"{name}.{number}.{ending}") if ending != "jfif" else save_image(
            voc / "JPEGImages" / f"{name}.{number}.jpg"
        ).rename(voc / "JPEGImages" / f"{name}.{number}.jfif")
        save_mask(voc / "SegmentationClass" / f"{name}.{number}.png", mask_of(number))
    for lines in (
        [f"{name}.1", f"{name}.2"],
        [f"JPEGImages/{name}.{i}.{ending} SegmentationClass/{name}.{i}.png" for i in (1, 2)],
    ):
        (tmp_path / "own.txt").write_text("\n".join(lines), encoding="utf-16")
        source = VOCSource(voc, split=tmp_path / "own.txt")
        assert source.ids == tuple(f"{name}.{i}".replace("e\u0301", "\u00e9") for i in (1, 2))
        assert source.class_areas == [{1: 4}, {2: 4}]
        assert source.load(1).image.shape == (3, 4, 6)


def test_the_photographs_of_voc_come_before_others_of_their_names(voc):
    save_image(voc / "JPEGImages" / "v1.bmp", size=(9, 9))
    assert VOCSource(voc, split="val").images == (voc / "JPEGImages" / "v1.jpg",)


def test_lists_that_are_no_text_are_refused(voc, tmp_path):
    (tmp_path / "list.txt").write_bytes("caf\u00e9".encode("cp1252"))
    with pytest.raises(ValueError, match=r"list\.txt must be text in UTF-8"):
        VOCSource(voc, split=tmp_path / "list.txt")
