"""Photographs: the same pixels through every door, or one sentence."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch.testing import assert_close

from _folders import save_image, save_mask
from fewshotseg.images import photos as photos_module
from fewshotseg.images import read_image, read_reduced, to_image

ORIENTATION = 0x0112


def colours(height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.tga", "a.qoi"])
def test_lossless_rgb_is_read_exactly(tmp_path, name):
    Image.fromarray(colours()).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert (image.dtype, type(image).__name__) == (torch.uint8, "Image")
    assert np.array_equal(image.permute(1, 2, 0).numpy(), colours())


def test_paths_may_be_strings(tmp_path):
    assert read_image(str(save_image(tmp_path / "a.jpg"))).shape == (3, 4, 6)
    assert to_image("photo", str(tmp_path / "a.jpg")).shape == (3, 4, 6)


RAMP = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
HIGH_BITS = (RAMP >> 8).astype(np.uint8)


def grey_alpha(values):
    return Image.fromarray(np.dstack([values, 255 - values]), "LA")


def lab(red, green, blue):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(Image.new("RGB", (6, 4), (red, green, blue)), *profiles, outputMode="LAB")


def palette(transparency=None):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


# A picture as Pillow makes it, the file to store it in, and its pixels: (H, W) where grey, else (H, W, 3).
PICTURES = {
    "RGB": (Image.fromarray(colours()), "png", colours()),
    "RGBA": (Image.fromarray(np.dstack([colours(), HIGH_BITS])), "png", colours()),
    "L": (Image.fromarray(HIGH_BITS), "png", HIGH_BITS),
    "LA": (grey_alpha(HIGH_BITS), "png", HIGH_BITS),
    "1": (Image.fromarray(HIGH_BITS > 99), "png", 255 * (HIGH_BITS > 99)),
    "P": (palette(), "png", np.array([[[10, 20, 30], [40, 50, 60]]])),
    "P with transparent colours": (palette(bytes([0, 128])), "png", np.array([[[10, 20, 30], [40, 50, 60]]])),
    "CMYK": (Image.new("CMYK", (6, 4), (0, 255, 255, 0)), "tif", np.full((4, 6, 3), [255, 0, 0])),
    "LAB": (lab(200, 30, 60), "tif", np.full((4, 6, 3), [200, 30, 60])),
    "HSV": (Image.new("HSV", (6, 4), (0, 255, 255)), None, np.full((4, 6, 3), [255, 0, 0])),
    "La": (grey_alpha(np.full((4, 6), 255, np.uint8)).convert("La"), None, np.zeros((4, 6))),
    "I;16": (Image.fromarray(RAMP), "png", HIGH_BITS),
    "I;16 in TIFF": (Image.fromarray(RAMP), "tif", HIGH_BITS),
    "I;16B": (Image.fromarray(RAMP.astype(">u2")), "tif", HIGH_BITS),
    "I": (Image.fromarray(RAMP.astype(np.int32)), "tif", HIGH_BITS),
    "F": (Image.fromarray((RAMP / 65535).astype(np.float32)), "tif", (RAMP / 65535).astype(np.float32)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_mode_has_the_same_pixels_through_every_door(tmp_path, kind):
    picture, ending, pixels = PICTURES[kind]
    expected = torch.from_numpy(np.asarray(pixels, dtype=np.float32))
    expected = expected if pixels.dtype == np.float32 else expected / 255
    expected = expected.movedim(-1, 0) if expected.ndim == 3 else expected.expand(3, -1, -1)
    tolerance = 2 / 255 if kind == "LAB" else 0  # the library of colours rounds twice
    found = {"pil": to_image("photo", picture)}
    if ending is not None:
        path = tmp_path / f"a.{ending}"
        picture.save(path)
        found["path"] = to_image("photo", path)
        with Image.open(path) as image:
            found["opened"] = to_image("photo", image)
        assert torch.equal(read_image(path), (255 * found["path"]).round().to(torch.uint8))
    for door, image in found.items():
        assert (image.dtype, type(image).__name__) == (torch.float32, "Image"), door
        assert (image - expected).abs().max() <= tolerance, door


def forms(pixels):
    """One photograph ``(H, W, 3)`` as arrays and tensors."""
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return {
        "array": pixels,
        "read-only": np.broadcast_to(pixels[None], (1, *pixels.shape))[0],
        "negative strides": pixels[::-1, ::-1].copy()[::-1, ::-1],
        "Fortran": np.asfortranarray(pixels),
        "with opacity": np.dstack([pixels, pixels[..., 0]]),
        "floats": (pixels / 255).astype(np.float32),
        "double": pixels / 255,
        "big-endian floats": (pixels / 255).astype(">f4"),
        "longdouble": (pixels / 255).astype(np.longdouble),
        "16 bits": pixels.astype(np.uint16) * 257,
        "big-endian 16 bits": (pixels.astype(np.uint16) * 257).astype(">u2"),
        "32 bits": pixels.astype(np.int32) * 257,
        "unsigned 64 bits": pixels.astype(np.uint64) * 257,
        "tensor": tensor,
        "strided tensor": torch.cat([tensor, tensor], dim=2)[..., : tensor.shape[2]],
        "tensor with opacity": torch.cat([tensor, tensor[:1]]),
        "float tensor": (tensor / 255).requires_grad_(),
        "parameter": torch.nn.Parameter(tensor / 255),
        "negated": torch.complex(tensor / 255, -(tensor / 255)).conj().imag,
        "16-bit tensor": torch.from_numpy(pixels.astype(np.uint16) * 257).permute(2, 0, 1),
    }


@pytest.mark.parametrize("form", forms(colours()))
def test_arrays_and_tensors(form):
    expected = torch.from_numpy(colours()).permute(2, 0, 1) / 255
    image = to_image("photo", forms(colours())[form])
    assert (image.dtype, image.shape, image.requires_grad) == (torch.float32, (3, 4, 6), False)
    torch.testing.assert_close(torch.Tensor(image), expected, atol=1e-6, rtol=0)


def test_what_resizing_overshoots_by_is_cut_off():
    assert to_image("photo", torch.tensor([[-0.0005, 0.5, 1.0005]]))[0].tolist() == [[0, 0.5, 1]]
    with pytest.raises(ValueError, match=r"got -0\.002 to 1"):
        to_image("photo", torch.tensor([[-0.002, 1]]))


def test_half_precision_is_taken():
    values = torch.tensor([[0, 0.25, 1]])
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        assert to_image("photo", values.to(dtype))[2].tolist() == [[0, 0.25, 1]]


@pytest.mark.parametrize(
    "grey", [HIGH_BITS, HIGH_BITS[..., None], torch.from_numpy(HIGH_BITS), torch.from_numpy(HIGH_BITS)[None]]
)
def test_grey_becomes_three_equal_channels(grey):
    image = to_image("photo", grey)
    assert image.shape == (3, 4, 6)
    assert torch.equal(image[1], torch.from_numpy(HIGH_BITS) / 255)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[2], image[1])


def test_bools_are_black_and_white():
    assert to_image("photo", np.array([[True, False]]))[0].tolist() == [[1, 0]]


def test_the_users_numbers_are_left_alone():
    pixels = torch.rand(3, 4, 6)
    before = pixels.clone()
    to_image("photo", pixels).mul_(0)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (RAMP // 16, ValueError, "range from 0 to 65535 .*, but the largest is 4095, which is nearly black; scale it"),
        (colours().astype(np.int64), ValueError, r"but the largest is 2\d\d, which is nearly black; .* to 8 bits"),
        (RAMP.astype(np.int64) * 2, ValueError, "from 0 to 65535 if they have more than 8 bits, got 0 to 131070"),
        (RAMP.astype(np.int32) - 1, ValueError, "from 0 to 65535 if they have more than 8 bits, got -1 to 65534"),
        (
            colours().astype(np.float32),
            ValueError,
            r"from 0 to 1 if floating-point, got \d+ to 2\d\d; divide by 255",
        ),
        (np.full((4, 6), np.nan), ValueError, "numbers from 0 to 1 if floating-point, got nan"),
        (np.full((4, 6), np.inf), ValueError, "numbers from 0 to 1 if floating-point, got inf"),
        (-torch.rand(3, 4, 6), ValueError, "numbers from 0 to 1 if floating-point, got -"),
        (colours().astype(object), TypeError, "must hold bools, integers or floating-point numbers, got object"),
        (colours().astype(str), TypeError, "must hold bools, .* got <U3"),
        (colours().astype(complex), TypeError, "must hold bools, .* got complex128"),
        (np.zeros((4, 6), [("red", "u1")]), TypeError, r"must hold bools, .* got \[\('red', 'u1'\)\]"),
        (np.ma.masked_less(RAMP, 99), TypeError, "must hold bools, .* got masked values"),
        (torch.rand(3, 4, 6).to_sparse(), TypeError, "must be a dense tensor .* torch.sparse_coo"),
        (torch.rand(3, 4, 6, device="meta"), TypeError, "must be a dense tensor .* on meta"),
        (torch.rand(3, 4, 6) * 1j, TypeError, "must be a dense tensor of real numbers, got torch.complex64"),
        (
            np.zeros((3, 40, 50), np.uint8),
            ValueError,
            r"got \(3, 40, 50\); bring the channels to the end with np.moveaxis",
        ),
        (
            torch.zeros(40, 50, 3),
            ValueError,
            r"got \(40, 50, 3\); bring the channels to the front with .permute\(2, 0, 1\)",
        ),
        (torch.zeros(1, 3, 4, 6), ValueError, r"got \(1, 3, 4, 6\); give one image, not a batch"),
        (torch.zeros(2, 4, 6), ValueError, r"must have shape .* got \(2, 4, 6\)$"),
        (np.zeros((0, 6, 3)), ValueError, r"must have shape .* got \(0, 6, 3\)"),
        (
            np.zeros((1, 70_000), np.uint8),
            ValueError,
            "photo must have sides of at most 65536 pixels, got 70000 x 1; cut it into parts, or make it smaller",
        ),
        (np.float32(1), TypeError, "must be a path, a PIL image, an array or a tensor, got float32"),
        ([[0, 1]], TypeError, "must be a path, a PIL image, an array or a tensor, got list"),
        (None, TypeError, "must be a path, a PIL image, an array or a tensor, got NoneType"),
    ],
)
def test_what_is_no_photograph_is_refused_in_one_sentence(values, error, message):
    with pytest.raises(error, match=message) as refused:
        to_image("photo", values)
    assert str(refused.value).startswith("photo must ")
    assert len(str(refused.value)) < 300


def test_fake_tensors_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(3, 4, 6))
    with pytest.raises(TypeError, match="photo must be a tensor whose values can be read"):
        to_image("photo", fake)


def deep_rgb(path, values):
    """Colours of 16 bits, of which Pillow reads the high 8 and does not say so."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, np.dstack([values] * 3))
    return path


def test_colours_of_16_bits_keep_the_high_ones(tmp_path):
    assert np.array_equal(read_image(deep_rgb(tmp_path / "a.tif", RAMP))[1].numpy(), HIGH_BITS)


@pytest.mark.parametrize("make", [lambda path, v: Image.fromarray(v).save(path), deep_rgb], ids=["grey", "colours"])
def test_twelve_bits_in_sixteen_are_refused(tmp_path, make):
    path = tmp_path / "a.tif"
    make(path, RAMP // 16)
    with pytest.raises(ValueError, match=r"a\.tif must use the range from 0 to 65535 .* nearly black"):
        read_image(path)
    with Image.open(path) as image, pytest.raises(ValueError, match=r"photo must use the range .* nearly black"):
        to_image("photo", image)


def test_black_is_black_in_any_number_of_bits():
    assert to_image("photo", RAMP * 0).max() == 0


def test_fourteen_bits_in_sixteen_are_read_with_one_warning():
    with pytest.warns(
        UserWarning, match="photo is read as a dark photograph, as its 16-bit values only go up to 16383"
    ):
        image = to_image("photo", RAMP // 4)
    assert image.max() == 63 / 255
    to_image("photo", RAMP // 4)  # a second warning would be an error


def test_twelve_bits_that_say_so_are_scaled(tmp_path):
    twelve = np.array([[0, 4095, 2048, 16]], dtype=np.uint16)
    packed = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in twelve.astype(int).reshape(-1, 2).tolist())
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(
        np.array([tag, 4], "<u2").tobytes() + np.array([1, value], "<u4").tobytes() for tag, value in tags
    )
    start = 8 + len(packed)
    header = b"II*\0" + start.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(header + packed + len(tags).to_bytes(2, "little") + entries + bytes(4))
    assert read_image(tmp_path / "a.tif")[0].tolist() == [[0, 255, 128, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_exif_orientation_is_applied_at_every_door(tmp_path, ending, orientation):
    upright = colours(3, 5)
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1)}
    turned |= {6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1)}
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(turned[orientation])).save(path, exif=exif, **options)
    expected = torch.from_numpy(upright).permute(2, 0, 1)
    assert torch.equal(read_image(path), expected)
    assert torch.equal(to_image("photo", path), expected / 255)
    with Image.open(path) as image:
        assert torch.equal(to_image("photo", image), expected / 255)
        assert torch.equal(to_image("photo", image), expected / 255)  # the image was not turned in place


def test_damaged_exif_says_nothing(tmp_path):
    picture = Image.fromarray(colours())
    picture.save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0).numpy(), colours())


def test_of_several_pictures_the_first_counts(tmp_path):
    first, second = (Image.new("RGB", (6, 4), (value, 0, 0)) for value in (10, 200))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "a.tif")[0, 0, 0] == 10


def test_a_palette_file_becomes_its_colours(tmp_path):
    assert read_image(save_mask(tmp_path / "a.png", [[0, 5]]))[:, 0, 1].tolist() == [7, 200, 90]


def test_inverted_cmyk_of_jpeg(tmp_path):
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg").float().mean(dim=(1, 2))
    assert red > 240
    assert max(green, blue) < 15


# Reduced on reading


def gradient(height=120, width=160):
    y, x = np.mgrid[:height, :width]
    return np.stack([x + y / 2, y * 1.5, (x * y) / 80], axis=2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "grey.jpg", "cmyk.jpg", "turned.jpg", "turned.png"])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 8])
def test_a_reduced_photograph_is_the_mean_of_squares(tmp_path, name, step):
    picture, note = Image.fromarray(gradient()), Image.Exif()
    picture = picture.convert({"grey.jpg": "L", "cmyk.jpg": "CMYK"}.get(name, "RGB"))
    if name.startswith("turned"):
        note[0x0112] = 6
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    picture.save(tmp_path / name, exif=note, **({"quality": 95} if name.endswith("jpg") else {}))
    asked = []
    small, size = read_reduced(tmp_path / name, lambda size: asked.append(size) or step)
    assert size == (120, 160)
    step = 2 if step == 3 and name.endswith("jpg") else step  # JPEG is decoded at a half, and no more is left
    assert small.shape == (3, -(-120 // step), -(-160 // step))
    expected = np.asarray(Image.fromarray(read_image(tmp_path / name).permute(1, 2, 0).numpy()).reduce(step))
    difference = np.abs(small.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= (0 if step == 1 or name.endswith("png") else 6)
    assert {tuple(sorted(each)) for each in asked} == {(120, 160)}


def test_large_jpeg_files_are_not_decoded_whole(tmp_path, monkeypatch):
    Image.fromarray(gradient(480, 640)).save(tmp_path / "a.jpg")
    sizes = []
    monkeypatch.setattr(photos_module, "rgb", lambda image: sizes.append(image.size) or image.convert("RGB"))
    read_reduced(tmp_path / "a.jpg", lambda _: 5)
    assert sizes == [(160, 120)]


def test_a_reduced_photograph_of_16_bits_is_that_of_8(tmp_path):
    grey = gradient()[..., 0]
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    eight, sixteen = (read_reduced(tmp_path / name, lambda _: 4)[0] for name in ("8.png", "16.png"))
    assert (eight == sixteen).all()


@pytest.mark.filterwarnings("ignore:image is read as a dark")
def test_a_value_above_12_bits_makes_an_image_of_16():
    with pytest.raises(ValueError, match="the largest is 4095, which is nearly black"):
        to_image("image", np.full((2, 2), 4095, np.uint16))
    found = to_image("image", np.full((2, 2), 4096, np.uint16)).as_subclass(torch.Tensor)
    assert_close(found, torch.full((3, 2, 2), 16 / 255))
