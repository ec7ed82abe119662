"""Mutated checkpoints, and damaged or unusual image and annotation files, for attack.py."""

import json
import pickle
import random
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import fewshotseg as fs
from _models import TinyBackbone, tiny
from fewshotseg.data import COCOSource, FolderSource
from fewshotseg.images import read_image, read_mask
from fewshotseg.models import read_model

Case = tuple[str, Callable[[], Any]]

MUTATIONS = 1000


class Intruder:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def checkpoint_attacks(folder: Path) -> Iterator[Case]:
    """A mutated file for each number, through one door after the other."""
    random_numbers = random.Random(0)
    good = folder / "good.pth"
    model = tiny()
    fs.save_model(model, good)
    plain = folder / "plain.pth"
    torch.save(model.state_dict(), plain)
    contents = {path: path.read_bytes() for path in (good, plain)}
    saved = torch.load(good, weights_only=True)
    intruded = folder / "intruded"
    doors = (_load_weights, _load_model, _from_pretrained, _read, _built)
    for number in range(MUTATIONS):
        path = folder / f"{number}.pth"
        door = doors[number % len(doors)]
        kind = number // len(doors) % 4
        if kind < 2:
            source = (good, plain)[kind]
            path.write_bytes(_mutated(contents[source], random_numbers))
        elif kind == 2:
            torch.save(_with_other_value(saved, random_numbers), path)
        else:
            path.write_bytes(pickle.dumps({"state_dict": model.state_dict(), "x": Intruder(intruded)}))
        yield f"{door.__name__} of {path.name}", lambda door=door, path=path: _outcome(door, path, model, intruded)


def _outcome(door: Callable[[Path], Any], path: Path, model: fs.SCNet, intruded: Path) -> Any:
    """What the door gives, which has to be the very model that was saved; raises where it refuses."""
    try:
        loaded = door(path)
    finally:
        path.unlink()
        if intruded.exists():
            raise AssertionError("code of the file was executed")
    same = all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())
    if not same:
        raise AssertionError("another model than the one that was saved")


def _mutated(content: bytes, random_numbers: random.Random) -> bytes:
    """Some bytes changed, cut off, doubled or removed."""
    raw = bytearray(content)
    kind = random_numbers.randrange(4)
    if kind == 0:
        for _ in range(random_numbers.choice((1, 3, 50))):
            raw[random_numbers.randrange(len(raw))] ^= 1 << random_numbers.randrange(8)
    elif kind == 1:
        del raw[random_numbers.randrange(len(raw)) :]
    elif kind == 2:
        start = random_numbers.randrange(len(raw))
        del raw[start : start + random_numbers.randrange(1, 500)]
    else:
        start = random_numbers.randrange(len(raw))
        raw[start:start] = raw[start : start + 100]
    return bytes(raw)


def _with_other_value(saved: dict[str, Any], random_numbers: random.Random) -> dict[str, Any]:
    """One entry, setting or weight replaced by something else."""
    others: list[Any] = [None, 3, -1, "x", [], {}, float("nan"), 10**12, True, torch.zeros(2), torch.zeros(0)]
    other = random_numbers.choice(others)
    part = random_numbers.choice(("entry", "config", "head", "backbone"))
    if part == "entry":
        return {**saved, random_numbers.choice(sorted(saved)): other}
    key = random_numbers.choice(sorted(saved[part]))
    value = other
    if part != "config" and isinstance(saved[part][key], torch.Tensor):
        weight = saved[part][key]
        value = random_numbers.choice([other, weight * float("nan"), weight.to(torch.complex64), weight.bool()])
    return {**saved, part: {**saved[part], key: value}}


def _load_weights(path: Path) -> Any:
    model = tiny(seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        fs.load_weights(model, path)
    except Exception:
        if not all(torch.equal(value, before[key]) for key, value in model.state_dict().items()):
            raise AssertionError("half loaded") from None
        raise
    return model.state_dict()


def _load_model(path: Path) -> Any:
    return fs.load_model(path, backbone=TinyBackbone()).state_dict()


def _from_pretrained(path: Path) -> Any:
    return fs.FewShotPredictor.from_pretrained(path).model.state_dict()


def _read(path: Path) -> Any:
    saved = read_model(path)
    return saved.head | {f"backbone.{key}": value for key, value in (saved.backbone or {}).items()}


def _built(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fs.build_scnet(TinyBackbone(), hidden_channels=8, bins=(1.0, 0.5), weights=path).state_dict()


def image_attacks(folder: Path) -> Iterator[Case]:
    """Files that are damaged, unusual or something else, through the readers of images, masks and annotations."""
    root = folder / "files"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name, path in _image_files(root, Image.fromarray(pixels)):
        yield f"read_image, {name}", lambda path=path: read_image(path).float()
        yield f"read_mask, {name}", lambda path=path: read_mask(path).float()
    for name, content in _annotations():
        path = root / f"{name.replace(' ', '-')}.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        yield f"COCOSource, {name}", lambda path=path: COCOSource(root, path, cache=root / "cache").class_areas
    for name in ("empty", "files only"):
        place = root / name
        place.mkdir()
        if name == "files only":
            (place / "x.txt").write_text("x")
        yield f"FolderSource, {name}", lambda place=place: FolderSource(place, place).class_areas


def _image_files(root: Path, image: Image.Image) -> Iterator[tuple[str, Path]]:
    grey = image.convert("L")
    variants: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "RGB.png": (image, {}), "L.png": (grey, {}), "1.png": (image.convert("1"), {}),
        "P.png": (image.quantize(9), {}),
        "RGBA.png": (image.convert("RGBA"), {}), "LA.png": (image.convert("LA"), {}),
        "I16.png": (Image.fromarray(np.array(grey, np.uint16) * 257), {}), "F.tiff": (grey.convert("F"), {}),
        "I.tiff": (grey.convert("I"), {}), "CMYK.jpg": (image.convert("CMYK"), {}), "L.jpg": (grey, {}),
        "jpeg.tiff": (image, {"compression": "jpeg"}), "RGB.webp": (image, {}), "L.gif": (grey, {}),
        "RGB.bmp": (image, {}), "RGB.ppm": (image, {}), "YCbCr.jpg": (image.convert("YCbCr"), {}),
        "LAB.tiff": (image.convert("LAB"), {}), "RGB.ico": (image, {}),
    }  # fmt: skip
    for name, (picture, options) in variants.items():
        try:
            picture.save(root / name, **options)
        except (OSError, KeyError, ValueError):  # a format that this Pillow cannot write
            continue
        yield name, root / name
        for cut in (0.3, 0.9):
            content = (root / name).read_bytes()
            path = root / f"cut-{cut}-{name}"
            path.write_bytes(content[: int(cut * len(content))])
            yield path.name, path
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    for name, content in {
        "empty.png": b"", "text.png": b"no image", "zeros.jpg": bytes(1000),
        "huge.png": header + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0) + bytes(4),
        "no-size.png": header + struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0) + bytes(4),
    }.items():  # fmt: skip
        (root / name).write_bytes(content)
        yield name, root / name
    (root / "folder.png").mkdir()
    yield "a folder", root / "folder.png"
    yield "nothing", root / "nothing.png"


def _annotations() -> Iterator[tuple[str, Any]]:
    picture = {"id": 1, "file_name": "RGB.png", "height": 40, "width": 50}
    square = {"id": 5, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 20, 1, 20, 20, 1, 20]]}
    good = {"images": [picture], "categories": [{"id": 3, "name": "cup"}], "annotations": [square]}
    yield "good", good
    for name, content in {
        "empty": b"",
        "text": b"{",
        "list": [],
        "number": 3,
        "null": None,
        "bom": b"\xff\xfe{\x00",
    }.items():
        yield name, content
    for key in good:
        yield f"without {key}", {name: value for name, value in good.items() if name != key}
        for other in (None, 3, "x", {}, [3], [None], [{}]):
            yield f"{key} {other!r}"[:40].replace("/", ""), {**good, key: other}
    nan, far = float("nan"), 1e300
    for name, segmentation in {
        "nothing": None, "no polygon": [], "empty polygon": [[]], "two points": [[1, 1, 5, 5]],
        "odd": [[1, 1, 5, 5, 9]],
        "flat": [1, 1, 20, 1, 20, 20], "nan": [[nan, 1, 5, 5, 9, 9]], "far": [[far, 1, 5, 5, 9, 9]],
        "text": "x", "number": 7, "words": [["a", "b", "c", "d", "e", "f"]],
        "run lengths cut": {"size": [40, 50], "counts": [5]},
        "run lengths of another size": {"size": [400, 500], "counts": [200000]},
        "garbage": {"size": [40, 50], "counts": "%%%"},
        "negative": {"size": [40, 50], "counts": [-5, 2005]}, "deep": [[[[1, 1, 5, 5, 9, 9]]]],
    }.items():  # fmt: skip
        yield f"segmentation {name}", {**good, "annotations": [{**square, "segmentation": segmentation}]}
    for key, value in {"height": 0, "width": 10**9, "file_name": "../../etc/passwd", "id": "one"}.items():
        yield f"image {key}", {**good, "images": [{**picture, key: value}]}
    for key, value in {"image_id": 99, "category_id": 99, "id": None, "iscrowd": "yes"}.items():
        yield f"annotation {key}", {**good, "annotations": [{**square, key: value}]}
