"""Segmenting files from the command line: what is written, what masks mean, what is refused and how."""

import re

import numpy as np
import pytest
import segment
import torch
from PIL import Image

import fewshotseg as fs
from _lite import install
from _training import training
from fewshotseg.models import pretrained, save_pretrained
from fewshotseg.training import loop as train


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a model that has learned nothing, but whose answers differ from place to place and from support to support."""
    path = train.main(training(tmp_path_factory.mktemp("run"), "--iterations", 1)).checkpoint
    saved = torch.load(path, weights_only=True)
    weight, bias = (saved["model"][f"head.classifier.3.{name}"] for name in ("weight", "bias"))
    weight *= 100
    bias -= torch.tensor([0, 0.2])
    torch.save(saved, path)
    return str(path)


def photo(path, width=90, height=60, seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).resize((width, height)).save(path, **options)
    return path


def labels(width=90, height=60):
    values = np.zeros((height, width), np.uint8)
    values[20:40, 30:60] = 1
    return values


@pytest.fixture
def files(tmp_path):
    """Where a support and its mask are, and two queries."""
    photo(tmp_path / "support.png")
    Image.fromarray(255 * labels()).save(tmp_path / "mask.png")
    photo(tmp_path / "queries" / "first.jpg", seed=1)
    photo(tmp_path / "queries" / "second.png", 50, 70, seed=2)
    return tmp_path


def run(files, checkpoint, *options, query=("queries",), shown=("--mask", "mask.png"), out="out"):
    arguments = ["--support", "support.png", *shown, "--query", *query, "--out", out]
    paths = [str(files / each) if re.search(r"\.\w+$|^queries|^out", each) else each for each in arguments]
    segment.main([*paths, "--model", checkpoint, *options])


def refusal(capsys, *arguments, **changes):
    """The sentence that a run ends with."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, **changes)
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err
    return output.err


def test_results_are_those_of_the_predictor_at_the_size_of_each_query(files, checkpoint, capsys):
    run(files, checkpoint)
    model, saved = train.load_model(checkpoint)
    predictor = fs.FewShotPredictor(model, size=saved["data"]["protocol"]["test_size"])
    with Image.open(files / "support.png") as support:
        predictor.set_support(support, labels() == 1)
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        f"{name}-{kind}" for name in ("first", "second") for kind in ("mask.png", "overlay.jpg", "probability.png")
    ]
    for name in ("first.jpg", "second.png"):
        with Image.open(files / "queries" / name) as query:
            expected = predictor.predict(query)
        stem = name.split(".")[0]
        with Image.open(files / "out" / f"{stem}-mask.png") as mask:
            assert (mask.mode, mask.size) == ("L", query.size)
            assert np.array_equal(np.array(mask), 255 * expected.mask.numpy())
            assert 0.1 < expected.mask.float().mean() < 0.9
        with Image.open(files / "out" / f"{stem}-probability.png") as probability:
            assert probability.mode == "L"
            assert np.abs(np.array(probability) / 255 - expected.probability.numpy()).max() < 0.5 / 255 + 1e-6
    output = capsys.readouterr().out
    assert re.search(r"first\.jpg +\d+\.\d\d s +\d+\.\d % object\n", output)
    assert re.search(r"2 images, median \d+\.\d\d s", output)


def test_overlays_leave_what_is_not_the_object_alone():
    shown = Image.fromarray(np.full((60, 90, 3), 100, np.uint8))
    found = np.array(segment.overlay(shown, Image.fromarray(255 * labels())))
    assert (found[labels() == 0] == 100).all()
    assert found[30, 45].tolist() == [151, 60, 77]
    assert found[20, 30].tolist() == list(segment.RED)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (255 * labels(), "L"),
        (labels(), "L"),
        (7 * labels(), "P"),
        (labels() == 1, "1"),
        (np.dstack([0 * labels(), 200 * labels(), 0 * labels()]), "RGB"),
        (np.dstack([0 * labels() + 255] * 3 + [255 * labels()]), "RGBA"),
        (1000 * labels().astype(np.uint16), "I;16"),
    ],
)
def test_whatever_is_not_black_is_the_object(values, mode, tmp_path):
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([128, 0, 0] * 256)
    assert image.mode == mode
    image.save(tmp_path / "mask.png")
    assert np.array_equal(segment.open_mask(tmp_path / "mask.png", None), labels())


def test_a_value_may_be_void(files, checkpoint, tmp_path):
    values = labels()
    values[18:20, 30:60] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert np.array_equal(segment.open_mask(tmp_path / "mask.png", 255), values)
    assert segment.open_mask(tmp_path / "mask.png", None)[18, 30] == 1
    run(files, checkpoint, "--void", "255")


def test_a_box_is_its_pixels(files, checkpoint):
    run(files, checkpoint, out="out-mask")
    run(files, checkpoint, shown=["--box", "30", "20", "60", "40"], out="out-box")
    for path in (files / "out-mask").iterdir():
        assert path.read_bytes() == (files / "out-box" / path.name).read_bytes()


def test_several_supports_each_with_its_mask(files, checkpoint):
    photo(files / "other.png", 80, 50, seed=5)
    Image.fromarray(255 * labels(80, 50)).save(files / "other-mask.png")
    both = ["other.png", "--mask", "mask.png", "other-mask.png"]
    run(files, checkpoint, shown=both, out="out-masks")
    boxes = ["other.png", *["--box", "30", "20", "60", "40"] * 2]
    run(files, checkpoint, shown=boxes, out="out-boxes")
    run(files, checkpoint, out="out-one")
    name = "first-probability.png"
    answers = [(files / out / name).read_bytes() for out in ("out-masks", "out-boxes", "out-one")]
    assert answers[0] == answers[1] != answers[2]


def test_photographs_are_turned_as_the_camera_noted(files, checkpoint):
    with Image.open(files / "queries" / "second.png") as upright:
        turned = upright.transpose(Image.Transpose.ROTATE_90)
    note = Image.Exif()
    note[0x0112] = 6  # to be shown a quarter turn clockwise
    turned.save(files / "queries" / "turned.png", exif=note)
    run(files, checkpoint)
    for kind in ("mask.png", "probability.png", "overlay.jpg"):
        assert (files / "out" / f"turned-{kind}").read_bytes() == (files / "out" / f"second-{kind}").read_bytes()


def test_queries_may_be_files_folders_and_patterns_and_count_once(files, checkpoint):
    (files / "queries" / "notes.txt").write_text("no image")
    names = ["queries/first.jpg", "queries/*.*g", "queries"]
    found = segment.find_images([str(files / name) for name in names])
    assert [path.name for path in found] == ["first.jpg", "second.png"]


def test_the_same_name_twice_does_not_overwrite(files, checkpoint):
    photo(files / "queries" / "first.png", seed=3)
    photo(files / "queries-2" / "First.jpg", seed=4)
    photo(files / "queries-2" / "first-2.jpg", seed=5)
    run(files, checkpoint, query=["queries", "queries-2"])
    masks = sorted(path.name for path in (files / "out").glob("*-mask.png"))
    assert masks == sorted(f"{name}-mask.png" for name in ("first", "first-2", "First-3", "first-2-2", "second"))


def test_no_input_is_overwritten(files, checkpoint, capsys):
    (files / "mask.png").rename(files / "first-mask.png")
    message = refusal(capsys, files, checkpoint, shown=["--mask", "first-mask.png"], out="out/..")
    assert "first-mask.png is also an input" in message


def test_the_models_of_the_package_have_names(files, capsys, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path)
    heads = tmp_path / "heads"
    heads.mkdir()
    monkeypatch.setattr(pretrained, "FOLDER", heads)
    assert "name must be a .pth file or one of no models, got 'scnet-lite0'" in refusal(capsys, files, "scnet-lite0")
    torch.manual_seed(0)
    config = fs.SCNetConfig(hidden_channels=4, bins=(1.0,))
    model = fs.build_scnet("efficientnet_lite0", backbone_weights="package", hidden_channels=4, bins=(1.0,))
    path = heads / "scnet-lite0.pth"
    save_pretrained(model, path, backbone="efficientnet_lite0", config=config, size=65, origin={})
    run(files, "scnet-lite0")
    assert (files / "out" / "second-mask.png").exists()
    named = (files / "out" / "second-probability.png").read_bytes()
    (files / "out" / "second-probability.png").unlink()
    run(files, str(path))  # the file itself, as export_head.py leaves it
    assert (files / "out" / "second-probability.png").read_bytes() == named


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": ["queries/none.jpg"]}, "query must name images, .*, but .*none.jpg leads to none"),
        ({"query": ["queries/broken.jpg"]}, "broken.jpg must be an image, but it cannot be read"),
        ({"shown": ["--mask", "none.png"]}, "none.png must be an image, but there is no such file"),
        ({"shown": ["--mask", "queries/first.jpg"]}, "first.jpg must be PNG .* got JPEG"),
        ({"shown": ["--mask", "small.png"]}, "small.png must have the size of .*support.png, 90 x 60 .* got 50 x 60"),
        ({"shown": ["--mask", "black.png"]}, r"black.png must mark the object, but only has the values \[0\]"),
        ({"shown": ["--mask", "mask.png", "--void", "255"]}, r"only has the values \[0, 255\]; 255 is void"),
        ({"shown": ["--mask", "mask.png", "mask.png"]}, "mask or box must be given for each support, 1 of them, got 2"),
        ({"shown": ["--box", "0", "0", "91", "60"]}, "box must be .* within 90 x 60 pixels, got 0 0 91 60"),
        ({"shown": ["--box", "9", "9", "9", "60"]}, "box must be LEFT TOP RIGHT BOTTOM"),
        ({"shown": ["--box", "1", "1", "9", "9", "--void", "255"]}, "void must go with mask, got box"),
        ({"shown": ["--mask", "mask.png", "--size", "16"]}, "size must be at least 32 pixels, got 16"),
        ({"shown": ["--mask", "mask.png", "--model", "queries/first.jpg"]}, "name must be a .pth file or one of"),
        ({"shown": ["--mask", "mask.png", "--model", "broken.pth"]}, "broken.pth must be a checkpoint of train.py"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(changes, message, files, checkpoint, capsys):
    (files / "queries" / "broken.jpg").write_bytes((files / "queries" / "first.jpg").read_bytes()[:200])
    (files / "broken.pth").write_text("no checkpoint")
    Image.fromarray(labels(50)).save(files / "small.png")
    Image.fromarray(0 * labels()).save(files / "black.png")
    changes = {"query": ["queries/first.jpg"], **changes}
    if "--model" in changes.get("shown", ()):
        *changes["shown"], _, name = changes["shown"]
        checkpoint = str(files / name)
    assert re.search(message, refusal(capsys, files, checkpoint, **changes))
