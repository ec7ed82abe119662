import os

import numpy as np
import pytest
from scipy.io import savemat

from _folders import make_voc, mask_of, save_mask
from fewshotseg.data.sources import sbd as sbd_module
from fewshotseg.data.sources.faults import FaultyFilesError
from fewshotseg.data.sources.sbd import write_sbd_masks
from fewshotseg.data.sources.voc import VOCSource


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


def test_masks_of_both(augmented):
    folder = augmented / "SegmentationClassAug"
    assert sorted(file.stem for file in folder.iterdir()) == ["s1", "s2", "t1", "t2", "v1"]
    assert not (augmented / "SegmentationClassAug.part").exists()
    source = VOCSource(augmented, split="trainaug")
    assert source.ids == ("t1", "t2", "s1", "s2")
    assert source.class_areas == [{20: 4}, {20: 4}, {3: 4}, {3: 4}]  # VOC's own masks come first
    assert np.array_equal(source.load(2).mask.numpy(), mask_of(3))
    assert VOCSource(augmented, split="val").masks[0].parent == folder


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
        patch.setattr(sbd_module, "write_mask", write)
        with pytest.raises(KeyboardInterrupt):
            write_sbd_masks(tmp_path / "sbd", voc)
    assert not (voc / "SegmentationClassAug").exists()
    monkeypatch.setattr(sbd_module, "write_mask", lambda path, mask: (written.append(path.stem), save_mask(path, mask)))
    write_sbd_masks(tmp_path / "sbd", voc)
    assert written == ["s1", "s2"]  # the masks of t2 and v1 are VOC's
    assert len(list((voc / "SegmentationClassAug").iterdir())) == 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"rubbish" * 99, "cannot be read"),
        ({"other": 1}, "cannot be read as a mask of SBD$"),
        (
            {"GTcls": {"Segmentation": np.full((4, 6), 99, dtype=np.uint8)}},
            "must hold classes .* to 20, got class 99",
        ),
        ({"GTcls": {"Segmentation": np.zeros((4, 6))}}, "must hold a mask of uint8 pixels, got float64"),
        ({"GTcls": {"Segmentation": np.zeros((4, 6, 3), dtype=np.uint8)}}, "must hold a mask .* of shape"),
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
    with pytest.raises(ImportError, match=r'pip install "fewshotseg\[train\]"'):
        write_sbd_masks(tmp_path / "sbd", voc)


def test_all_broken_files_are_named_and_the_others_kept(voc, tmp_path):
    folder = tmp_path / "sbd" / "cls"
    for name in ("b1", "b2", "b3"):
        (folder / f"{name}.mat").write_bytes(b"rubbish" * 99)
    (folder / "._s1.mat").write_bytes(b"of macOS")
    os.mkfifo(folder / "pipe.mat")
    with pytest.raises(FaultyFilesError) as error:
        write_sbd_masks(tmp_path / "sbd", voc)
    assert [fault.partition(" ")[0].rpartition("/")[2] for fault in error.value.faults] == [
        "b1.mat",
        "b2.mat",
        "b3.mat",
        "pipe.mat",
    ]
    assert sorted(file.stem for file in (voc / "SegmentationClassAug.part").iterdir()) == ["s1", "s2", "t1", "t2", "v1"]


def test_two_processes_may_make_them_at_once(voc, tmp_path, monkeypatch):
    write = sbd_module.write_mask

    def finish_elsewhere(path, mask):
        monkeypatch.setattr(sbd_module, "write_mask", write)
        write_sbd_masks(tmp_path / "sbd", voc)  # another process is faster
        write(path, mask)

    monkeypatch.setattr(sbd_module, "write_mask", finish_elsewhere)
    assert write_sbd_masks(tmp_path / "sbd", voc) == voc / "SegmentationClassAug"
    assert len(list((voc / "SegmentationClassAug").iterdir())) == 5
    assert not (voc / "SegmentationClassAug.part").exists()
