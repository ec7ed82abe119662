"""Files that were cut by a few bytes, which decoders take for whole."""

import numpy as np
import pytest
from PIL import Image

from fewshotseg.data.sources.check import check_source
from fewshotseg.data.sources.endings import cut_short
from fewshotseg.data.sources.files import FileSource

WAYS = {
    "baseline.jpg": {"quality": 90},
    "progressive.jpg": {"progressive": True},
    "restarts.jpg": {"restart_marker_blocks": 2},
    "preview.jpg": {"exif": b"Exif\0\0" + b"\xff\xd8 a preview \xff\xd9" * 9, "comment": b"\xff\xd9"},
    "grey.png": {},
    "lossless.webp": {"lossless": True},
    "lossy.webp": {},
}


def picture(path, seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", WAYS)
def test_cut_files_are_told_from_whole_ones(tmp_path, name):
    for seed in range(10):
        path = picture(tmp_path / name, seed, **WAYS[name])
        whole = path.read_bytes()
        assert not cut_short(path)
        path.write_bytes(whole + b"notes of a camera")
        assert not cut_short(path)
        for missing in (1, 2, 3, 9, 100, len(whole) // 2, len(whole) - 12):
            path.write_bytes(whole[:-missing])
            assert cut_short(path), missing


def test_a_preview_of_its_own_does_not_stand_for_the_end(tmp_path):
    whole = picture(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[:-2] + b"\xff\xe1\x00\x06\xff\xd9\xff\xd9")
    assert cut_short(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\x00", b"\xff\xd8\xff\xe1\x00\x00" * 9, b"RIFF"]
)
def test_rubbish_comes_to_an_end(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert cut_short(tmp_path / "a.jpg") == bool(content)


def test_other_formats_are_left_to_their_decoders(tmp_path):
    assert not cut_short(picture(tmp_path / "a.bmp"))


@pytest.mark.parametrize("missing", [1, 2, 3, 20])
def test_the_check_finds_them_all(tmp_path, missing):
    images, masks = [], []
    for number in range(20):
        images.append(picture(tmp_path / f"{number}.jpg", number))
        images[-1].write_bytes(images[-1].read_bytes()[:-missing])
        masks.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((40, 50), 1, dtype=np.uint8)).save(masks[-1])
    faults = check_source(FileSource(images, masks)).faults
    assert len(faults) == 20
    masks[0].write_bytes(masks[0].read_bytes()[:-4])
    assert len(check_source(FileSource(images, masks)).faults) == 21
