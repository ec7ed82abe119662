"""The pictures of the package's model on photographs that anyone has."""

import numpy as np
import pytest
from PIL import Image

import fewshotseg as fs
from fewshotseg.models.backbones import lite

pytest.importorskip("skimage", reason="needs scikit-image")
pytest.importorskip(lite.PACKAGES["efficientnet_lite2"], reason="needs the extra lite")

import one_shot


@pytest.fixture(scope="module")
def predictor():
    return fs.FewShotPredictor.from_pretrained("scnet-lite2")


def test_both_pictures_are_drawn(tmp_path, capsys):
    one_shot.main(["--out", str(tmp_path / "new")])
    sizes = {}
    for path in (tmp_path / "new").iterdir():
        with Image.open(path) as picture:
            sizes[path.name] = picture.size
    assert sizes == {"one-shot.png": (900, 240), "one-shot-failures.png": (900, 480)}
    assert "one-shot.png" in capsys.readouterr().out


def test_the_rocket_is_found_and_the_sky_is_not(predictor):
    ((_, support, outline, query),) = one_shot.pictures()["one-shot"]
    mask = Image.new("1", support.shape[1::-1])
    one_shot.ImageDraw.Draw(mask).polygon(outline, fill=1)
    predictor.set_support(support, np.array(mask))
    found = predictor.predict(query).mask.numpy()
    assert found[200:380, 325:342].mean() > 0.8  # its body
    assert found[:120].mean() < 0.02
    assert 0.03 < found.mean() < 0.15


def test_a_model_that_is_not_there_is_said_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        one_shot.main(["--model", "nothing", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("one_shot.py: name must be a file, a folder, owner/name on")
    assert not list(tmp_path.iterdir())
