"""What the numbers of a mask mean: one rule for people, another where class ids are read."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from _folders import save_image, save_mask
from fewshotseg.images import read_binary_mask, read_image, read_mask, read_object_mask, to_mask, write_mask

ORIENTATION = 0x0112


def labels(height=60, width=90):
    """An object in the lower left, which no turn maps to itself."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[30:50, 10:40] = 1
    return mask


def elsewhere(value):
    """Other pixels of a value, beside the object of `labels`."""
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[5:15, 50:80] = value
    return mask


def palette(indices, *colours):
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def rgba(colours, opacity):
    return Image.fromarray(np.dstack([colours, opacity]).astype(np.uint8))


def transparent(values, which):
    image = Image.fromarray(values)
    image.info["transparency"] = which
    return image


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
OBJECT = labels()
PHOTO = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)

# Masks of the object of `labels` alone, as Pillow makes them, and the warning that each gives.
DRAWINGS = {
    "0 and 255": (Image.fromarray(255 * OBJECT), "255 but no 1"),
    "0 and 1": (Image.fromarray(OBJECT), None),
    "0 and 7": (Image.fromarray(7 * OBJECT), None),
    "1 bit": (Image.fromarray(OBJECT > 0), None),
    "16 bits": (Image.fromarray(1000 * OBJECT.astype(np.uint16)), None),
    "16 bits, white": (Image.fromarray(65535 * OBJECT.astype(np.uint16)), None),
    "palette": (palette(OBJECT, BLACK, RED), None),
    "palette of VOC": (palette(15 * OBJECT, *[BLACK] + [RED] * 255), None),
    "palette without black": (palette(7 * OBJECT, *[RED] * 256), None),
    "palette that begins with the object": (palette(1 - OBJECT, WHITE, BLACK), "255 but no 1"),
    "palette that begins with red": (palette(1 - OBJECT, RED, BLACK), None),
    "grey in RGB": (Image.fromarray(255 * OBJECT).convert("RGB"), "255 but no 1"),
    "1 in RGB": (Image.fromarray(OBJECT).convert("RGB"), None),
    "a colour on black": (Image.fromarray(np.dstack([0 * OBJECT, 200 * OBJECT, 9 * OBJECT])), None),
    "white, opaque": (rgba(np.dstack([255 * OBJECT] * 3), 255 + 0 * OBJECT), "255 but no 1"),
    "white on nothing": (rgba(np.full((60, 90, 3), 255), 255 * OBJECT), None),
    "black on nothing": (rgba(np.zeros((60, 90, 3)), 255 * OBJECT), None),
    "half a cut-out": (rgba(PHOTO, 128 * OBJECT), None),
    "white on black on nothing": (rgba(np.dstack([255 * OBJECT] * 3), 255 * (OBJECT + elsewhere(1))), None),
    "black beside a transparent grey": (transparent(255 - 255 * OBJECT, 255), None),
    "grey with opacity": (rgba(np.zeros((60, 90, 3)), 255 * OBJECT).convert("LA"), None),
}


def expect(warning):
    """Of a test in which everything else that is warned of is an error."""
    return contextlib.nullcontext() if warning is None else pytest.warns(UserWarning, match=warning)


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_drawing_means_the_same_at_every_door(tmp_path, kind):
    drawing, warning = DRAWINGS[kind]
    drawing.save(tmp_path / "mask.png")
    with expect(warning):
        mask = to_mask("mask", drawing)
    assert (mask.dtype, type(mask).__name__) == (torch.int64, "Mask")
    assert np.array_equal(mask.numpy(), OBJECT)
    assert np.array_equal(to_mask("mask", tmp_path / "mask.png").numpy(), OBJECT)  # warned once
    assert np.array_equal(read_object_mask(str(tmp_path / "mask.png")).numpy(), OBJECT)
    if drawing.mode not in {"P", "LA"} and "transparency" not in drawing.info:  # then an array does not say enough
        assert np.array_equal(to_mask("mask", np.asarray(drawing)).numpy(), OBJECT)


@pytest.mark.parametrize(
    "convert",
    [
        lambda m: m > 0,
        lambda m: m.astype(np.float32),
        lambda m: m.astype(np.int64),
        lambda m: m.astype(">i2"),
        lambda m: m.astype(np.uint16) * 65535,
        lambda m: m.astype(np.uint64),
        lambda m: m[..., None],
        lambda m: m[::-1].copy()[::-1],
        lambda m: np.broadcast_to(m[None], (1, *m.shape))[0],
        lambda m: torch.from_numpy(m)[None],
        lambda m: torch.from_numpy(m).bool(),
        lambda m: torch.from_numpy(m).to(torch.bfloat16).requires_grad_(),
        lambda m: torch.from_numpy(m.astype(np.uint16)),
        lambda m: torch.from_numpy(np.dstack([m, 0 * m, 0 * m])).permute(2, 0, 1),
    ],
)
def test_arrays_and_tensors(convert):
    assert np.array_equal(to_mask("mask", convert(labels())).numpy(), labels())


def test_the_colours_of_a_palette_play_no_part_where_the_first_is_black():
    mask = labels() + elsewhere(255)
    drawing = palette(mask, *[BLACK, RED, *[BLACK] * 253, WHITE])
    assert np.array_equal(to_mask("mask", drawing).numpy(), mask)


@pytest.mark.parametrize("void", [None, 255])
def test_void_is_255_beside_1(void):
    mask = labels() + elsewhere(255)
    assert np.array_equal(to_mask("mask", mask, void=void).numpy(), mask)
    assert np.array_equal(to_mask("mask", mask.astype(float), void=void).numpy(), mask)


def test_another_value_may_be_void():
    expected = labels() + elsewhere(255)
    assert np.array_equal(to_mask("mask", 15 * labels() + elsewhere(255), void=255).numpy(), expected)
    assert np.array_equal(to_mask("mask", labels() + elsewhere(7), void=7).numpy(), expected)
    with pytest.warns(UserWarning, match="255 but no 1"):
        assert np.array_equal(to_mask("mask", 255 * labels() + elsewhere(128), void=128).numpy(), expected)
    assert np.array_equal(to_mask("mask", labels() > 0, void=1).numpy(), labels())  # bools are never void


def test_one_colour_all_over_is_an_object():
    assert to_mask("mask", np.full((4, 6, 3), (200, 0, 0))).tolist() == [[1] * 6] * 4


def test_white_all_over_is_an_object():
    with pytest.warns(UserWarning, match="mask holds 255 but no 1, so 255 is read as the object, not as void"):
        assert to_mask("mask", np.full((4, 6), 255)).tolist() == [[1] * 6] * 4


WHITE_MASK = Image.fromarray(255 * OBJECT)
SMOOTH = {
    "resized": WHITE_MASK.resize((313, 211), Image.Resampling.BILINEAR),
    "blurred": WHITE_MASK.resize((900, 600)).filter(ImageFilter.GaussianBlur(3)),
    "shrunk": WHITE_MASK.resize((900, 600)).rotate(5).resize((300, 200), Image.Resampling.LANCZOS),
    "opacity": rgba(np.zeros((211, 313, 3)), np.asarray(WHITE_MASK.resize((313, 211), Image.Resampling.BICUBIC))),
    "of value 100": Image.fromarray(100 * OBJECT).resize((313, 211), Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("kind", SMOOTH)
def test_smoothed_edges_are_cut_at_half_with_a_word(tmp_path, kind):
    drawing = SMOOTH[kind]
    drawing.save(tmp_path / "mask.png")
    with pytest.warns(UserWarning, match=r"mask\.png has smoothed edges; pixels more than half as bright"):
        mask = read_object_mask(tmp_path / "mask.png").bool().numpy()
    sharp = WHITE_MASK.resize((900, 600)).rotate(5) if kind == "shrunk" else WHITE_MASK
    expected = np.asarray(sharp.resize(drawing.size, Image.Resampling.NEAREST)) > 127
    assert (mask & expected).sum() / (mask | expected).sum() > 0.97
    to_mask("mask", drawing)  # a second warning would be an error


def test_smoothed_edges_leave_no_value_for_void():
    with pytest.raises(ValueError, match=r"must mark one object, but holds \d+ values from 0 to 255"):
        to_mask("mask", SMOOTH["resized"], void=255)


def test_a_mask_that_was_jpeg_once_is_cut_at_half(tmp_path):
    content = io.BytesIO()
    WHITE_MASK.save(content, "jpeg", quality=85)
    noisy = np.asarray(Image.open(content))
    assert len(np.unique(noisy)) > 8
    with pytest.warns(UserWarning, match="has smoothed edges"):
        assert np.array_equal(to_mask("mask", noisy).numpy(), OBJECT)


def noise(*values):
    """Values strewn over the background, as in a mask that went through a bad program."""
    return np.where(OBJECT > 0, 255, np.random.default_rng(0).choice(values, OBJECT.shape)).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (0 * OBJECT, ValueError, r"must mark the object, but has no pixel of it, only the values \[0\]$"),
        (np.zeros((4, 6), bool), ValueError, r"must mark the object, but has no pixel of it, only the values \[0\]$"),
        (rgba(np.dstack([255 * OBJECT] * 3), 0 * OBJECT), ValueError, "must mark the object, but has no pixel of it"),
        (2 * OBJECT + elsewhere(1), ValueError, r"must mark one object, but holds \[0, 1, 2\]; write 1 for the object"),
        (15 * OBJECT + elsewhere(255), ValueError, r"must mark one object, but holds \[0, 15, 255\]; write 1"),
        (128 * OBJECT + elsewhere(255), ValueError, r"must mark one object, but holds \[0, 128, 255\]"),
        (noise(0, 1, 2, 3), ValueError, r"must mark one object, but holds \[0, 1, 2, 3, 255\]"),
        (noise(*range(9)), ValueError, "must mark one object, but holds 10 values from 0 to 255"),
        (PHOTO[..., 0], ValueError, "must mark one object, but holds 256 values from 0 to 255"),
        (PHOTO, ValueError, "must mark the object by one colour on black, but has several colours"),
        (np.dstack([OBJECT, elsewhere(9), 0 * OBJECT]), ValueError, "one colour on black, but has several colours"),
        (np.dstack([255 + 0 * OBJECT, 255 * OBJECT, 255 * OBJECT]), ValueError, "but has several colours"),
        (rgba(np.dstack([255 * OBJECT, elsewhere(255), 0 * OBJECT]), elsewhere(0)), ValueError, "has no pixel of it"),
        (
            OBJECT / 2,
            ValueError,
            r"must be bool or hold whole numbers, .* got \[0, 0.5\]; turn a probability into a mask",
        ),
        (np.where(OBJECT, np.nan, 0), ValueError, r"must be bool or hold whole numbers, .* got \[0, nan\]"),
        (np.where(OBJECT, np.inf, 0), ValueError, r"must be bool or hold whole numbers, .* got \[0, inf\]"),
        (-OBJECT.astype(int), ValueError, r"must be bool or hold whole numbers, .* got \[-1, 0\]"),
        (OBJECT[None], ValueError, r"must have shape .* got \(1, 60, 90\); bring the channels to the end"),
        (OBJECT[..., None, None], ValueError, r"must have shape .* got \(60, 90, 1, 1\)"),
        (OBJECT.astype(str), TypeError, "must hold bools, integers or floating-point numbers, got <U3"),
        (OBJECT.astype(object), TypeError, "must hold bools, integers or floating-point numbers, got object"),
        (OBJECT * 1j, TypeError, "must hold bools, integers or floating-point numbers, got complex128"),
        (torch.from_numpy(OBJECT).to_sparse(), TypeError, "must be a dense tensor"),
        (torch.zeros(4, 6, device="meta"), TypeError, "must be a dense tensor"),
        ([[0, 1]], TypeError, "must be a path, a PIL image, an array or a tensor, got list"),
    ],
)
def test_what_marks_no_object_is_refused_in_one_sentence(values, error, message):
    with pytest.raises(error, match=message) as refused:
        to_mask("mask", values)
    assert str(refused.value).startswith("mask must ")
    assert len(str(refused.value)) < 300


def test_a_mask_without_anything_but_void_says_so():
    with pytest.raises(ValueError, match=r"no pixel of it, only the values \[0, 255\]; 255 is void$"):
        to_mask("mask", 255 * OBJECT, void=255)


def test_two_smoothed_objects_are_not_one():
    drawing = Image.fromarray(160 * labels() + elsewhere(255)).resize((313, 211), Image.Resampling.BILINEAR)
    with pytest.raises(ValueError, match=r"must mark one object, but holds \d+ values from 0 to 255"):
        to_mask("mask", drawing)


def test_void_with_a_smooth_border_is_not_the_object():
    mask = labels(60, 90)
    mask[28:30, 8:42] = mask[50:52, 8:42] = 255
    smooth = np.asarray(Image.fromarray(mask).resize((313, 211), Image.Resampling.BILINEAR))
    with pytest.raises(ValueError, match=r"must mark one object, but holds \d+ values from 0 to 255"):
        to_mask("mask", smooth)


LOSSY = {
    "JPEG": ("jpg", {"quality": 100}),
    "JPEG in TIFF": ("tif", {"compression": "jpeg"}),
    "JPEG2000": ("jp2", {"irreversible": False}),
    "WebP that is not lossless": ("webp", {"quality": 100}),
    "AVIF": ("avif", {}),
}


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_formats_that_change_pixels_are_refused_at_every_door(tmp_path, kind, mode):
    ending, options = LOSSY[kind]
    path = tmp_path / f"mask.{ending}"
    Image.fromarray(255 * OBJECT).convert(mode).save(path, **options)
    for read in (read_mask, read_object_mask, read_binary_mask, lambda path: to_mask("mask", path)):
        with pytest.raises(
            ValueError,
            match=rf"mask\.{ending} must be in a lossless format such as PNG, as {kind} changes the pixels of a mask$",
        ):
            read(path)
    with (
        Image.open(path) as image,
        pytest.raises(ValueError, match=rf"^mask must be in a lossless format .* {kind} changes the pixels of a mask$"),
    ):
        to_mask("mask", image)
    read_image(path)  # photographs may


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif", "webp", "pgm", "tga", "qoi", "pcx"])
def test_formats_that_keep_pixels_are_taken(tmp_path, ending):
    path = tmp_path / f"mask.{ending}"
    options = {"lossless": True} if ending == "webp" else {"compression": "tiff_lzw"} if ending == "tif" else {}
    Image.fromarray(7 * OBJECT).convert("RGB" if ending == "qoi" else "L").save(path, **options)
    assert np.array_equal(read_object_mask(path).numpy(), OBJECT)


@pytest.mark.parametrize("opacity", [False, True])
def test_lossless_webp_is_told_from_the_other(tmp_path, opacity):
    picture = rgba(np.dstack([255 * OBJECT] * 3), 255 * OBJECT) if opacity else WHITE_MASK.convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    picture.save(tmp_path / "a.webp", lossless=True, exif=exif, icc_profile=b"odd")
    with expect(None if opacity else "255 but no 1"):
        assert np.array_equal(read_object_mask(tmp_path / "a.webp").numpy(), OBJECT)
    picture.save(tmp_path / "a.webp", exif=exif)
    with pytest.raises(ValueError, match="WebP that is not lossless"):
        read_object_mask(tmp_path / "a.webp")
    picture.save(tmp_path / "a.webp", lossless=True, save_all=True, append_images=[picture.rotate(90)])
    with pytest.raises(ValueError, match="WebP that is not lossless"):  # of several pictures some may be lossy
        read_object_mask(tmp_path / "a.webp")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_exif_turns_masks_as_photographs(tmp_path, ending):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown a quarter turn clockwise
    path = tmp_path / f"mask.{ending}"
    Image.fromarray(np.ascontiguousarray(np.rot90(labels()))).save(path, exif=exif)
    for read in (read_mask, read_object_mask, lambda path: to_mask("mask", path)):
        assert np.array_equal(read(path).numpy(), labels())


# Class ids


@pytest.mark.parametrize("with_palette", [True, False])
def test_class_ids_are_read_raw(tmp_path, with_palette):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(3, axis=0).repeat(3, axis=1)
    mask = read_mask(save_mask(tmp_path / "a.png", values, palette=with_palette))
    assert (mask.dtype, type(mask).__name__) == (torch.int64, "Mask")
    assert np.array_equal(mask.numpy(), values)


def grey_png(path, values, bits):
    """A greyscale PNG of few bits, which Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_numbers_of_few_bits_are_read_as_they_are_stored(tmp_path, bits):
    values = np.arange(2 ** min(bits, 4), dtype=np.uint8)[None].repeat(4, axis=0)
    path = grey_png(tmp_path / "a.png", values, bits)
    assert np.array_equal(read_mask(path).numpy(), values)
    assert read_image(path).max() == (values.max() if bits == 8 else 255)  # for photographs they are greys
    if bits > 1:
        object_three = grey_png(tmp_path / "b.png", 3 * OBJECT, bits)
        assert np.array_equal(read_object_mask(object_three).numpy(), OBJECT)


def test_a_palette_of_two_bits_is_read_raw(tmp_path):
    palette(np.array([[0, 1, 2, 3]]), *[(9, 9, 9)] * 4).save(tmp_path / "a.png", bits=2)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "values", [0 * OBJECT, OBJECT, 255 * OBJECT, 20 * OBJECT + elsewhere(255), 3 * OBJECT + elsewhere(1)]
)
def test_class_ids_with_and_without_void_are_taken(tmp_path, values):
    assert np.array_equal(read_mask(save_mask(tmp_path / "a.png", values)).numpy(), values)


@pytest.mark.parametrize(
    ("value", "size"), [(100, (115, 77)), (255, (115, 77)), (2, (115, 77)), (3, (313, 211)), (20, (45, 30))]
)
def test_interpolated_class_ids_are_refused(tmp_path, value, size):
    mask = Image.fromarray(value * OBJECT + elsewhere(0)).rotate(5)
    mask.resize(size, Image.Resampling.BILINEAR).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png must hold class ids, but its \d+ values look interpolated"):
        read_mask(tmp_path / "a.png")
    mask.resize(size, Image.Resampling.NEAREST).save(tmp_path / "b.png")
    if value != 255:
        assert set(read_mask(tmp_path / "b.png").unique().tolist()) == {0, value}


@pytest.mark.parametrize("value", [20, 100, 255])
@pytest.mark.parametrize("quality", [60, 90])
def test_class_ids_that_were_jpeg_once_are_refused(tmp_path, value, quality):
    content = io.BytesIO()
    Image.fromarray(value * OBJECT).save(content, "jpeg", quality=quality)
    Image.open(content).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="look interpolated"):
        read_mask(tmp_path / "a.png")


def test_classes_that_touch_are_not_interpolated(tmp_path):
    values = np.zeros((60, 90), dtype=np.uint8)
    for number in range(1, 8):  # nested, so that every class but the innermost lies between two others in value
        values[number * 4 : -number * 4, number * 5 : -number * 5] = number
    assert np.array_equal(read_mask(save_mask(tmp_path / "a.png", values)).numpy(), values)


def test_a_few_lost_pixels_are_not_interpolated(tmp_path):
    values = np.zeros((60, 90), dtype=np.uint8)
    values[::10] = values[1::10] = values[2::10] = 2
    values[5, ::4] = 1
    assert np.array_equal(read_mask(save_mask(tmp_path / "a.png", values)).numpy(), values)


def test_thin_classes_are_not_interpolated(tmp_path):
    values = np.zeros((60, 90), dtype=np.uint8)
    for number in range(1, 5):
        values[10 * number] = values[10 * number + 1] = number  # lines of two pixels
    values[:, 40:42] = 5
    assert np.array_equal(read_mask(save_mask(tmp_path / "a.png", values)).numpy(), values)


@pytest.mark.data
def test_no_mask_of_a_data_set_looks_interpolated():
    data = os.environ.get("FEWSHOTSEG_DATA")
    if not data or not Path(data, "voc12_val").is_dir():
        pytest.skip("FEWSHOTSEG_DATA does not point at a folder with voc12_val")
    for path in Path(data, "voc12_val", "masks").glob("*.png"):
        read_mask(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_class_ids_in_colours_are_refused(tmp_path, mode):
    if mode == "I;16":
        Image.fromarray(OBJECT.astype(np.uint16)).save(tmp_path / "a.png")
    else:
        save_image(tmp_path / "a.png", mode=mode)
    with pytest.raises(ValueError, match=rf"a\.png must have one channel of 8 bits .* got mode {mode}$"):
        read_mask(tmp_path / "a.png")


# White on black, cut at half


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


def test_binary_masks_of_16_bits_are_refused(tmp_path):
    Image.fromarray(RAMP := np.arange(24, dtype=np.uint16).reshape(4, 6)).save(tmp_path / "a.png")
    assert RAMP.max() < 128
    with pytest.raises(ValueError, match=r"a\.png cannot be read: it must have 8 bits a channel, got mode I;16"):
        read_binary_mask(tmp_path / "a.png")


# Writing


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


@pytest.mark.parametrize("mask", [np.zeros((2, 2), dtype=np.int64), np.zeros((2, 2, 1), dtype=np.uint8), [[1]]])
def test_masks_of_another_kind_are_not_written(tmp_path, mask):
    with pytest.raises(ValueError, match="mask must have shape"):
        write_mask(tmp_path / "a.png", mask)
    assert not (tmp_path / "a.png").exists()
