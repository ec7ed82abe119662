"""Files that cannot be read are refused in one sentence that names them, and never waited for."""

import importlib
import os
import socket
import struct
import sys
import types
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _folders import save_mask
from fewshotseg.images import (
    photo_endings,
    read_binary_mask,
    read_image,
    read_mask,
    read_object_mask,
    to_image,
    to_mask,
)
from fewshotseg.images.files import shorten


def huge_png(path, width=20_000, height=20_000):
    """A few bytes that claim to be an image of many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def image_by_path(path):
    return to_image("photo", path)


def mask_by_path(path):
    return to_mask("mask", path)


READERS = [read_image, read_mask, read_binary_mask, read_object_mask, image_by_path, mask_by_path]


@pytest.mark.parametrize("read", READERS)
class TestBadFiles:
    def test_missing(self, tmp_path, read):
        with pytest.raises(FileNotFoundError, match=r"a\.png"):
            read(tmp_path / "a.png")

    def test_a_folder(self, tmp_path, read):
        with pytest.raises(ValueError, match="must be a regular file, but it is a folder"):
            read(tmp_path)

    def test_no_bytes(self, tmp_path, read):
        (tmp_path / "a.png").touch()
        with pytest.raises(ValueError, match=r"a\.png cannot be read: the file is empty"):
            read(tmp_path / "a.png")

    @pytest.mark.parametrize(
        "content",
        [
            b"not found, said the server",
            b"writing heic here",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            b"\x00\x00\x01\xb3" + bytes(99),
        ],
        ids=["text", "heic in a text", "postscript", "film"],
    )
    def test_no_image(self, tmp_path, read, content):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"a\.png cannot be read: it is not an image in a format that Pillow reads$"
        ):
            read(tmp_path / "a.png")

    @pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
    def test_nothing_waits_for_what_is_no_regular_file(self, tmp_path, read, kind, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the name of a socket must be short
        if kind == "pipe":
            os.mkfifo("a.png")
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("a.png")
        else:
            Path("a.png").symlink_to("/dev/zero")
        with pytest.raises(ValueError, match=r"a\.png must be a regular file, but it is a pipe, a socket or a device"):
            read("a.png")

    @pytest.mark.parametrize("name", ["a\0b", "A" * 100_000, "data:image/png;base64," + "iVBORw0KGgo" * 1000])
    def test_no_name_of_a_file(self, read, name):
        with pytest.raises((ValueError, OSError)) as refused:
            read(name)
        assert len(str(refused.value)) < 400

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_cut_off(self, tmp_path, read, share):
        path = tmp_path / "a.png"
        values = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        content = save_mask(path, values, palette=False).read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"a\.png cannot be read"):
            read(path)

    @pytest.mark.parametrize("position", range(8, 90, 3))
    def test_a_flipped_byte_never_raises_anything_else(self, tmp_path, read, position):
        path = save_mask(tmp_path / "a.png", [[1, 1], [1, 0]])
        content = bytearray(path.read_bytes())
        content[position] ^= 0xFF
        path.write_bytes(content)
        try:
            message = f"{path}: {tuple(read(path).shape)}"
        except ValueError as error:
            message = str(error)
        assert str(path) in message

    @pytest.mark.parametrize("side", [12_000, 20_000])  # Pillow warns of the first and refuses the second
    @pytest.mark.parametrize("action", ["error", "ignore"])
    def test_oversized(self, tmp_path, read, side, action):
        path = huge_png(tmp_path / "a.png", side, side)
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(ValueError, match=r"a\.png has more than PIL.Image.MAX_IMAGE_PIXELS = \d+ pixels"):
                read(path)


@pytest.mark.parametrize("convert", [to_image, to_mask])
def test_pil_images_that_cannot_be_decoded_are_refused_by_their_name(tmp_path, convert):
    content = save_mask(tmp_path / "a.png", np.eye(64), palette=False).read_bytes()
    with (
        Image.open(BytesIO(content[: len(content) // 2])) as cut,
        pytest.raises(ValueError, match=r"^it cannot be read: "),
    ):
        convert("it", cut)
    with Image.open(tmp_path / "a.png") as closed:
        pass
    with pytest.raises(ValueError, match=r"^it cannot be read: "):
        convert("it", closed)


def heic(path):
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(99))
    return path


@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])  # as telephones export it
def test_heic_says_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ValueError, match=r"a\.\w+ cannot be read: HEIC needs pillow-heif: pip install 'fewshotseg\[heif\]'$"
    ):
        read_image(heic(tmp_path / name))


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path, monkeypatch):
    plugin = types.ModuleType("pillow_heif")

    def register():
        def open_it(file, name):
            return Image.new("RGB", (5, 4), (1, 2, 3))

        Image.register_open("HEIF", open_it, lambda head: head[4:12] == b"ftypheic")

    plugin.register_heif_opener = register
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    assert read_image(heic(tmp_path / "a.heic"))[:, 0, 0].tolist() == [1, 2, 3]


def test_real_heic(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    importlib.import_module("PIL.Image").init()
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    Image.init()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(tmp_path / "a.heic")
    image = read_image(tmp_path / "a.heic").float()
    assert image.shape == (3, 48, 64)
    assert (image.mean(dim=(1, 2)) - image.new_tensor([200, 100, 50])).abs().max() < 5


def test_endings_of_photographs_are_those_of_raster_formats():
    assert {
        ".jpg",
        ".jpeg",
        ".png",
        ".tif",
        ".webp",
        ".gif",
        ".bmp",
        ".jp2",
        ".avif",
        ".heic",
        ".mpo",
    } <= photo_endings()
    assert photo_endings().isdisjoint({".pdf", ".eps", ".ps", ".mpg", ".h5", ".grib", ".wmf", ".txt", ".dng", ""})


def test_multi_picture_jpeg_is_read(tmp_path):
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.mpo") as image:
        assert image.format == "MPO"
    red, _, blue = read_image(tmp_path / "a.mpo").float().mean(dim=(1, 2)).tolist()
    assert red > 250
    assert blue < 5


@pytest.mark.parametrize("read", READERS[:4])
def test_what_is_no_path_is_refused(read):
    with pytest.raises(TypeError, match="path must be a path, got int"):
        read(3)


def test_long_texts_keep_both_ends():
    assert shorten("x" * 200) == "x" * 200
    assert shorten("ab" + 500 * "x" + "yz", 10) == "abxxx...xxxyz"


@pytest.mark.parametrize("read", READERS)
def test_a_default_device_does_not_matter(tmp_path, read):
    path = save_mask(tmp_path / "a.png", [[1, 0]], palette=False)
    expected = read(path)
    with torch.device("meta"):
        assert torch.equal(read(path), expected)
    with torch.device("meta"):
        assert to_mask("mask", np.array([[True]])).tolist() == [[1]]
        assert to_image("photo", np.array([[True]])).tolist() == [[[1]]] * 3
