"""The command that trains: what it says, and what its options mean."""

import argparse
import builtins
import signal
from dataclasses import fields, replace

import pytest

import fewshotseg as fs
from _folders import make_folder
from _training import read, trained, training
from fewshotseg.cli import main
from fewshotseg.cli.settings import (
    OWN_OPTIONS,
    add_recipe_arguments,
    attribute_texts,
    change_model,
    recipe_from,
)
from fewshotseg.training import loop
from fewshotseg.training.recipe import RECIPES, Recipe


def recipe_of(*options, benchmark="synthetic", processes=1):
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    given = vars(parser.parse_args([str(option) for option in options]))
    recipe = recipe_from(given, RECIPES[benchmark], processes)
    assert not given
    return recipe


def said_by(capsys, *arguments):
    """The sentence with which a command is refused."""
    assert main(list(map(str, arguments))) == 2
    (said,) = capsys.readouterr().err.splitlines()
    return said.removeprefix("fewshotseg train: ")


# Options


def test_every_field_of_a_recipe_has_an_option_and_is_explained():
    texts = attribute_texts(Recipe)
    assert list(texts) == [each.name for each in fields(Recipe)]
    assert all(text[0].isupper() and text.endswith(".") and "`" not in text for text in texts.values())
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert {f"--{each.name.replace('_', '-')}" for each in fields(Recipe) if each.name not in OWN_OPTIONS} <= options


def test_help_says_what_holds_for_each_benchmark(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(default: pascal 0.025, coco 0.05, folders 0.002, synthetic 0.001)" in said
    assert "(default: folders 500, synthetic 400)" in said
    assert "(default: 321)" in said


def test_options_not_given_leave_the_recipe_as_it_is():
    for name, recipe in RECIPES.items():
        assert recipe_of(benchmark=name) == recipe


def test_options_of_every_kind():
    recipe = recipe_of("--scale", 0.8, 1.2, "--lr", 0.5, "--iterations", 7, "--compile", "--start", "comparing",
                       "--backbone", "resnet50s", "--reducer-dropout", 0.1, "--accumulate", 2, processes=2)  # fmt: skip
    model = replace(RECIPES["synthetic"].model, backbone="resnet50s", reducer_dropout=0.1)
    expected = replace(RECIPES["synthetic"], scale=(0.8, 1.2), lr=0.5, iterations=7, compile=True, start="comparing",
                       micro_batches=4, model=model)  # fmt: skip
    assert recipe == expected
    assert recipe_of("--no-compile").compile is False


def test_model_options():
    config = change_model(fs.SCNetConfig(), ["bins=1.0,0.5", "num_prototypes=0", "norm_stats=batch"])
    assert config == fs.SCNetConfig(bins=(1.0, 0.5), num_prototypes=0, norm_stats="batch")


# What it says


def test_it_states_the_true_learning_rate(tmp_path, capsys):
    trained(tmp_path, "--iterations", 1, "--lr", 0.025, "--select", "novel", "--validate-episodes", 30)
    said = capsys.readouterr().out
    assert "0.025 as adamw uses it" in said
    assert "a tenth" in said
    assert "novel classes of the test fold: results will be optimistic" in said
    assert "trained: " in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", 3, "--accumulate", 2], "batch must be a multiple of processes times accumulation, 2, got 3"),
        (["--lr", 0], "lr must be above 0, got 0"),
        (["--accumulate", 0], "accumulate must be at least 1, got 0"),
        (["--seed", "9" * 23], "seed must be at most 9223372036854775807, got 9999"),
        (["--images", 0], "images must be at least 1, got 0"),
        (["--iterations", 0], "iterations must be at least 1, got 0"),
        (["--save-every", 0], "save_every must be at least 1, got 0"),
        (["--model", "depth=3"], "model must name fields of SCNetConfig"),
        (["--model", "hidden_channels=many"], "hidden_channels must be an integer, got str"),
        (["--model", "self_contrast_weight=2"], "self_contrast_weight must be from 0 to 1, got 2"),
        (["--model", "image_size=99"], "image_size must be set by --size"),
        (["--backbone", "resnet18"], "backbone must be one of"),
        (["--protocol", "pfenet-coco"], "protocol must be one of synthetic's, got pfenet-coco"),
        (["--data", "photos"], "data must be none for synthetic, got 1"),
        (["--images", 3], "class_ids must be classes with at least 2 images"),
        (["--device", "gpu"], "device must be one that this machine has"),
        (["--workers", -1], "workers must be at least 0, got -1"),
        (["--size", 20], "image_size must be"),
        (["--episodes", 0], "episodes must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(options, message, tmp_path, capsys):
    assert message in said_by(capsys, *training(tmp_path / "run", "--iterations", 1, *options))
    assert not (tmp_path / "run").exists()


def test_a_file_as_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    said = said_by(capsys, *training(tmp_path / "file", "--iterations", 1))
    assert said == f"out must be a folder, but {tmp_path / 'file'} is a file"


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys):
    said = said_by(capsys, *training(tmp_path, "--iterations", 5, "--optimizer", "sgd", "--lr", 1e30))
    assert said.startswith("the loss must stay finite")
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_iteration_ends_it_at_once(number, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "open_benchmark", lambda *_, **__: signal.raise_signal(number))
    assert main(training(tmp_path / "run", "--iterations", 1)) == 128 + number
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"fewshotseg train: stopped by {number.name}")
    assert not (tmp_path / "run").exists()


def test_folders_that_are_not_there(tmp_path, capsys):
    out = ("--out", tmp_path / "run")
    for benchmark, missing in {"pascal": "JPEGImages", "coco": "instances_train2014.json", "folders": "JPEG"}.items():
        assert missing in said_by(capsys, "train", benchmark, "--data", tmp_path / "nowhere", *out)
        assert "folder for" in said_by(capsys, "train", benchmark, *out)


def test_own_photographs_of_few_classes(tmp_path, capsys):
    tiny = ("--backbone", "tiny", "--pretrain", 1, "--iterations", 1, "--batch", 1, "--size", 33)
    tiny += ("--model", "hidden_channels=8", "bins=1.0,")
    out = tmp_path / "run"
    one = make_folder(tmp_path / "one", {"a": [1], "b": [1]})
    three = make_folder(tmp_path / "three", {f"{c}{n}": [c] for c in (1, 2, 3) for n in range(2)})
    said = said_by(capsys, "train", "folders", "--data", one, "--fold", 3, *tiny, "--out", out)
    assert said.startswith("fold must be 'all' to train on every class")
    said = said_by(capsys, "train", "folders", "--data", three, *tiny, "--out", out)
    assert said.startswith("fold must be 1 or 2 or 3 to test")
    assert not out.exists()
    arguments = ["train", "folders", "--data", str(one), "--fold", "all", *map(str, tiny), "--out", str(out)]
    said = said_by(capsys, *arguments, "--backbone-weights", "package")
    assert said == "backbone_weights must not be given for tiny, which is trained here, got 'package'"
    assert main(arguments) == 0
    assert read(out / "last.pth")["config"]["backbone"] == "tiny"


def test_no_extra_is_needed_to_train(tmp_path, monkeypatch):
    real = builtins.__import__

    def only_the_wheel(name, *args, **kwargs):
        if name.partition(".")[0] in {"tqdm", "tensorboard", "matplotlib", "scipy", "timm", "pycocotools"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", only_the_wheel)
    checkpoint = trained(tmp_path, "--iterations", 1)
    assert read(checkpoint)["origin"]["iteration"] == 1
