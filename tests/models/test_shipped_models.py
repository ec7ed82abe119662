"""The models that come with the package: each loads by its name, says how it came about, and answers."""

import json

import numpy as np
import pytest

import fewshotseg as fs
from fewshotseg.models import list_pretrained, load_pretrained, read_model
from fewshotseg.models.backbones import lite
from fewshotseg.models.hub import FOLDER

NAMES = list_pretrained()


def test_there_are_those_that_the_pages_name():
    assert NAMES == ["prototypes-lite0", "scnet-lite0", "scnet-lite2"]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_say_where_they_come_from(name):
    path = FOLDER / f"{name}.pth"
    assert path.stat().st_size < 8 * 2**20
    saved = read_model(path)
    assert saved.config.image_size >= 200
    assert saved.training is None
    assert {"data", "command", "versions"} <= saved.origin.keys() or (
        {"folders", "recipe", "versions"} <= saved.origin.keys()
    )
    assert "/" not in json.dumps(saved.origin).replace("examples/", "")  # no folder of the machine that trained


@pytest.mark.parametrize("name", NAMES)
def test_they_load_by_their_names(name):
    pytest.importorskip(lite.PACKAGES["efficientnet_lite0"], reason="needs the extra lite")
    model = load_pretrained(name)
    assert model.config == read_model(FOLDER / f"{name}.pth").config
    assert isinstance(model, fs.PrototypeSegmenter if name == "prototypes-lite0" else fs.SCNet)
    assert not model.training


def test_the_one_without_training_has_the_settings_of_the_class():
    saved = read_model(FOLDER / "prototypes-lite0.pth")
    assert saved.head == {}
    assert saved.backbone is None
    pytest.importorskip(lite.PACKAGES["efficientnet_lite0"], reason="needs the extra lite")
    expected = fs.build_prototype_segmenter("efficientnet_lite0", backbone_weights="package").config
    assert load_pretrained("prototypes-lite0").config == expected


@pytest.mark.parametrize("name", NAMES)
def test_they_find_an_example_in_itself(name):
    [pytest.importorskip(package, reason="needs the extra lite") for package in lite.PACKAGES.values()]
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    mask = np.zeros((512, 512), bool)
    mask[20:190, 155:300] = mask[190:, 40:350] = True  # about where the astronaut is: 0.48 of the image
    predictor = fs.FewShotPredictor.from_pretrained(name)
    assert predictor.size == predictor.model.config.image_size
    predictor.set_support(data.astronaut(), mask)
    found = predictor.predict(data.astronaut()).mask.bool().numpy()
    assert (found & mask).sum() > 0.65 * (found | mask).sum()
