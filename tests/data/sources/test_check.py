from pathlib import Path

import pytest
from PIL import Image

from _folders import make_folder, make_voc, mask_of, save_image, save_mask
from fewshotseg.data.sources.check import check_source, describe
from fewshotseg.data.sources.folder import FolderSource
from fewshotseg.data.sources.voc import VOCSource
from fewshotseg.data.splits import COCO_CLASSES, PASCAL_CLASSES


def counts(out, title):
    """The two numbers of a row of the table."""
    (line,) = [line for line in out.splitlines() if line.strip().startswith(title)]
    return tuple(int(number) for number in line.split()[-2:])


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set", {"a": (1,), "b": (2, 1), "c": (2, 255)})


def test_both_files_of_an_image_may_be_at_fault(root):
    (root / "images/a.jpg").unlink()
    (root / "masks/a.png").write_bytes(b"rubbish")
    report = check_source(FolderSource(root / "images", root / "masks"))
    assert [Path(fault.split()[0]).name for fault in report.faults] == ["a.jpg", "a.png"]
    assert report.remarks == []
    assert report.areas == [{1: 4, 2: 4}, {2: 4}]


def test_without_names_no_value_is_unexpected(root):
    save_mask(root / "masks/a.png", mask_of(200))
    assert check_source(FolderSource(root / "images", root / "masks")).faults == []


def test_oversized_files_are_named(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    save_image(root / "images/a.jpg", (6, 6))
    report = check_source(FolderSource(root / "images", root / "masks"))
    assert len(report.faults) == 1
    assert "a.jpg has more than PIL.Image.MAX_IMAGE_PIXELS = 30 pixels" in report.faults[0]


def test_checking_leaves_no_index_behind(root, user_cache):
    check_source(FolderSource(root / "images", root / "masks"))
    assert not user_cache.exists()


def test_coco_folds_follow_the_layout():
    report = check_source_of_classes([{2: 5000, 6: 3}, {80: 1}])
    text = describe(report, COCO_CLASSES)
    assert "published for COCO-20i: 82081 to train, 40137 to test" in text
    assert [counts(text, f"fold {fold}") for fold in range(4)] == [(0, 0), (1, 1), (0, 0), (1, 0)]
    text = describe(report, COCO_CLASSES, layout="contiguous")
    assert [counts(text, f"fold {fold}") for fold in range(4)] == [(1, 1), (0, 0), (0, 0), (1, 0)]


def check_source_of_classes(areas):
    from fewshotseg.data.sources.check import SourceReport

    return SourceReport(areas, [], [])


def test_nothing_readable_is_described_too():
    assert counts(describe(check_source_of_classes([]), PASCAL_CLASSES), "fold 0") == (0, 0)


def test_a_list_shorter_than_its_masks_is_no_fault(tmp_path):
    make_voc(tmp_path)
    assert check_source(VOCSource(tmp_path, split="val")).faults == []
