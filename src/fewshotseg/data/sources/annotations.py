"""Reads annotation files in COCO's format, and finds their faults."""

import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from fewshotseg._checks import name_some, shown
from fewshotseg.data.sources.faults import check_file

Json = dict[str, Any]
Id = int | str
"""The id of an image, category or annotation; a string of digits is converted to its number."""


class Picture(NamedTuple):
    """An image with its annotations.

    Attributes:
        id: The id of the image.
        file_name: The entry of the file, unchecked; it may not be a string, or lead outside of the folder.
        size: Height and width.
        annotations: The entries of the file, in order.
    """

    id: Id
    file_name: object
    size: tuple[int, int]
    annotations: list[Json]


class Instances(NamedTuple):
    """The content of an annotation file.

    Attributes:
        categories: Category id -> name, ids ascending, numbers before strings.
        pictures: The images that have annotations, by ascending id.
        faults: A sentence for each faulty entry; these entries are left out above.
        digest: Twelve hexadecimal digits of the SHA-256 of the file.
    """

    categories: dict[Id, str]
    pictures: list[Picture]
    faults: list[str]
    digest: str


def read_json(path: Path, expected: str) -> tuple[Json, bytes]:
    """Read the object in a JSON file, and the file's bytes.

    Args:
        path: The file.
        expected: What messages say that the object should have.

    Raises:
        ValueError: If the file is not JSON, or does not hold an object.
        FileNotFoundError: If there is no such file.
    """
    check_file(path)
    raw = path.read_bytes()
    content = _parse(raw, path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object with {expected}, got {_kind(content)}")
    return content, raw


def read_instances(path: Path, *, crowds: bool = False) -> Instances:
    """Read an annotation file.

    Ids may be numbers or strings; ``"3"`` equals 3. Repeated entries count once if they are equal.

    Args:
        path: The file.
        crowds: Whether to keep annotations of crowds.

    Raises:
        ValueError: If the file is not JSON, or does not have the lists images, categories and annotations.
        FileNotFoundError: If there is no such file.
    """
    content, raw = read_json(path, "images, categories and annotations")
    faults: list[str] = []
    categories = _categories(_entries(content, "categories", path, faults), faults)
    images = defaultdict(list)
    for image in _entries(content, "images", path, faults):
        images[as_id(image.get("id"))].append(image)
    faults += [f"an image must have an id, got {shown(image)}" for image in images.pop(None, ())]
    annotations = _by_image(_entries(content, "annotations", path, faults), images, faults, crowds=crowds)
    pictures = []
    for image_id in sorted(annotations, key=_ascending):
        try:
            name, size = _image(images[image_id])
            pictures.append(Picture(image_id, name, size, annotations[image_id]))
        except ValueError as error:
            faults.append(f"image {shown(image_id)} {error}")
    return Instances(categories, pictures, faults, hashlib.sha256(raw).hexdigest()[:12])


def as_id(value: object) -> Id | None:
    """Convert a value to an id; None if it cannot be one.

    Example:
        >>> as_id(3), as_id("3"), as_id("3f2a"), as_id(None)
        (3, 3, '3f2a', None)
    """
    number = as_whole(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and value else None


def as_whole(value: object) -> int | None:
    """Convert an integer, also as a float or a string, to a Python integer; None for other values."""
    if isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_crowd(annotation: Json) -> bool:
    """Whether an annotation marks a crowd, in any of the spellings that tools write.

    Raises:
        ValueError: If ``iscrowd`` has another value.
    """
    value = annotation.get("iscrowd")
    number = as_whole(value)
    if value is None or value is False or value == "" or number == 0:
        return False
    if value is True or number == 1:
        return True
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise ValueError(f"iscrowd must be 0 or 1, got {shown(value)}")


def title_of(annotation: Json) -> str:
    """Return the name of an annotation in messages."""
    annotation_id = as_id(annotation.get("id"))
    return "an annotation without id" if annotation_id is None else f"annotation {shown(annotation_id)}"


def _parse(raw: bytes, path: Path) -> object:
    try:
        content: object = json.loads(raw)  # UTF-8, UTF-16 and UTF-32, with a byte order mark or without
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON: it is not text in UTF-8 or UTF-16") from error
    except json.JSONDecodeError as error:
        problem = f"{error.msg} in line {error.lineno}, column {error.colno}" if raw else "the file is empty"
        raise ValueError(f"{path} cannot be read as JSON: {problem}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {shown(str(error))}") from error
    return content


def _entries(content: Json, name: str, path: Path, faults: list[str]) -> list[Json]:
    entries = content.get(name)
    if not isinstance(entries, list):
        keys = name_some([shown(key) for key in content]) or "an empty object"
        got = f"{_kind(entries)} as {name}" if name in content else keys
        raise ValueError(f"{path} must have the lists images, categories and annotations, got {got}")
    faults += [
        f"entry {number} of {name} must be an object, got {_kind(entry)}"
        for number, entry in enumerate(entries, start=1)
        if not isinstance(entry, dict)
    ]
    return [entry for entry in entries if isinstance(entry, dict)]


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _categories(entries: list[Json], faults: list[str]) -> dict[Id, str]:
    categories: dict[Id, str] = {}
    for entry in entries:
        category, name = as_id(entry.get("id")), entry.get("name")
        if category is None:
            faults.append(f"a category must have an id, got {shown(entry)}")
        elif not isinstance(name, str | int):
            faults.append(f"category {shown(category)} must have a name, got {shown(name)}")
        elif categories.setdefault(category, str(name)) != str(name):
            names = f"{shown(categories[category])} and {shown(name)}"
            faults.append(f"category {shown(category)} must have one name, got {names}")
    return {category: categories[category] for category in sorted(categories, key=_ascending)}


def _by_image(
    entries: list[Json], images: dict[Any, list[Json]], faults: list[str], *, crowds: bool
) -> dict[Id, list[Json]]:
    """Group the annotations by image."""
    annotations: dict[Id, list[Json]] = defaultdict(list)
    for entry in entries:
        image_id = as_id(entry.get("image_id"))
        try:
            if is_crowd(entry) and not crowds:
                continue
            if image_id is None or image_id not in images:
                got = shown(entry.get("image_id"))
                raise ValueError(f"image_id must be the id of an image that the file lists, got {got}")
            annotations[image_id].append(entry)
        except ValueError as error:
            faults.append(f"{title_of(entry)}: {error}")
    return annotations


def _image(entries: list[Json]) -> tuple[object, tuple[int, int]]:
    """Return the file name and the height and width of an image; messages continue after the image's id."""
    variants = [(e.get("file_name"), as_whole(e.get("height")), as_whole(e.get("width"))) for e in entries]
    name, height, width = variants[0]
    if any(variant != variants[0] for variant in variants):
        raise ValueError(f"must stand there once, got {len(variants)} entries that differ")
    if height is None or width is None or height < 1 or width < 1:
        got = f"{shown(entries[0].get('height'))} and {shown(entries[0].get('width'))}"
        raise ValueError(f"must have a height and a width of at least 1, got {got}")
    if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
        limit = f"PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}"
        raise ValueError(f"has {shown(width)} x {shown(height)} pixels, more than {limit}")
    return name, (height, width)


def _ascending(value: Id) -> tuple[bool, Id]:
    return isinstance(value, str), value
