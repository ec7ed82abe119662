"""Large photographs and strips: asked smaller or in pieces, answered at their own size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewshotseg as fs
from _segmenting import Reddest, photo, run, value
from fewshotseg.cli import large
from fewshotseg.cli.batch import threads
from fewshotseg.cli.large import ask, factor_for


def red(height, width, left, top, right, bottom, colour=255):
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[0, top:bottom, left:right] = colour
    return pixels


def shown(predictor=None):
    predictor = predictor or Reddest()
    predictor.set_support([], [])
    return predictor


def test_the_answer_is_the_predictors_where_the_size_stays(monkeypatch):
    monkeypatch.setattr(large, "BAND", 7)
    pixels = red(60, 90, 20, 10, 50, 40, 200)
    answer = ask(shown(), pixels, (60, 90))
    assert torch.equal(answer.mask, (pixels[0] > 127).to(torch.uint8))
    assert torch.equal(answer.probability, pixels[0])
    assert answer.presence == pytest.approx([200 / 255])
    assert answer.found == [True]


def test_a_reduced_photograph_is_answered_at_its_own_size(monkeypatch):
    monkeypatch.setattr(large, "BAND", 13)
    pixels = red(30, 45, 10, 5, 25, 20, 200)
    answer = ask(shown(), pixels, (300, 450))
    assert answer.mask.shape == answer.probability.shape == (300, 450)
    expected = torch.zeros(300, 450, dtype=torch.bool)
    expected[50:200, 100:250] = True
    wrong = (answer.mask > 0) != expected
    inner = torch.zeros(300, 450, dtype=torch.bool)
    inner[60:190, 110:240] = True
    assert not wrong[inner].any()
    assert wrong.sum() < 4 * 150 * 10
    assert int(answer.probability.max()) == 200


def test_bands_are_bilinear_with_aligned_corners(monkeypatch):
    monkeypatch.setattr(large, "BAND", 9)
    scores = torch.randn(2, 7, 11, generator=torch.Generator().manual_seed(0))
    found = torch.cat([band for _, band in large._bands(scores.sigmoid(), (40, 30))], dim=1)
    expected = torch.nn.functional.interpolate(scores[None], size=(40, 30), mode="bilinear", align_corners=True)[0]
    torch.testing.assert_close(found, expected.sigmoid(), atol=1e-5, rtol=1e-4)


def test_absent_classes_leave_the_mask_empty():
    predictor = Reddest()
    predictor.set_support({"a": 0, "b": 0}, {})
    pixels = red(60, 90, 20, 10, 50, 40, 200)
    pixels[1, 20:30] = 180
    answer = ask(predictor, pixels, (60, 90), min_presence=0.75)
    assert answer.found == [True, False]
    assert set(answer.mask.unique().tolist()) == {0, 1}
    assert int(answer.probability[25, 80]) == 180
    assert not ask(predictor, pixels, (60, 90), min_presence=0.9).mask.any()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("long", "short"), [(2000, 60), (181, 60), (5000, 1), (9999, 33)])
def test_strips_are_asked_in_pieces(turned, long, short):
    pixels = red(short, long, long // 3, 0, long // 2, short)
    pixels = pixels.transpose(1, 2) if turned else pixels
    predictor = shown()
    answer = ask(predictor, pixels, tuple(pixels.shape[1:]))
    assert torch.equal(answer.mask, (pixels[0] > 0).to(torch.uint8))
    assert torch.equal(answer.probability, pixels[0])
    sizes = {tuple(sorted(each.shape[1:])) for each in predictor.asked}
    assert len(sizes) == 1
    assert 1 < len(predictor.asked) <= large.MOST_PIECES
    if long < 60 * short:
        assert sizes == {(short, 2 * short)}


def test_where_pieces_disagree_the_nearer_counts_more():
    class ByPiece(Reddest):
        def predict(self, photo, *, threshold=None):
            found = super().predict(photo, threshold=threshold)
            return found._replace(probability=torch.full(photo.shape[1:], 0.2 if len(self.asked) == 1 else 0.8))

    probability, presence = large.in_pieces(shown(ByPiece()), torch.zeros(3, 10, 33, dtype=torch.uint8), None)
    line = probability[0, 0]
    assert line[0] == pytest.approx(0.2)
    assert line[-1] == pytest.approx(0.8)
    assert (line.diff() >= -1e-6).all()
    assert presence == [0]


def test_what_is_not_a_strip_is_asked_whole():
    predictor = shown()
    ask(predictor, torch.zeros(3, 60, 180, dtype=torch.uint8), (60, 180))
    assert len(predictor.asked) == 1


def test_photographs_are_reduced_by_whole_numbers():
    assert [factor_for((3000, width), 100) for width in (399, 400, 4000)] == [3, 4, 20]
    assert factor_for((60, 90), 473) == 1
    assert factor_for((500, 20000), 100) == 5


@pytest.mark.parametrize("kinds", [["mask"], ["mask", "overlay"]])
@pytest.mark.parametrize("name", ["large.jpg", "large.png", "turned.jpg"])
def test_the_command_on_large_photographs(files, reddest, kinds, name):
    values = np.zeros((900, 1200, 3), np.uint8)
    values[300:600, 200:700, 0] = 255
    note = Image.Exif()
    picture = Image.fromarray(values)
    if name == "turned.jpg":
        note[0x0112] = 6
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    picture.save(files / "queries" / name, exif=note, **({"quality": 95} if name.endswith("jpg") else {}))
    assert run("--save", *kinds, query=[f"queries/{name}"]) == 0
    asked = reddest.asked[0]
    assert 130 <= max(asked.shape) < 260
    assert asked.shape[2] > asked.shape[1]
    mask = value(f"out/{name[:-4]}-mask.png")
    assert mask.shape == (900, 1200)
    assert (mask > 0)[310:590, 210:690].all()
    assert not (mask > 0)[values[..., 0] == 0].reshape(-1)[::7].mean() > 0.02


def test_more_pixels_than_pillow_likes_are_read(files, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    photo(files / "queries" / "first.png", seed=1)
    assert run(query=["queries/first.png"]) == 0
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_one_core_is_left_to_reading_and_writing(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    torch.set_num_threads(3)
    with threads(torch.device("cpu")) as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with threads(torch.device("cpu")) as count:
        assert count == 3
    torch.set_num_threads(before)


def test_a_real_model_answers_nearly_the_same_for_a_reduced_photograph(tmp_path):
    torch.manual_seed(0)
    model = fs.build_scnet("mobilenet_v2", hidden_channels=4, bins=(1.0,)).eval()
    predictor = fs.FewShotPredictor(model, size=65)
    y, x = np.mgrid[:780, :1040]
    values = np.stack([x / 5, y / 4, (x + y) / 8], axis=2).astype(np.uint8)
    mask = np.hypot(x - 500, y - 400) < 200
    predictor.set_support(values, mask)
    whole = predictor.predict(values)
    pixels = torch.from_numpy(values).permute(2, 0, 1)
    answer = ask(predictor, fs.images.reduce_image(pixels, factor_for((780, 1040), 65)), (780, 1040))
    assert np.abs(answer.probability.numpy() / 255 - whole.probability.numpy()).max() < 0.02
    assert Path(tmp_path).exists()
