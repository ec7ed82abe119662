import numpy as np
import pytest
from scipy.io import savemat

from _folders import make_voc, mask_of, save_mask
from fewshotseg.data import voc as voc_module
from fewshotseg.data.sources.voc import VOCSource, write_sbd_masks
from fewshotseg.data.splits import PASCAL_CLASSES


def save_sbd(root, masks):
    """``cls/*.mat`` as SBD stores masks: a struct of one element."""
    (root / "cls").mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": np.asarray(mask), "CategoriesPresent": [1]}})
    return root


@pytest.fixture
def voc(tmp_path):
    """SBD has masks of all but ``t1``; classification trains on ``s1``, ``t2`` and an image without mask."""
    folder = make_voc(tmp_path, sbd=("s1", "s2", "none"), main_train=("s1", "t2", "none"))
    save_sbd(tmp_path / "sbd", {name: mask_of(3) for name in ("t2", "v1", "s1", "s2")})
    return folder


@pytest.fixture
def augmented(voc, tmp_path):
    write_sbd_masks(tmp_path / "sbd", voc)
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
    folder = augmented / "SegmentationClassAug"
    assert sorted(file.stem for file in folder.iterdir()) == ["s1", "s2", "t1", "t2", "v1"]
    assert not (augmented / "SegmentationClassAug.part").exists()
    source = VOCSource(augmented, split="trainaug")
    assert source.ids == ("t1", "t2", "s1", "s2")
    assert source.class_areas == [{20: 4}, {20: 4}, {3: 4}, {3: 4}]  # VOC's own masks come first
    assert np.array_equal(source.load(2).mask.numpy(), mask_of(3))
    assert VOCSource(augmented, split="val").masks[0].parent == folder


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
    with pytest.raises(ValueError, match="images must not be empty"):
        VOCSource(voc, split=tmp_path / "empty.txt")


@pytest.mark.parametrize("place", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_sbd_may_be_unpacked_anywhere(tmp_path, place):
    voc = make_voc(tmp_path)
    save_sbd(tmp_path / "sbd" / "benchmark_RELEASE" / "dataset", {"s1": mask_of(1)})
    assert write_sbd_masks(tmp_path / "sbd" / place, tmp_path) == voc / "SegmentationClassAug"


def test_masks_that_exist_stay(augmented, tmp_path):
    save_mask(augmented / "SegmentationClassAug" / "s1.png", mask_of(9))
    write_sbd_masks(tmp_path / "sbd", augmented)
    assert VOCSource(augmented, split="trainaug").class_areas[2] == {9: 4}


def test_an_interrupted_run_goes_on(voc, tmp_path, monkeypatch):
    written = []

    def write(path, mask):
        if written:
            raise KeyboardInterrupt
        written.append(path.stem)
        save_mask(path, mask)

    with monkeypatch.context() as patch:
        patch.setattr(voc_module, "write_mask", write)
        with pytest.raises(KeyboardInterrupt):
            write_sbd_masks(tmp_path / "sbd", voc)
    assert not (voc / "SegmentationClassAug").exists()
    monkeypatch.setattr(voc_module, "write_mask", lambda path, mask: (written.append(path.stem), save_mask(path, mask)))
    write_sbd_masks(tmp_path / "sbd", voc)
    assert written == ["s1", "s2"]  # the masks of t2 and v1 are VOC's
    assert len(list((voc / "SegmentationClassAug").iterdir())) == 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"rubbish" * 99, "cannot be read"),
        ({"other": 1}, "cannot be read as a mask of SBD: KeyError"),
        (
            {"GTcls": {"Segmentation": np.full((4, 6), 21, dtype=np.uint8)}},
            "must hold a uint8 mask with classes 0 to 20",
        ),
        ({"GTcls": {"Segmentation": np.zeros((4, 6))}}, "must hold a uint8 mask .* got float64"),
        ({"GTcls": {"Segmentation": np.zeros((4, 6, 3), dtype=np.uint8)}}, "must hold .* of shape"),
    ],
)
def test_broken_files_of_sbd_are_named(voc, tmp_path, content, reason):
    path = tmp_path / "sbd" / "cls" / "s2.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, content)
    with pytest.raises(ValueError, match=rf"s2\.mat {reason}"):
        write_sbd_masks(tmp_path / "sbd", voc)
    assert not (voc / "SegmentationClassAug").exists()


def test_missing_sbd_is_named(voc, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"one of these folders must exist: .*cls"):
        write_sbd_masks(tmp_path / "nowhere", voc)
    (tmp_path / "empty" / "cls").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"holds 3 masks of VOC and .* 0 of SBD"):
        write_sbd_masks(tmp_path / "empty", voc)


def test_without_scipy_it_says_what_to_install(voc, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        write_sbd_masks(tmp_path / "sbd", voc)
