import hashlib
import json
import os

import pytest

from fewshotseg.data.episodes.lists import EpisodeSpec, episodes_hash, read_episodes, write_episodes

SPECS = [EpisodeSpec(3, "b", ("a", "ö")), EpisodeSpec(12, "a", ("b", "c"))]


def test_lists_come_back_as_they_were_written(tmp_path):
    for specs in (SPECS, [], SPECS * 500):
        write_episodes(tmp_path / "episodes.json", specs)
        assert read_episodes(str(tmp_path / "episodes.json")) == specs
    assert [file.name for file in tmp_path.iterdir()] == ["episodes.json"]


def test_the_file_is_plain_json(tmp_path):
    write_episodes(tmp_path / "episodes.json", SPECS)
    content = json.loads((tmp_path / "episodes.json").read_text(encoding="utf-8"))
    assert content["episodes"] == [[3, "b", ["a", "ö"]], [12, "a", ["b", "c"]]]
    assert content["sha256"] == episodes_hash(SPECS)


def test_the_hash_is_that_of_the_canonical_text():
    text = r'[[3,"b",["a","\u00f6"]],[12,"a",["b","c"]]]'
    assert episodes_hash(SPECS) == hashlib.sha256(text.encode()).hexdigest()
    assert episodes_hash(iter(SPECS)) == episodes_hash(SPECS)


def test_any_change_changes_the_hash():
    first, second = SPECS
    variants = [
        SPECS,
        [second, first],
        [first],
        [first, second._replace(class_id=13)],
        [first, second._replace(query="d")],
        [first, second._replace(supports=("c", "b"))],
        [first, second._replace(supports=("b",))],
    ]
    assert len({episodes_hash(specs) for specs in variants}) == len(variants)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "episodes.json"
    write_episodes(path, SPECS)
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"episodes\.json must be a list of episodes"):
            read_episodes(path)


def test_a_file_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "episodes.json"
    write_episodes(path, SPECS)
    path.write_text(path.read_text(encoding="utf-8").replace('12, "a"', '11, "a"'), encoding="utf-8")
    with pytest.raises(ValueError, match="the episodes it was written with, got another hash"):
        read_episodes(path)


@pytest.mark.parametrize(
    "episodes",
    [None, 3, [3], [[3, "b"]], [["3", "b", ["a"]]], [[3, 4, ["a"]]], [[3, "b", "a"]], [[3, "b", [1]]], [{}]],
)
def test_other_contents_are_refused(tmp_path, episodes):
    path = tmp_path / "episodes.json"
    path.write_text(json.dumps({"format": "fewshotseg episodes 1", "sha256": "", "episodes": episodes}))
    with pytest.raises(ValueError, match="must be a list of episodes"):
        read_episodes(path)


@pytest.mark.parametrize("content", [b"[]", b"7", b"{}", b'{"format": "else"}', b"\xff\xfe\x00", b""])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "episodes.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be a list of episodes"):
        read_episodes(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 100_000,
        b"[" * 100_000,
        b'{"format": "' + b"x" * 100_000 + b'"}',
        json.dumps({"format": "fewshotseg episodes 1", "episodes": [["x" * 100_000]]}).encode(),
        json.dumps({"format": "fewshotseg episodes 1", "episodes": [[1, "x", [9] * 100_000]]}).encode(),
        json.dumps({"format": "fewshotseg episodes 1", "episodes": []}).encode(),
        json.dumps({"format": "fewshotseg episodes 1", "episodes": [], "sha256": "0" * 100_000}).encode(),
        json.dumps({"format": "fewshotseg episodes 1", "episodes": [[255, "a", ["b"]]]}).encode(),
        json.dumps({"format": "fewshotseg episodes 1", "episodes": [[True, "a", ["b"]]]}).encode(),
        b"1" * 10_000,
    ],
)
def test_what_is_wrong_is_said_in_one_short_sentence(tmp_path, content):
    path = tmp_path / "episodes.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"episodes\.json must") as caught:
        read_episodes(path)
    assert len(str(caught.value)) < 300 + len(str(path))
    assert "\n" not in str(caught.value)


def test_no_file_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=r"must be a list of episodes .* got a folder or a special file"):
            read_episodes(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        read_episodes(tmp_path / "missing.json")


def test_a_list_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "episodes.json"
    write_episodes(path, SPECS)
    with pytest.raises(TypeError):
        write_episodes(path, [EpisodeSpec(1, object(), ("a",))])
    assert read_episodes(path) == SPECS
    assert [file.name for file in tmp_path.iterdir()] == ["episodes.json"]
