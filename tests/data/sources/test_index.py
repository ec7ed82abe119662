import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from _folders import mask_of, save_mask
from fewshotseg.data.sources.index import count_classes, index_masks
from fewshotseg.images import read_mask


@pytest.fixture
def files(tmp_path):
    return [save_mask(tmp_path / "masks" / f"{i}.png", mask_of(*ids)) for i, ids in enumerate([(1, 1, 255), (7,), ()])]


class Reader:
    """Reads the masks of ``files`` and counts how often."""

    def __init__(self, files):
        self.files, self.calls = files, []

    def __call__(self, index):
        self.calls.append(index)
        return read_mask(self.files[index])


def index_with(files, cache, **options):
    reader = Reader(files)
    return index_masks(files, reader, cache=cache, **options), reader.calls


def only_file(folder):
    (path,) = folder.iterdir()
    return path


AREAS = [{1: 8}, {7: 4}, {}]


def test_counts_against_a_loop():
    mask = torch.randint(0, 256, (9, 11), generator=torch.Generator().manual_seed(0))
    expected: dict[int, int] = {}
    for value in mask.flatten().tolist():
        if value not in (0, 255):
            expected[value] = expected.get(value, 0) + 1
    assert count_classes(mask) == expected


@pytest.mark.parametrize("value", [0, 255])
def test_background_and_void_are_no_classes(value):
    assert count_classes(torch.full((3, 3), value)) == {}


def test_second_call_reads_nothing(files, tmp_path):
    assert index_with(files, tmp_path / "cache") == (AREAS, [0, 1, 2])
    assert index_with(files, tmp_path / "cache") == (AREAS, [])


def test_default_is_the_user_cache(files, user_cache):
    index_with(files, None)
    assert only_file(user_cache).suffix == ".json"


def test_without_the_variable_the_cache_is_in_the_home(files, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    index_with(files, None)
    assert only_file(tmp_path / "home" / ".cache" / "fewshotseg").is_file()


def test_a_changed_file_is_counted_again(files, tmp_path):
    index_with(files, tmp_path / "cache")
    save_mask(files[1], mask_of(3, 3, 3))
    assert index_with(files, tmp_path / "cache")[0] == [{1: 8}, {3: 12}, {}]
    only_file(tmp_path / "cache")  # the old counts are replaced


def test_a_touched_file_is_counted_again(files, tmp_path):
    index_with(files, tmp_path / "cache")
    os.utime(files[0], ns=(1, 1))
    assert index_with(files, tmp_path / "cache")[1] == [0, 1, 2]


def test_other_files_and_other_keys_do_not_meet(files, tmp_path):
    assert index_with(files, tmp_path / "cache")[1] == [0, 1, 2]
    assert index_with(files[::-1], tmp_path / "cache") == (AREAS[::-1], [0, 1, 2])
    assert index_with(files[:2], tmp_path / "cache")[1] == [0, 1]
    assert index_with(files, tmp_path / "cache", key="another way to read")[1] == [0, 1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: json.dumps({**json.loads(text), "areas": [1, 2, 3]}),
        lambda text: json.dumps({**json.loads(text), "areas": [{"x": 1}] * 3}),
        lambda text: json.dumps({**json.loads(text), "areas": [{"1": 1}]}),
        lambda text: json.dumps({**json.loads(text), "areas": None}),
        lambda text: json.dumps({**json.loads(text), "areas": [{"1": float("inf")}] * 3}),
        lambda text: json.dumps({**json.loads(text), "areas": [{"1": "many"}] * 3}),
        lambda text: "[" * 100_000,
        lambda text: json.dumps({"areas": json.loads(text)["areas"]}),
    ],
)
def test_a_damaged_cache_is_made_again(files, tmp_path, damage):
    index_with(files, tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    path.write_text(damage(path.read_text()))
    assert index_with(files, tmp_path / "cache") == (AREAS, [0, 1, 2])
    assert index_with(files, tmp_path / "cache") == (AREAS, [])


def test_binary_rubbish_in_the_cache_is_made_again(files, tmp_path):
    index_with(files, tmp_path / "cache")
    only_file(tmp_path / "cache").write_bytes(b"\xff\xfe\x00rubbish")
    assert index_with(files, tmp_path / "cache") == (AREAS, [0, 1, 2])


def test_where_nothing_can_be_written_a_warning_says_so(files, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder is wanted")
    with pytest.warns(UserWarning, match="the index of 3 masks is not cached"):
        assert index_with(files, tmp_path / "cache")[0] == AREAS


@pytest.mark.parametrize("home", ["", "/nonexistent/home"])
def test_without_a_home_a_warning_says_so(files, monkeypatch, home):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    if home:
        monkeypatch.setattr(
            "pathlib.Path.mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "No", home))
        )
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.setattr("pathlib.Path.home", no_home)
    reason = "no" if home else "there is no home folder for a cache: set XDG_CACHE_HOME, or give a folder as cache"
    with pytest.warns(UserWarning, match=f"^the index of 3 masks is not cached: {reason}$"):
        assert index_with(files, None)[0] == AREAS


def test_a_cache_of_another_user_is_passed_over(files, tmp_path, monkeypatch):
    index_with(files, tmp_path / "cache")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    monkeypatch.setattr("fewshotseg.data.sources.index.write_atomically", refuse)
    with pytest.warns(UserWarning, match="the index of 3 masks is not cached: permission denied"):
        assert index_with(files, tmp_path / "cache") == (AREAS, [0, 1, 2])


def test_all_broken_masks_are_named(tmp_path):
    files = [save_mask(tmp_path / f"{i:03}.png", mask_of(1)) for i in range(100)]
    for file in files[1:]:
        file.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"^99 masks cannot be used: .*001\.png cannot be read.*and 94 more$"):
        index_with(files, tmp_path / "cache")


def test_several_threads_may_count_at_once(files, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: index_with(files, tmp_path / "cache")[0], range(8)))
    assert found == [AREAS] * 8
    only_file(tmp_path / "cache")


def test_a_crash_leaves_no_file(files, tmp_path, monkeypatch):
    def crash(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        index_with(files, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_file_is_named(files, tmp_path):
    files[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        index_with(files, tmp_path / "cache")


def test_a_broken_mask_is_named_and_nothing_is_remembered(files, tmp_path):
    files[1].write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"1\.png cannot be read"):
        index_with(files, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_progress_goes_to_standard_error(files, tmp_path, capsys):
    index_with(files, tmp_path / "a")
    assert capsys.readouterr().err == ""
    assert index_with(files, tmp_path / "b", progress=True)[0] == AREAS
    assert "counting classes: 100%" in capsys.readouterr().err


def test_progress_without_tqdm_is_silent(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    assert index_with(files, tmp_path / "cache", progress=True)[0] == AREAS
    assert capsys.readouterr().err == ""
