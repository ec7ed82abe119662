"""Support sets as files: the same answers later, in another process; refused for anything else."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import fewshotseg as fs
from _files import cuts, flips, refusal
from _models import tiny
from fewshotseg import support_files
from test_predictor import Discs, mask, photo, photo_of_places

QUERY = photo(50, 70, seed=5)


def predictor_of(model=None, classes=None, size=65, **settings):
    predictor = fs.FewShotPredictor(tiny(**settings) if model is None else model, size=size)
    if classes is None:
        predictor.set_support([photo(seed=1), photo(40, 50, seed=2)], [mask(), mask(40, 50)])
    elif classes:
        images = {name: photo(seed=number) for number, name in enumerate(classes)}
        predictor.set_support(images, dict.fromkeys(classes, mask()))
    return predictor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mug.fss"


@pytest.mark.parametrize("classes", [None, ["mug"], ["mug", "Löffel \n 2", 3, 2.5]])
@pytest.mark.parametrize("source", ["query", "support"])
def test_a_support_set_answers_as_its_examples(path, classes, source):
    settings = {"background_source": source, "num_prototypes": 1}
    predictor = predictor_of(classes=classes, **settings)
    expected = predictor.predict(QUERY)
    predictor.save_support(path)
    again = predictor_of(classes=[], **settings)
    assert again.class_names == ()
    again.load_support(str(path))
    assert again.class_names == predictor.class_names == tuple(classes or ())
    for found, wanted in zip(again.predict(QUERY), expected, strict=True):
        assert torch.equal(found, wanted)
    assert [entry.name for entry in path.parent.iterdir()] == ["mug.fss"]


def test_it_takes_the_place_of_earlier_examples(path):
    predictor = predictor_of(classes=["a", "b"])
    predictor.save_support(path)
    expected = predictor.predict(QUERY).probability
    predictor.set_support(photo(seed=7), mask())
    assert predictor.class_names == ()
    predictor.load_support(path)
    assert predictor.class_names == ("a", "b")
    assert torch.equal(predictor.predict(QUERY).probability, expected)


def test_another_process_needs_the_model_and_the_file_alone(tmp_path, path):
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,)).eval()
    fs.save_model(model, tmp_path / "model.pth")
    predictor = predictor_of(model, ["mug", "spoon"])
    predictor.save_support(path)
    np.save(tmp_path / "query.npy", QUERY)
    program = (
        "import sys, torch, numpy as np, fewshotseg as fs; torch.set_num_threads(1); folder = sys.argv[1];"
        "predictor = fs.FewShotPredictor.from_pretrained(folder + '/model.pth', size=65);"
        "predictor.load_support(folder + '/mug.fss'); found = predictor.predict(np.load(folder + '/query.npy'));"
        "torch.save((found.probability, predictor.class_names), folder + '/out.pth')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True, timeout=300)
    probability, names = torch.load(tmp_path / "out.pth")
    assert names == ("mug", "spoon")
    torch.testing.assert_close(probability, predictor.predict(QUERY).probability)


def test_models_of_ones_own_keep_their_encodings_too(path):
    predictor = fs.FewShotPredictor(Discs(), size=65)
    predictor.set_support(photo_of_places(40, 50), np.ones((40, 50), bool))
    predictor.save_support(path)
    again = fs.FewShotPredictor(Discs(), size=65)
    again.model.load_state_dict(predictor.model.state_dict())
    again.load_support(path)
    assert torch.equal(again.predict(photo_of_places(60, 60)).mask, predictor.predict(photo_of_places(60, 60)).mask)
    other = fs.FewShotPredictor(Discs(), size=65)  # whose unused weights are others
    assert "exactly this model" in refusal(lambda: other.load_support(path), path)


class Others(Discs):
    """Makes other encodings with the same weights."""


def normalised_otherwise():
    model = Discs()
    model.backbone.mean = (0.4, 0.5, 0.5)
    return model


@pytest.mark.parametrize("make", [Others, normalised_otherwise])
def test_models_of_ones_own_are_told_apart(path, make):
    predictor = fs.FewShotPredictor(Discs(), size=65)
    predictor.set_support(photo_of_places(40, 50), np.ones((40, 50), bool))
    predictor.save_support(path)
    other = fs.FewShotPredictor(make(), size=65)
    other.model.load_state_dict(predictor.model.state_dict())
    assert "exactly this model" in refusal(lambda: other.load_support(path), path)


def test_the_file_holds_plain_values_and_tensors_alone(path):
    predictor_of(classes=["mug"]).save_support(path)
    content = torch.load(path, weights_only=True)
    assert content.keys() == support_files.ENTRIES
    assert (content["size"], content["dtype"], content["names"]) == (65, "torch.float32", ["mug"])


# Others' files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 97}, "must be of images resized to 97 pixels, as this predictor's are, got 65; make the predictor"),
        ({"model": lambda: tiny(seed=1)}, "must be of exactly this model, got one of other weights or settings"),
        ({"model": lambda: tiny(background_prior="shared")}, "must be of exactly this model"),
        ({"model": lambda: tiny(mean=(0.1, 0.2, 0.3))}, "must be of exactly this model"),
        (
            {"model": lambda: tiny().bfloat16()},
            r"must be of a model of torch.bfloat16, as this one, got 'torch.float32'",
        ),
        ({"model": lambda: fs.build_scnet("tiny", hidden_channels=8)}, "must be of exactly this model"),
    ],
)
def test_other_models_and_sizes_refuse_it_and_keep_what_they_have(path, change, message):
    predictor_of().save_support(path)
    change = {name: value() if callable(value) else value for name, value in change.items()}
    other = predictor_of(**change)
    before = other.predict(QUERY).probability
    assert message in refusal(lambda: other.load_support(path), path)
    assert torch.equal(other.predict(QUERY).probability, before)


def test_settings_that_play_no_part_in_encoding_may_differ(path):
    predictor = predictor_of()
    predictor.save_support(path)
    model = tiny(threshold=0.2, peak_threshold=0.7, presence=(0.5, 0.1), min_presence=0.3, image_size=97)
    other = predictor_of(model, classes=[])
    other.load_support(path)
    assert torch.equal(other.predict(QUERY).probability, predictor.predict(QUERY).probability)
    model.fuse()
    other.load_support(path)
    model.config = replace(model.config, bins=(1.0,))
    assert refusal(lambda: other.load_support(path), path)


def test_damage_is_found(path):
    predictor = predictor_of(classes=["a", "b"])
    predictor.save_support(path)
    good, expected = path.read_bytes(), predictor.predict(QUERY).probability
    for name, content in [*flips(good, 60), *cuts(good)]:
        path.write_bytes(content)
        if refusal(lambda: predictor.load_support(path), path) is None:
            assert torch.equal(predictor.predict(QUERY).probability, expected), name


class Code:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_something_else_is_refused(path, tmp_path):
    predictor = predictor_of(classes=["a"])
    predictor.save_support(path)
    good = torch.load(path)
    support = good["supports"][0]
    trace = tmp_path / "trace"
    values = [None, 3, "x" * 5000, [], {}, [1], [[]], torch.zeros(2), [support, support], [support[:2]], [[1, 2, 3, 4]]]
    contents = [None, 3, [], {}, {"format": good["format"]}, Code(trace), {**good, "more": 1}]
    contents += [{**good, entry: value} for entry in good for value in values]
    contents += [{name: value for name, value in good.items() if name != entry} for entry in good]
    for content in contents:
        torch.save(content, path)
        assert refusal(lambda: predictor.load_support(path), path), content
    assert not trace.exists()
    fs.save_model(tiny(), path.with_suffix(".pth"))
    message = refusal(lambda: predictor.load_support(path.with_suffix(".pth")), path.with_suffix(".pth"))
    assert message.endswith("must be a support set that save_support wrote, but it holds something else")
    assert predictor.class_names == ("a",)
    for call, error in (
        (lambda: predictor.load_support(path.parent), ValueError),
        (lambda: predictor.load_support(path.parent / "missing.fss"), FileNotFoundError),
    ):
        with pytest.raises(error, match=r"missing\.fss|must be a support set, but it is a folder"):
            call()
    with pytest.raises(TypeError, match="path must be a path, got int"):
        predictor.load_support(3)


def signed(good, **change):
    content = {name: value for name, value in {**good, **change}.items() if name != "digest"}
    return {**content, "digest": support_files._digest(content)}


@pytest.mark.parametrize(
    "change",
    [
        lambda support: support[:3],
        lambda support: [*support, None],
        lambda support: [support[0][:, :4], *support[1:]],
        lambda support: [support[0].double(), *support[1:]],
        lambda support: [support[0], support[1][..., :3], *support[2:]],
        lambda support: [support[0], support[1][:, :0], *support[2:]],
        lambda support: [support[0] * float("nan"), *support[1:]],
        lambda support: [*support[:3], torch.zeros(1, 8)],
        lambda support: ["prototype", *support[1:]],
        lambda support: [support[0], support[1].expand(-1, 10**9, -1, -1, -1), *support[2:]],
    ],
)
def test_encodings_that_the_model_does_not_make_are_refused_even_with_their_digest(path, change, monkeypatch):
    predictor = predictor_of(classes=["a"])
    predictor.save_support(path)
    good = torch.load(path)
    supports = [change(good["supports"][0])]
    huge = any(isinstance(part, torch.Tensor) and part.numel() > 10**8 for part in supports[0])
    torch.save({**good, "supports": supports} if huge else signed(good, supports=supports), path)
    if huge:  # refused before memory is taken for it
        monkeypatch.setattr(support_files, "_digest", lambda content: pytest.fail("it was read as a whole"))
    message = refusal(lambda: predictor.load_support(path), path)
    monkeypatch.undo()
    assert ("damaged" if huge else "must hold encodings as this model makes them") in message
    for names in (["a", "b"], [], ["a", "a"], "a"):
        torch.save(signed(good, names=names), path)
        assert refusal(lambda: predictor.load_support(path), path)


@pytest.mark.parametrize("names", [["a", "a"], None])
def test_names_that_do_not_tell_classes_apart_are_refused(path, names):
    predictor = predictor_of(classes=["a", "b"])
    predictor.save_support(path)
    torch.save(signed(torch.load(path), names=names), path)
    assert "must hold encodings as this model makes them" in refusal(lambda: predictor.load_support(path), path)


def test_what_cannot_be_written(path, tmp_path):
    with pytest.raises(RuntimeError, match="set_support must be called before save_support"):
        predictor_of(classes=[]).save_support(path)
    predictor = predictor_of(classes=[("a", 1)])
    with pytest.raises(TypeError, match=r"class names must be strings or Python's numbers to be saved, got \('a', 1\)"):
        predictor.save_support(path)
    with pytest.raises(OSError, match="No such file"):
        predictor_of().save_support(tmp_path / "missing" / "mug.fss")
    assert not path.exists()
    predictor_of().save_support(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        predictor.save_support(path)
    assert path.read_bytes() == before
