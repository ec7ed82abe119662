import os
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from _folders import box, make_coco, make_folder, make_voc, mask_of, save_image, save_mask
from fewshotseg.cli.check import main
from fewshotseg.data.sources.check import check_source, describe
from fewshotseg.data.sources.folder import FolderSource
from fewshotseg.data.sources.voc import VOCSource
from fewshotseg.data.splits import COCO_CLASSES, PASCAL_CLASSES


def run(capsys, *arguments):
    """Exit code, standard output and the list of faults."""
    code = main(["check", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert all(line.startswith("fault: ") for line in err.splitlines())
    return code, out, [line.removeprefix("fault: ") for line in err.splitlines()]


def counts(out, title):
    """The two numbers of a row of the table."""
    (line,) = [line for line in out.splitlines() if line.strip().startswith(title)]
    return tuple(int(number) for number in line.split()[-2:])


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set", {"a": (1,), "b": (2, 1), "c": (2, 255)})


def test_a_good_folder(root, capsys):
    code, out, faults = run(capsys, "folder", root)
    assert (code, faults) == (0, [])
    assert out.startswith("3 images with a mask\n")
    assert out.endswith("0 faults in 3 images\n")
    assert (counts(out, "1 1"), counts(out, "2 2")) == ((2, 0), (2, 0))


def test_two_folders(root, capsys):
    assert run(capsys, "folder", root / "images", root / "masks")[0] == 0


def test_every_fault_is_named(root, capsys):
    (root / "classes.csv").write_text("id,name\n1,cat\n2,dog\n")
    images, masks = root / "images", root / "masks"
    (images / "a.jpg").unlink()
    (masks / "b.png").write_bytes(b"")
    save_image(images / "b.jpg")
    whole = save_image(images / "c.jpg", (64, 64)).read_bytes()
    (images / "c.jpg").write_bytes(whole[:500])
    save_image(images / "d.jpg")
    save_image(images / "e.jpg")
    save_mask(masks / "e.png", mask_of(1, 2, size=(6, 5)))
    save_image(images / "f.jpg", mode="L")
    save_mask(masks / "f.png", mask_of(255))
    save_image(images / "g.jpg", mode="CMYK")
    save_mask(masks / "g.png", mask_of(1, 77, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(images / "h.jpg", exif=exif)
    save_mask(masks / "h.png", mask_of(1, 1, 1))
    save_image(images / "i.jpg")
    save_image(masks / "i.png", mode="RGB")
    code, out, faults = run(capsys, "folder", root)
    assert code == 1
    expected = [
        (images / "a.jpg", "is missing"),
        (masks / "b.png", "cannot be read: the file is empty"),
        (images / "c.jpg", "cannot be read"),
        (masks / "d.png", "is missing"),
        (images / "e.jpg", "is 6 x 4 pixels (EXIF orientation applied), which does not fit 6 x 5 of"),
        (masks / "f.png", "is empty: no pixel of any class"),
        (masks / "g.png", "has unexpected pixel values: 3, 77"),
        (images / "h.jpg", "is 4 x 6 pixels (EXIF orientation applied), which does not fit 6 x 4 of"),
        (masks / "i.png", "cannot be read: a mask must have one channel"),
    ]
    for fault, (file, problem) in zip(faults, expected, strict=True):
        assert fault.startswith(f"{file} {problem}")
    assert out.endswith("9 faults in 9 images\n")
    assert counts(out, "1 cat") == (4, 0)  # a, e, g and h


def test_both_files_of_an_image_may_be_at_fault(root):
    (root / "images/a.jpg").unlink()
    (root / "masks/a.png").write_bytes(b"rubbish")
    report = check_source(FolderSource(root / "images", root / "masks"))
    assert [Path(fault.split()[0]).name for fault in report.faults] == ["a.jpg", "a.png"]
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


def test_voc_beside_the_published_totals(tmp_path, capsys):
    voc = make_voc(tmp_path, val=("v1", "v2", "v3"))
    save_mask(voc / "SegmentationClass/v1.png", mask_of(1, 2, 6))
    save_image(voc / "JPEGImages/v2.jpg", (64, 32))
    save_mask(voc / "SegmentationClass/v2.png", [[15] * 64] * 32)
    save_image(voc / "JPEGImages/v3.jpg", (64, 32))
    save_mask(voc / "SegmentationClass/v3.png", [[15] * 63 + [0]] * 32)
    code, out, faults = run(capsys, "voc", tmp_path)
    assert (code, faults) == (0, [])
    assert out.startswith("3 images with a mask; published for PASCAL-5i: 5953 to train, 1449 to test\n")
    assert [counts(out, f"fold {fold}") for fold in range(4)] == [(1, 0), (1, 0), (2, 1), (0, 0)]
    assert [counts(out, name) for name in ("1 aeroplane", "15 person", "20 tvmonitor")] == [(1, 0), (2, 1), (0, 0)]


def test_voc_with_a_class_that_is_none(tmp_path, capsys):
    voc = make_voc(tmp_path)
    save_mask(voc / "SegmentationClass/t1.png", mask_of(21))
    code, _, faults = run(capsys, "voc", tmp_path, "--split", "train")
    assert code == 1
    assert faults == [f"{voc / 'SegmentationClass/t1.png'} has unexpected pixel values: 21"]


def test_coco(tmp_path, capsys):
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=90)])
    code, out, _ = run(capsys, "coco", tmp_path / "images", path, "--cache", tmp_path / "cache")
    assert code == 0
    assert counts(out, "3 brush") == (1, 0)
    assert (tmp_path / "cache").is_dir()


def test_coco_folds_follow_the_layout():
    report = check_source_of_classes([{2: 5000, 6: 3}, {80: 1}])
    text = describe(report, COCO_CLASSES)
    assert "published for COCO-20i: 82081 to train, 40137 to test" in text
    assert [counts(text, f"fold {fold}") for fold in range(4)] == [(0, 0), (1, 1), (0, 0), (1, 0)]
    text = describe(report, COCO_CLASSES, layout="contiguous")
    assert [counts(text, f"fold {fold}") for fold in range(4)] == [(1, 1), (0, 0), (0, 0), (1, 0)]


def check_source_of_classes(areas):
    from fewshotseg.data.sources.check import SourceReport

    return SourceReport(areas, [])


def test_nothing_readable_is_described_too():
    assert counts(describe(check_source_of_classes([]), PASCAL_CLASSES), "fold 0") == (0, 0)


def test_broken_annotations_are_named(tmp_path, capsys):
    path = make_coco(tmp_path, [box(0, 0, 1, 4, category_id=5), box(0, 0, 1, 4, category_id=6)])
    code, _, faults = run(capsys, "coco", tmp_path / "images", path)
    assert code == 1
    assert "annotation 0: KeyError(5); annotation 1: KeyError(6)" in faults[0]


def test_fss1000(tmp_path, capsys):
    save_image(tmp_path / "bell" / "1.jpg")
    save_mask(tmp_path / "bell" / "1.png", mask_of(255), palette=False)
    code, out, _ = run(capsys, "fss1000", tmp_path)
    assert code == 0
    assert counts(out, "1 bell") == (1, 0)


@pytest.mark.parametrize("kind", ["folder", "voc", "fss1000"])
def test_a_data_set_that_is_not_there_is_a_fault(tmp_path, capsys, kind):
    code, _, faults = run(capsys, kind, tmp_path / "nowhere")
    assert code == 1
    assert "nowhere" in faults[0]


@pytest.mark.parametrize("arguments", [[], ["check"], ["check", "imagenet", "x"], ["check", "voc"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m fewshotseg.data" in capsys.readouterr().err


def test_as_a_module(root, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fewshotseg.data", "check", "folder", str(root)])
    monkeypatch.delitem(sys.modules, "fewshotseg.cli.check")
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("fewshotseg.data", run_name="__main__")
    assert exit_.value.code == 0
    assert "0 faults in 3 images" in capsys.readouterr().out


def test_a_list_shorter_than_its_masks_is_no_fault(tmp_path):
    make_voc(tmp_path)
    assert check_source(VOCSource(tmp_path, split="val")).faults == []


@pytest.mark.data
def test_voc_val(capsys):
    data = os.environ.get("FEWSHOTSEG_DATA")
    if not data or not Path(data, "voc12_val").is_dir():
        pytest.skip("FEWSHOTSEG_DATA does not point at a folder with voc12_val")
    code, out, faults = run(capsys, "folder", Path(data, "voc12_val"))
    assert (code, faults) == (0, [])
    assert [counts(out, f"fold {fold}")[0] for fold in range(4)] == [433, 479, 647, 354]
