"""The models that come with the package: each loads by its name, says how it came about, and answers."""

import json

import numpy as np
import pytest

import fewshotseg as fs
from fewshotseg.models import lite, load_pretrained, pretrained

NAMES = sorted(path.stem for path in pretrained.FOLDER.glob("*.pth"))


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_say_where_they_come_from(name):
    pytest.importorskip(lite.PACKAGE, reason="needs the extra lite")
    assert (pretrained.FOLDER / f"{name}.pth").stat().st_size < 8 * 2**20
    _, size, origin = load_pretrained(name)
    assert size >= 200
    assert {"data", "command", "versions"} <= origin.keys()
    assert "/" not in json.dumps(origin).replace("examples/", "")  # no folder of the machine that trained


@pytest.mark.parametrize("name", NAMES)
def test_they_find_an_example_in_itself(name):
    pytest.importorskip(lite.PACKAGE, reason="needs the extra lite")
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    mask = np.zeros((512, 512), bool)
    mask[20:190, 155:300] = mask[190:, 40:350] = True  # about where the astronaut is: 0.48 of the image
    predictor = fs.FewShotPredictor.from_pretrained(name)
    predictor.set_support(data.astronaut(), mask)
    found = predictor.predict(data.astronaut()).mask.bool().numpy()
    assert (found & mask).sum() > 0.65 * (found | mask).sum()
