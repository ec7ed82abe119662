"""Names of files: what is found in folders, and where the names in a list lead."""

import os
import pickle

import pytest

from fewshotseg.data import COCOSource, FolderSource, FSS1000Source, VOCSource, write_sbd_masks
from fewshotseg.data.sources.faults import FaultyFilesError, faulty_files, file_fault
from fewshotseg.data.sources.listing import NamedFiles, distinct_ids, files_by_name, one_form, partners, without_ending

COMPOSED, APART = "caf\u00e9", "cafe\u0301"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_ordinary_files_are_told_from_all_others(tmp_path):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    faults = {name: file_fault(tmp_path / name) for name in ("a.jpg", "link.jpg")}
    assert faults == {"a.jpg": "", "link.jpg": ""}
    assert file_fault(tmp_path / "pipe.jpg") == "is no ordinary file"
    assert file_fault(tmp_path / "folder.jpg") == "is a folder, where a file must be"
    for name in ("gone.jpg", "broken.jpg", "loop.jpg", "nul\0.jpg", "x" * 5000, "a.jpg/b.jpg", "\ud800.jpg"):
        assert file_fault(tmp_path / name) == "is missing"


def test_files_that_must_not_be_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.stat", lambda self: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert file_fault(tmp_path) == "cannot be read: permission denied"


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.jpg", "a"), ("a.b.JPEG", "a.b"), ("a.jfif", "a"), ("a.HEIC", "a"), ("2007.v2", "2007.v2"), (".jpg", ".jpg")],
)
def test_only_endings_of_images_are_endings(name, stem):
    assert without_ending(name) == stem


def test_ids_are_as_short_as_they_may_be():
    assert distinct_ids(["x/a.jpg", "x/b.v1.jpg", "x/b.v2.jpg"]) == ["a", "b.v1", "b.v2"]
    assert distinct_ids(["x/a.jpg", "y/a.jpg", "y\\c.jpg"]) == ["x/a", "y/a", "c"]
    assert distinct_ids(["x/a.jpg", "x/a.png", "b.png"]) == ["x/a.jpg", "x/a.png", "b"]
    assert distinct_ids(["x/a.jpg", "./y/a.jpg"], with_folders=True) == ["x/a", "y/a"]
    assert distinct_ids([f"{APART}.jpg"]) == [COMPOSED]
    assert distinct_ids(["a.jpg", "a.jpg"]) == ["a.jpg", "a.jpg"]  # for the caller to refuse


class TestFilesByName:
    def test_all_images_of_one_folder(self, tmp_path):
        touch(tmp_path, "b.JPG", "a.v1.png", ".hidden.jpg", "._b.jpg", "notes.txt", "deep/c.jpg", "__MACOSX/d.jpg")
        found = files_by_name(tmp_path)
        assert found.files == {"a.v1": tmp_path / "a.v1.png", "b": tmp_path / "b.JPG"}
        assert set(found.passed_over) == {tmp_path / "notes.txt", tmp_path / "deep"}
        assert found.faults == []

    def test_folders_of_the_folder(self, tmp_path):
        touch(tmp_path, "b.jpg", "deep/er/c.jpg", "deep/b.jpg", ".git/d.jpg", "deep/@eaDir/e.jpg", "empty.jpg/f")
        (tmp_path / "deep" / "again").symlink_to(tmp_path)  # without end
        found = files_by_name(tmp_path, deep=True)
        assert list(found.files) == ["b", "deep/b", "deep/er/c"]
        assert found.passed_over == [tmp_path / "empty.jpg" / "f"]

    def test_names_are_compared_as_people_read_them(self, tmp_path):
        touch(tmp_path, f"{APART}.jpg")
        assert list(files_by_name(tmp_path).files) == [COMPOSED]
        touch(tmp_path, f"{COMPOSED}.jpg")
        assert len(files_by_name(tmp_path).faults) == 1

    def test_all_repeated_names_are_faults(self, tmp_path):
        touch(tmp_path, "a.jpg", "a.png", "a.JPEG", "b.jpg", "c.jpg", "c.png")
        assert [fault.removeprefix(str(tmp_path)) for fault in files_by_name(tmp_path).faults] == [
            " must hold one file of each name, got a.JPEG and a.jpg and a.png",
            " must hold one file of each name, got c.jpg and c.png",
        ]

    def test_special_files_are_listed_but_not_opened(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert list(files_by_name(tmp_path).files) == ["pipe"]

    def test_folders_that_cannot_be_opened_are_faults(self, tmp_path, monkeypatch):
        touch(tmp_path, "a.jpg", "locked/b.jpg")
        scan = os.scandir

        def refuse(path):
            if str(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        found = files_by_name(tmp_path, deep=True)
        assert found.faults == [f"{tmp_path / 'locked'} cannot be opened: permission denied"]

    def test_there_must_be_a_folder(self, tmp_path):
        touch(tmp_path, "file")
        with pytest.raises(NotADirectoryError, match="file must be a folder, but it is a file"):
            files_by_name(tmp_path / "file")
        with pytest.raises(FileNotFoundError, match="gone must be a folder, but there is none"):
            files_by_name(tmp_path / "gone")


def test_partners(tmp_path):
    files = {"a": tmp_path / "a.JPG", COMPOSED: tmp_path / f"{APART}.png"}
    found = partners(tmp_path, files, ["a", APART, "b", "c"], ".png", others=[tmp_path / "b.npy", tmp_path / "a.txt"])
    assert found == [tmp_path / "a.JPG", tmp_path / f"{APART}.png", tmp_path / "b.npy", tmp_path / "c.png"]


class TestNamedFiles:
    def test_names_are_found_whatever_wrote_them(self, tmp_path):
        touch(tmp_path, f"{APART}/a.jpg", "b/c.jpg", "odd\\name.jpg", f"both/{APART}", f"both/{COMPOSED}")
        files = NamedFiles(tmp_path)
        assert files.find(f"{COMPOSED}\\a.jpg") == tmp_path / APART / "a.jpg"
        assert files.find("b/../b/./c.jpg") == tmp_path / "b" / "c.jpg"
        assert files.find("odd\\name.jpg") == tmp_path / "odd\\name.jpg"
        assert files.find("gone/d.jpg") == tmp_path / "gone" / "d.jpg"
        for name in (APART, COMPOSED):
            assert files.find(f"both/{name}") == tmp_path / "both" / name

    def test_a_relative_folder_stays_relative(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert str(NamedFiles("here").find("a.jpg")) == os.path.join("here", "a.jpg")  # noqa: PTH118
        assert str(NamedFiles(".").find("a.jpg")) == "a.jpg"
        with pytest.raises(ValueError, match="must be a path inside of here"):
            NamedFiles("here").find("../there/a.jpg")

    def test_a_folder_beside_is_not_inside(self, tmp_path):
        touch(tmp_path, "images-2/a.jpg", "images/b.jpg")
        with pytest.raises(ValueError, match="must be a path inside of"):
            NamedFiles(tmp_path / "images").find("../images-2/a.jpg")

    def test_long_names_are_cut_in_messages(self, tmp_path):
        with pytest.raises(ValueError, match="must be a path inside of") as error:
            NamedFiles(tmp_path).find("../" + "x" * 128_000)
        assert len(str(error.value)) < 300


def test_the_error_counts_shows_few_and_keeps_all():
    error = faulty_files("set", [f"{i}\n is bad" for i in range(2000)], "rest")
    assert (
        str(error)
        == r"set has 2,000 faults: 0\n is bad; 1\n is bad; 2\n is bad; 3\n is bad; 4\n is bad; and 1,995 more"
    )
    assert (len(error.faults), error.source) == (2000, "rest")
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(faulty_files("set", ["a is bad"])) == "set has 1 fault: a is bad"
    assert FaultyFilesError("x").faults == ()


def test_one_form():
    assert one_form(APART) == COMPOSED == one_form(COMPOSED)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("images", lambda: FolderSource(None, "masks")),
        ("masks", lambda: FolderSource("images", 5)),
        ("root", lambda: FolderSource.from_root(b"root")),
        ("root", lambda: FSS1000Source(["root"])),
        ("root", lambda: VOCSource(None, split="val")),
        ("annotations", lambda: COCOSource("images", {"images": []})),
        ("images", lambda: COCOSource(None, "instances.json")),
        ("voc_root", lambda: write_sbd_masks("sbd", None)),
    ],
)
def test_paths_are_paths(name, call):
    with pytest.raises(TypeError, match=f"^{name} must be a path, got"):
        call()
