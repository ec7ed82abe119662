"""Whether answers follow their examples: known for answers that do, that do not, and that are empty."""

from types import SimpleNamespace

import pytest
import torch
from torchvision import tv_tensors

import follow_support
from _folders import make_folder
from fewshotseg.data import Sample

VOID = 255
LAYOUTS = [(1,), (1,), (2,), (2,), (3,), (1, 2), (1, 2), (2, 3), (1, 3)]


class Stripes:
    """Each class is a stripe in its own grey, 3 of 12 columns wide; in images of two classes a column is void."""

    # ruff: noqa: RUF012 (nothing changes them)
    class_names = {1: "one", 2: "two", 3: "three"}
    ids = [str(number) for number in range(len(LAYOUTS))]
    class_areas = [dict.fromkeys(layout, 30) for layout in LAYOUTS]

    def load(self, index):
        mask = torch.zeros(10, 12, dtype=torch.long)
        for number, class_id in enumerate(LAYOUTS[index]):
            mask[:, 4 * number : 4 * number + 3] = class_id
        image = mask.to(torch.uint8).expand(3, -1, -1) * 50
        if len(LAYOUTS[index]) == 2:
            mask[:, 3] = VOID
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask))


class Predictor:
    """Answers with a function of the example's class and the image's classes."""

    def __init__(self, answer):
        self.answer = answer

    def set_support(self, image, mask):
        self.class_id = int(image[0][mask == 1][0]) // 50

    def predict(self, image):
        return SimpleNamespace(probability=self.answer(self.class_id, image[0] // 50).float())


def measure(answer, **options):
    return follow_support.measure(Predictor(answer), Stripes(), **options)


def test_answers_that_follow_their_examples():
    assert measure(lambda asked, image: image == asked) == (1, 0, 1, 0, 8)


def test_answers_that_do_not():
    found = measure(lambda asked, image: image > 0)
    assert found == pytest.approx((0.5, 0.5, 0, 0.5, 8))
    assert measure(lambda asked, image: image < 0) == (0, 0, 0, 0, 8)


def test_only_some_classes_are_asked_for():
    found = measure(lambda asked, image: torch.full_like(image, asked == 3), classes=[3])
    assert found == pytest.approx((3 / 11, 3 / 11, 1, 0, 2))  # a stripe of three columns; one of twelve is void


def test_as_many_images_as_asked_for_always_the_same():
    seen = []

    def answer(asked, image):
        seen.append((asked, tuple(image.unique().tolist())))
        return image == asked

    assert measure(answer, images=2).questions == 4
    first = list(seen)
    seen.clear()
    measure(answer, images=2)
    assert seen == first
    assert len(first) == 6


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    predictor = Predictor(lambda asked, image: image >= 0)
    monkeypatch.setattr(follow_support.fs.FewShotPredictor, "from_pretrained", lambda name, size: predictor)
    make_folder(tmp_path / "one", {"a": [1], "b": [2], "c": [3]})
    with pytest.raises(SystemExit):
        follow_support.main([str(tmp_path / "one"), "--model", "prototypes-lite0"])
    assert "source must have images of two classes" in capsys.readouterr().err
