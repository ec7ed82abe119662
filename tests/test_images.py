import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from _folders import save_image, save_mask
from fewshotseg.images import read_binary_mask, read_image, read_mask, write_mask

ORIENTATION = 0x0112


def huge_png(path, width=20_000, height=20_000):
    """A few bytes that claim to be an image of many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm"])
def test_lossless_rgb_is_read_exactly(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert (image.dtype, type(image).__name__) == (torch.uint8, "Image")
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


def test_paths_may_be_strings(tmp_path):
    assert read_image(str(save_image(tmp_path / "a.jpg"))).shape == (3, 4, 6)


def test_greyscale_becomes_three_equal_channels(tmp_path):
    image = read_image(save_image(tmp_path / "a.png", mode="L"))
    assert image.shape == (3, 4, 6)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_palette_becomes_its_colours(tmp_path):
    path = save_mask(tmp_path / "a.png", [[0, 5]])
    assert read_image(path)[:, 0, 1].tolist() == [7, 200, 90]


def test_a_palette_with_transparent_colours_warns_of_nothing(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert read_image(tmp_path / "a.png")[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg").float().mean(dim=(1, 2))
    assert red > 240
    assert max(green, blue) < 15


def test_alpha_is_dropped(tmp_path):
    Image.new("RGBA", (6, 4), (1, 2, 3, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_of_16_bits_the_high_ones_count(tmp_path, name):
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / name)
    assert read_image(tmp_path / name)[1].tolist() == [[0, 0, 1, 128, 255]]


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 6), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: floating-point"):
        read_image(tmp_path / "a.tif")


def test_integers_beyond_16_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="got 0 to 70000"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # "turn clockwise by a quarter"
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 255  # left half white: after the turn, the upper half
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    image = read_image(tmp_path / f"a.{suffix}").float()
    assert image.shape == (3, 16, 8)
    assert image[:, :8].mean() > 240
    assert image[:, 8:].mean() < 15


def test_exif_of_a_mask_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.array([[1, 2, 3]], dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert read_mask(tmp_path / "a.png").tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("palette", [True, False])
def test_masks_are_read_raw(tmp_path, palette):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = read_mask(save_mask(tmp_path / "a.png", values, palette=palette))
    assert (mask.dtype, type(mask).__name__) == (torch.int64, "Mask")
    assert np.array_equal(mask.numpy(), values)


def test_a_palette_of_two_bits_is_read_raw(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2, 3]], dtype=np.uint8))
    image.putpalette([9, 9, 9] * 4)
    image.save(tmp_path / "a.png", bits=2)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]


def test_one_bit_masks_are_zero_and_one(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[1, 0]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_with_colours_are_refused(tmp_path, mode):
    path = save_image(tmp_path / "a.png", mode=mode)
    with pytest.raises(ValueError, match=rf"a\.png cannot be read: .*one channel.*got mode {mode}$"):
        read_mask(path)


def test_masks_in_jpeg_are_refused(tmp_path):
    path = save_image(tmp_path / "a.jpg", mode="L")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read: JPEG changes pixel values"):
        read_mask(path)


def test_binary_masks_are_cut_at_half(tmp_path):
    Image.fromarray(np.array([[0, 1, 127, 128, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    mask = read_binary_mask(tmp_path / "a.png")
    assert mask.dtype == torch.int64
    assert mask.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "P"])
def test_binary_masks_may_have_any_mode(tmp_path, mode):
    pixels = np.array([[[255] * 3, [0] * 3]], dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    assert read_binary_mask(tmp_path / "a.png").tolist() == [[1, 0]]


@pytest.mark.parametrize("read", [read_image, read_mask, read_binary_mask])
class TestBadFiles:
    def test_missing(self, tmp_path, read):
        with pytest.raises(FileNotFoundError, match=r"a\.png"):
            read(tmp_path / "a.png")

    def test_a_folder(self, tmp_path, read):
        with pytest.raises(OSError, match=tmp_path.name):
            read(tmp_path)

    def test_no_bytes(self, tmp_path, read):
        (tmp_path / "a.png").touch()
        with pytest.raises(ValueError, match=r"a\.png cannot be read: the file is empty"):
            read(tmp_path / "a.png")

    def test_no_image(self, tmp_path, read):
        (tmp_path / "a.png").write_text("not found, said the server")
        with pytest.raises(ValueError, match=r"a\.png cannot be read"):
            read(tmp_path / "a.png")

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
        path = save_mask(tmp_path / "a.png", [[1, 2], [3, 4]])
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


def test_written_masks_are_read_back(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "a.png"
    write_mask(path, values)
    assert np.array_equal(read_mask(path).numpy(), values)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_written_masks_have_the_colours_of_voc(tmp_path):
    write_mask(tmp_path / "a.png", np.array([[0, 1, 2, 15, 20, 255]], dtype=np.uint8))
    colours = read_image(tmp_path / "a.png")[:, 0].T.tolist()
    assert colours == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]]


@pytest.mark.parametrize("mask", [np.zeros((2, 2), dtype=np.int64), np.zeros((2, 2, 1), dtype=np.uint8)])
def test_masks_of_another_kind_are_not_written(tmp_path, mask):
    with pytest.raises(ValueError, match="mask must have shape"):
        write_mask(tmp_path / "a.png", mask)
    assert not (tmp_path / "a.png").exists()
