"""Annotation files as tools write them: what is read, and what is refused in a sentence."""

import json
import os
import re
import subprocess
import sys

import pytest

from fewshotseg.data.sources.annotations import as_id, read_instances

POLYGON = [[0, 0, 4, 0, 4, 4, 0, 4]]
IMAGES = [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}]
CATEGORIES = [{"id": 3, "name": "cup"}, {"id": 1, "name": "dog"}]
ANNOTATIONS = [{"id": 8, "image_id": 1, "category_id": 3, "segmentation": POLYGON}]


def content(**lists):
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS, **lists}


def read(tmp_path, data):
    path = tmp_path / "file.json"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return read_instances(path)


def refusal(tmp_path, data):
    with pytest.raises(ValueError, match=r"file\.json ") as error:
        read(tmp_path, data)
    assert len(str(error.value)) < 600
    return str(error.value).partition("file.json ")[2]


def test_what_is_read(tmp_path):
    instances = read(tmp_path, content())
    assert list(instances.categories.items()) == [(1, "dog"), (3, "cup")]
    (picture,) = instances.pictures
    assert (picture.id, picture.file_name, picture.size) == (1, "a.jpg", (4, 6))
    assert picture.annotations == ANNOTATIONS
    assert instances.faults == []
    assert len(instances.digest) == 12


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(tmp_path, encoding):
    text = json.dumps(content(categories=[{"id": 3, "name": "café"}]), ensure_ascii=False)
    assert read(tmp_path, text.encode(encoding)).categories == {3: "café"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read as JSON: the file is empty"),
        (b"\xef\xbb\xbf", "cannot be read as JSON: Expecting value in line 1, column 1"),
        (b'{"images": [}', "cannot be read as JSON: Expecting value in line 1, column 13"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)), "cannot be read as JSON: it is not text"),
        ('{"images": "caf\u00e9"}'.encode("cp1252"), "cannot be read as JSON: it is not text in UTF-8 or UTF-16"),
        (b"[" * 200_000, "cannot be read as JSON: "),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read as JSON: "),
        ([], "must hold an object with images, categories and annotations, got a list"),
        (None, "must hold an object with images, categories and annotations, got null"),
        ("text", "must hold an object with images, categories and annotations, got a string"),
        ({}, "must have the lists images, categories and annotations, got an empty object"),
        (
            {"version": 5, "shapes": []},
            "must have the lists images, categories and annotations, got 'version', 'shapes'",
        ),
        ({str(i) * 999: i for i in range(999)}, "must have the lists images, categories and annotations, got "),
        (content(annotations={"8": {}}), "must have the lists .* got an object as annotations"),
        (content(images="a.jpg"), "must have the lists .* got a string as images"),
        (content(categories=None), "must have the lists .* got null as categories"),
        (content(categories=True), "must have the lists .* got true or false as categories"),
    ],
    ids=[f"file {i}" for i in range(17)],
)
def test_other_files_are_refused(tmp_path, data, reason):

    assert re.match(reason, refusal(tmp_path, data))


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"pipe\.json is no ordinary file"):
        read_instances(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="is a folder, where a file must be"):
        read_instances(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.json is missing"):
        read_instances(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((3, 3), ("3", 3), (3.0, 3), ("-3", -3), ("0", 0), (0, 0), ("03", "03"), ("5f3a", "5f3a"), ("1_0", "1_0")),
        *((None, None), ("", None), (True, None), (1.5, None), (float("nan"), None), (float("inf"), None), ([3], None)),
    ],
)
def test_ids(value, expected):
    assert as_id(value) == expected
    assert type(as_id(value)) is type(expected)


def test_ids_may_be_strings_in_one_place_and_numbers_in_another(tmp_path):
    images = [{**IMAGES[0], "id": "1", "height": "4", "width": 6.0}, {**IMAGES[0], "id": "x1"}]
    annotations = [{**ANNOTATIONS[0], "image_id": image} for image in (1, "1", "x1", 1.0)]
    categories = [{"id": str(number), "name": str(number)} for number in (2, 10, "b", "a", 1)]
    instances = read(tmp_path, content(images=images, annotations=annotations, categories=categories))
    assert instances.faults == []
    assert [(p.id, len(p.annotations), p.size) for p in instances.pictures] == [(1, 3, (4, 6)), ("x1", 1, (4, 6))]
    assert list(instances.categories) == [1, 2, 10, "a", "b"]


def test_entries_that_stand_there_twice_count_once(tmp_path):
    instances = read(tmp_path, content(images=IMAGES * 2, categories=CATEGORIES * 2, annotations=ANNOTATIONS * 2))
    assert instances.faults == []
    assert [len(picture.annotations) for picture in instances.pictures] == [2]  # drawn twice, the same pixels


@pytest.mark.parametrize(
    ("lists", "faults"),
    [
        ({"images": [*IMAGES, {**IMAGES[0], "file_name": "b.jpg"}]}, ["image 1 must stand there once, got 2 entries"]),
        ({"images": [*IMAGES, {**IMAGES[0], "height": 5}]}, ["image 1 must stand there once"]),
        (
            {"categories": [*CATEGORIES, {"id": "3", "name": "mug"}]},
            ["category 3 must have one name, got 'cup' and 'mug'"],
        ),
        ({"categories": [{"name": "cup"}]}, ["a category must have an id, got {'name': 'cup'}"]),
        ({"categories": [{"id": 3}]}, ["category 3 must have a name, got None"]),
        (
            {"categories": [5, "cup"]},
            ["entry 1 of categories must be an object, got a number", "entry 2 of categories"],
        ),
        ({"images": [*IMAGES, {"file_name": "b.jpg"}]}, ["an image must have an id, got {'file_name': 'b.jpg'}"]),
        ({"images": [*IMAGES, None, []]}, ["entry 2 of images must be an object, got null", "entry 3 of images"]),
        ({"images": [{"id": 1, "file_name": "a.jpg"}]}, ["image 1 must have a height and a width of at least 1"]),
        (
            {"images": [{**IMAGES[0], "width": 0}]},
            ["image 1 must have a height and a width of at least 1, got 4 and 0"],
        ),
        ({"images": [{**IMAGES[0], "width": -6}]}, ["image 1 must have a height and a width of at least 1"]),
        ({"images": [{**IMAGES[0], "width": "wide"}]}, ["image 1 must have a height and a width of at least 1"]),
        ({"images": [{**IMAGES[0], "width": float("nan")}]}, ["image 1 must have a height and a width of at least 1"]),
        (
            {"images": [{**IMAGES[0], "width": 10**12}]},
            ["image 1 has 1000000000000 x 4 pixels, more than PIL.Image.MAX"],
        ),
        ({"images": [{**IMAGES[0], "width": 10**40}]}, ["image 1 has 100"]),
        (
            {"annotations": [{**ANNOTATIONS[0], "image_id": 5}]},
            ["annotation 8: image_id must be the id of an image that"],
        ),
        (
            {"annotations": [{"id": "z9"}]},
            ["annotation 'z9': image_id must be the id of an image that the file lists, got"],
        ),
        ({"annotations": [{"iscrowd": "yes"}]}, ["an annotation without id: iscrowd must be 0 or 1, got 'yes'"]),
        ({"annotations": [3, *ANNOTATIONS]}, ["entry 1 of annotations must be an object, got a number"]),
    ],
    ids=[f"list {i}" for i in range(19)],
)
def test_faults_are_named(tmp_path, lists, faults):
    found = read(tmp_path, content(**lists)).faults
    assert len(found) == len(faults)
    for sentence, start in zip(found, faults, strict=True):
        assert sentence.startswith(start)
        assert len(sentence) < 300


def test_images_that_nothing_is_drawn_on_may_lack_anything(tmp_path):
    images = [*IMAGES, {"id": 2}, {"id": 3, "file_name": 5}, {"id": 3, "width": "x"}]
    crowd = {"image_id": 77, "iscrowd": 1}
    instances = read(tmp_path, content(images=images, annotations=[*ANNOTATIONS, crowd]))
    assert instances.faults == []
    assert [picture.id for picture in instances.pictures] == [1]


def test_no_file_ends_the_process_or_takes_its_memory(tmp_path):
    """Polygons and sizes that no image has, each in a process with little more memory than its imports."""
    code = (
        "import json, resource, sys\n"
        "from fewshotseg.data import COCOSource\n"
        "import pycocotools.mask\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)\n"
        "for name in sys.argv[2:]:\n"
        "    try: print('read', COCOSource(sys.argv[1], name, cache=sys.argv[1]).ids)\n"
        "    except ValueError as error: print('refused', error)\n"
    )
    polygons = [[float("nan")] * 6, [float("inf")] * 6, [-1e9, -1e9, 1e9, 0, 0, 1e9], [0, 0, 2e9, 0, 2e9, 2e9]]
    polygons += [[0, 0, 6, 4] * 100_000, [1e300] * 6, [10**400] * 6]
    contents = [content(annotations=[{**ANNOTATIONS[0], "segmentation": [polygon]}]) for polygon in polygons]
    contents += [content(images=[{**IMAGES[0], "height": 10**9, "width": side}]) for side in (1, 10**9)]
    paths = []
    for number, each in enumerate(contents):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(each))
    command = [sys.executable, "-c", code, str(tmp_path), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refused"] * len(paths)
