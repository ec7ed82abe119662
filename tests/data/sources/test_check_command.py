"""``fewshotseg check``: what it prints, where and when, and its exit status."""

import os
from pathlib import Path

import pytest
from PIL import Image

from _folders import box, make_coco, make_folder, make_voc, mask_of, save_image, save_mask
from fewshotseg.cli import main
from fewshotseg.data.sources import check as checks


def run(capsys, *arguments):
    """Exit code, standard output and the list of faults."""
    code = main(["check", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert all(line.startswith(("fault: ", "note: ")) for line in err.splitlines())
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
        (masks / "i.png", ""),  # of three channels
    ]
    for fault, (file, problem) in zip(faults, expected, strict=True):
        assert fault.startswith(f"{file} {problem}")
    assert "one channel of 8 bits" in faults[-1]
    assert out.endswith("9 faults in 9 images\n")
    assert counts(out, "1 cat") == (4, 0)  # a, e, g and h


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


def test_broken_annotations_are_named(tmp_path, capsys):
    bad = [box(0, 0, 1, 4, category_id=5) for _ in range(30)]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i in (9, 10)]
    path = make_coco(tmp_path, [*bad, box(0, 0, 1, 4, category_id=1, image_id=10)], images=images)
    (tmp_path / "images" / "10.jpg").unlink()
    code, out, faults = run(capsys, "coco", tmp_path / "images", path)
    assert code == 1
    assert [fault.partition(":")[0] for fault in faults[:-1]] == [f"image 9, annotation {i}" for i in range(30)]
    assert faults[-1].endswith("10.jpg is missing")  # the rest is looked at all the same
    assert out.endswith("31 faults in 1 images\n")


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


def test_special_files_are_named_and_never_opened(root, capsys):
    (root / "images/a.jpg").unlink()
    os.mkfifo(root / "images/a.jpg")
    (root / "masks/b.png").unlink()
    (root / "masks/b.png").mkdir()
    (root / "images/notes.txt").touch()
    code, out, said = run(capsys, "folder", root)
    assert code == 1
    assert said[0] == f"note: files that belong to no image (1): {root / 'images/notes.txt'}"
    assert said[1:] == [
        f"{root / 'images/a.jpg'} is no ordinary file",
        f"{root / 'masks/b.png'} is a folder, where a file must be",
    ]
    assert out.endswith("2 faults in 3 images\n")


def test_white_masks_of_one_class_are_counted_and_said(tmp_path, capsys):
    root = make_folder(tmp_path, {"a": (255,), "b": (), "c": (255, 255)})
    code, out, said = run(capsys, "folder", root)
    assert (code, said[0]) == (1, f"{root / 'masks/b.png'} is empty: no pixel of any class")
    assert said[1:] == ["note: no mask shows a class, so that 255, which is void otherwise, is taken as class 1"]
    assert counts(out, "1 1") == (2, 0)


def test_white_masks_where_classes_show_are_void(tmp_path, capsys):
    root = make_folder(tmp_path, {"a": (255,), "b": (1,), "c": (255, 255)})
    code, out, said = run(capsys, "folder", root)
    advice = "is empty: no pixel of any class; the only values are 0 and 255, and 255 is void"
    assert code == 1
    assert [line.startswith(f"{root / 'masks' / name}.png {advice}") for name, line in zip("ac", said, strict=True)]
    assert counts(out, "1 1") == (1, 0)


def test_white_masks_of_several_classes_are_faults(tmp_path, capsys):
    root = make_folder(tmp_path, {"a": (255,)})
    (root / "classes.csv").write_text("id,name\n1,cat\n2,dog\n")
    code, _, said = run(capsys, "folder", root)
    assert code == 1
    assert "255 is void: store class ids from 1 to 254" in said[0]


def test_faults_are_shown_when_they_are_found(root, capsys, monkeypatch):
    (root / "images/a.jpg").unlink()
    read = checks.read_image

    def look(path):
        assert f"fault: {root / 'images/a.jpg'} is missing\n" in capsys.readouterr().err
        monkeypatch.setattr(checks, "read_image", read)
        return read(path)

    monkeypatch.setattr(checks, "read_image", look)
    assert run(capsys, "folder", root)[0] == 1


def test_an_interrupted_check_shows_what_it_found(root, capsys, monkeypatch):
    (root / "images/a.jpg").unlink()
    read = checks.read_image

    def interrupt(path):
        if path.name == "c.jpg":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(checks, "read_image", interrupt)
    assert main(["check", "folder", str(root)]) == 1
    out, err = capsys.readouterr()
    assert err == f"fault: {root / 'images/a.jpg'} is missing\ninterrupted\n"
    assert counts(out, "1 1") == (2, 0)
    assert out.endswith("1 faults in 2 of 3 images\n")


def test_an_interrupt_alone_is_no_success(root, capsys, monkeypatch):
    monkeypatch.setattr(checks, "read_image", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["check", "folder", str(root)]) == 1
    assert capsys.readouterr().out.endswith("0 faults in 0 of 3 images\n")


def test_empty_class_folders_are_faults(tmp_path, capsys):
    save_image(tmp_path / "bell" / "1.jpg")
    save_mask(tmp_path / "bell" / "1.png", mask_of(255), palette=False)
    (tmp_path / "cup").mkdir()
    code, _, faults = run(capsys, "fss1000", tmp_path)
    assert (code, faults) == (1, [f"{tmp_path / 'cup'} holds no images"])


def test_two_endings_do_not_hide_other_faults(tmp_path, capsys):
    for name in ("bell", "cup"):
        save_image(tmp_path / name / "8.jpg")
        save_mask(tmp_path / name / "8.png", mask_of(255), palette=False)
        save_image(tmp_path / name / "8.JPEG")
    save_image(tmp_path / "cup" / "9.jpg")
    code, out, faults = run(capsys, "fss1000", tmp_path)
    assert code == 1
    assert [fault.split()[0].removeprefix(str(tmp_path)) for fault in faults] == ["/bell", "/cup", "/cup/9.png"]
    assert out.endswith("3 faults in 3 images\n")


def test_names_that_a_terminal_cannot_show_are_spelled_out(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9\n")
    try:
        save_image(tmp_path / name / "1.jpg")
    except OSError:
        pytest.skip("this file system has names of characters only")
    save_mask(tmp_path / name / "2.png", mask_of(255), palette=False)
    _, out, faults = run(capsys, "fss1000", tmp_path)
    assert faults[0] == f"{tmp_path}/caf\\udce9\\n/1.png is missing"
    assert "caf\\udce9" in out


@pytest.mark.data
def test_voc_val(capsys):
    data = os.environ.get("FEWSHOTSEG_DATA")
    if not data or not Path(data, "voc12_val").is_dir():
        pytest.skip("FEWSHOTSEG_DATA does not point at a folder with voc12_val")
    code, out, faults = run(capsys, "folder", Path(data, "voc12_val"))
    assert (code, faults) == (0, [])
    assert [counts(out, f"fold {fold}")[0] for fold in range(4)] == [433, 479, 647, 354]
