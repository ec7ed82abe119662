"""Training: exact after any interruption, the same on one process or two, and clear about what it does."""

import json
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import evaluate
import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _folders import make_folder
from _processes import run_together, start
from _training import HALF, MODEL, run_share, training, wait
from _training import train as train_in_process
from fewshotseg.training import loop as train
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings
from fewshotseg.training.recipe import COCO, PASCAL, RECIPES, Recipe, change_model

# With lambda = 1 a few iterations suffice for scores that rise and fall: the best weights are neither first nor last.
SELECTING = ["--iterations", 8, "--save-every", 3, "--accumulate", 2, "--select", "held-out", "--validate-every", 2,
             "--validate-episodes", 12, "--lr", 0.01, "--model", *MODEL, "self_contrast_weight=1"]  # fmt: skip


def read(path):
    return torch.load(path, weights_only=True)


def log_of(out, *, starts=False):
    lines = [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if starts or "event" not in line]


def assert_identical(actual, expected, name=""):
    """Equal to the last bit, whatever is nested in whatever."""
    assert type(actual) is type(expected), name
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), name
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys(), name
        for key in expected:
            assert_identical(actual[key], expected[key], f"{name} {key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), name
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            assert_identical(*pair, f"{name} {number}")
    else:
        assert actual == expected, name


def assert_same_run(out, uninterrupted):
    """All files of a run, and nothing but them."""
    assert sorted(path.name for path in out.iterdir()) == ["best.pth", "last.pth", "log.jsonl"]
    for name in ("last.pth", "best.pth"):
        assert_identical(read(out / name), read(uninterrupted / name), name)
    assert log_of(out) == log_of(uninterrupted)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "whole"
    train.main(training(out, *SELECTING))
    return out


# Killed and resumed


@pytest.mark.parametrize("moments", [(0, 2, 6), (1, 4, 7)])
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bits(moments, uninterrupted, tmp_path):
    out, draw, exit_codes = tmp_path / "run", random.Random(0), []
    for iteration in moments:
        process = start(train_in_process, training(out, *SELECTING, "--resume"))
        wait(lambda done=iteration: reached(out / "log.jsonl", starts=len(exit_codes) + 1, iteration=done), process)
        process.join(draw.uniform(0, 0.03))
        process.kill()
        process.join()
        exit_codes.append(process.exitcode)
    assert exit_codes[0] == -signal.SIGKILL
    train.main(training(out, *SELECTING, "--resume"))
    assert_same_run(out, uninterrupted)


def reached(log, *, starts, iteration):
    """Whether the run was started that often, and then came to that iteration."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return sum('"event"' in line for line in lines) == starts and json.loads(lines[-1])["iteration"] >= iteration


@pytest.mark.parametrize(
    ("save", "found"), [(1, {}), (5, {"last.pth": 4, "best.pth": 2}), (6, {"last.pth": 4, "best.pth": 6})]
)
def test_killed_while_it_writes_a_checkpoint(save, found, uninterrupted, tmp_path):
    process = start(train_in_process, training(tmp_path, *SELECTING), save)
    assert wait(lambda: half_a_checkpoint_in(tmp_path), process)
    process.kill()
    process.join()
    assert {path.name: read(path)["iteration"] for path in tmp_path.glob("*.pth")} == found
    train.main(training(tmp_path, *SELECTING, "--resume"))
    assert_same_run(tmp_path, uninterrupted)


def half_a_checkpoint_in(folder):
    """Whether a file is half written; one that was complete may get its final name while we look."""
    with suppress(FileNotFoundError):
        return any(part.read_bytes() == HALF for part in folder.glob(".*.pth.*"))
    return False


def test_a_line_cut_off_in_the_log_is_dropped(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 9, "lo')
    train.main(training(tmp_path, *SELECTING, "--resume"))
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_stays_as_it_is(uninterrupted):
    before = {path.name: path.stat().st_mtime_ns for path in uninterrupted.glob("*.pth")}
    trained = train.main(training(uninterrupted, *SELECTING, "--resume"))
    assert trained.checkpoint == uninterrupted / "best.pth"
    assert trained.miou == read(uninterrupted / "last.pth")["best"]
    assert {path.name: path.stat().st_mtime_ns for path in uninterrupted.glob("*.pth")} == before


def test_only_the_same_run_is_resumed(uninterrupted, capsys):
    def sentence(*options):
        with pytest.raises(SystemExit):
            train.main(training(uninterrupted, *SELECTING, *options))
        return capsys.readouterr().err

    before = (uninterrupted / "last.pth").read_bytes()
    assert "out must be a new folder, or one to resume with --resume" in sentence()
    assert "lr must be 0.01 as in the run to resume, got 0.1" in sentence("--resume", "--lr", 0.1)
    assert "num_prototypes must be 3 as in" in sentence("--resume", "--model", *MODEL, "num_prototypes=5")
    assert "fold must be 0 as in" in sentence("--resume", "--fold", 1)
    assert "protocol must be 'synthetic with train_size 49" in sentence("--resume", "--episodes", 7)
    assert (uninterrupted / "last.pth").read_bytes() == before


# One process or several


def test_two_processes_train_as_one_with_accumulation(uninterrupted, tmp_path):
    arguments = training(tmp_path / "two", *SELECTING)
    arguments[arguments.index("--accumulate") + 1] = "1"
    run_together(run_share, 2, str(tmp_path / "store"), "train", arguments)
    alone, together = log_of(uninterrupted), log_of(tmp_path / "two")
    assert [line.keys() for line in together] == [line.keys() for line in alone]
    for one, two in zip(alone, together, strict=True):
        assert_close(two, one, rtol=1e-3 if "validation" in one else 1e-5, atol=0)
    one, two = read(uninterrupted / "last.pth"), read(tmp_path / "two" / "last.pth")
    assert_close(two["model"], one["model"], rtol=1e-4, atol=1e-5)
    assert two["recipe"] == one["recipe"]


def test_torchrun_starts_it(tmp_path):
    arguments = training(tmp_path / "run", "--iterations", 2)
    script = Path(train.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert "4 episodes = 2 processes x 1 accumulated x 2" in run.stdout
    assert run.stdout.count("protocol") == 1
    assert read(tmp_path / "run" / "last.pth")["iteration"] == 2


# What it says


def test_log_lines(uninterrupted):
    lines = log_of(uninterrupted, starts=True)
    start = lines.pop(0)
    assert start["event"] == "start"
    assert start["recipe"]["lr"] == 0.01
    assert start["data"]["protocol"]["train_size"] == 49
    assert start["versions"].keys() == {"fewshotseg", "torch", "torchvision", "numpy", "python"}
    losses = [line for line in lines if "loss" in line]
    assert [line["iteration"] for line in losses] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["lr"] for line in losses] == [0.01 * (1 - t / 8) ** 0.9 for t in range(1, 9)]
    scores = {line["iteration"]: line["validation"] for line in lines if "validation" in line}
    assert list(scores) == [2, 4, 6, 8]
    assert 0 < scores[8] < scores[6] == max(scores.values())
    assert read(uninterrupted / "best.pth")["iteration"] == 6
    assert read(uninterrupted / "last.pth")["best"] == scores[6]


def test_it_states_the_true_learning_rate(tmp_path, capsys):
    train.main(training(tmp_path, "--iterations", 1, "--lr", 0.025, "--select", "novel", "--validate-episodes", 30))
    said = capsys.readouterr().out
    assert "0.025 as adamw uses it" in said
    assert "a tenth" in said
    assert "novel classes of the test fold: results will be optimistic" in said


def test_losses_are_those_of_the_paper_and_fall(tmp_path):
    train.main(training(tmp_path, "--iterations", 40, "--lr", 0.003))
    lines = log_of(tmp_path)
    for line in lines:
        specific, agnostic = line["main"] + line["aux"], line["self_contrast_main"] + line["self_contrast_aux"]
        assert line["loss"] == pytest.approx((specific + agnostic) / 2, rel=1e-6)
    losses = [line["loss"] for line in lines]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


# Checkpoints


def test_checkpoints_rebuild_the_model(uninterrupted):
    model, saved = train.load_model(uninterrupted / "last.pth")
    other = fs.build_scnet(train.TinyBackbone(), hidden_channels=8, bins=(1.0, 0.5))
    fs.load_weights(other, uninterrupted / "last.pth")
    assert_identical(model.state_dict(), saved["model"])
    assert_identical(other.state_dict(), saved["model"])
    assert saved["protocol_hash"] == BENCHMARKS["synthetic"].__class__(**saved["data"]["protocol"]).hash()
    assert {"optimizer", "scaler", "rng", "best"} <= saved.keys()


def test_damaged_checkpoints_are_refused(uninterrupted, tmp_path, capsys):
    whole = (uninterrupted / "last.pth").read_bytes()
    (tmp_path / "last.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit):
        train.main(training(tmp_path, *SELECTING, "--resume"))
    assert "last.pth must be a checkpoint of train.py, but:" in capsys.readouterr().err
    fs.save_weights(torch.nn.Linear(1, 1), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"must be a checkpoint of train\.py, but: it lacks entries"):
        train.load_model(tmp_path / "other.pth")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(training(tmp_path, "--iterations", 5, "--optimizer", "sgd", "--lr", 1e30))
    assert "the loss must stay finite" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.pth"))


# Settings


@pytest.mark.parametrize(
    "options",
    [
        ["--amp", "bfloat16"],
        ["--amp", "float16"],
        ["--novel", "ignore"],
        ["--novel", "drop"],
        ["--shots", 2, "--batch", 2],
        ["--augmentation", "scnet", "--memory-gb", 0.1],
        ["--workers", 1],
    ],
)
def test_every_setting_trains(options, tmp_path):
    trained = train.main(training(tmp_path, "--iterations", 2, *options))
    assert trained == (tmp_path / "last.pth", None)
    assert all(torch.isfinite(value).all() for value in read(trained.checkpoint)["model"].values())


def test_processes_that_load_change_nothing(uninterrupted, tmp_path):
    train.main(training(tmp_path, *SELECTING, "--workers", 2))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", 3, "--accumulate", 2], "batch must be a multiple of processes times accumulation, 2, got 3"),
        (["--lr", 0], "lr must be positive, got 0.0"),
        (["--iterations", 0], "iterations must be at least 1, got 0"),
        (["--save-every", 0], "log_every and save_every must be at least 1, got 1 and 0"),
        (["--model", "depth=3"], "model must name fields of SCNetConfig"),
        (["--model", "hidden_channels=many"], "hidden_channels must be an integer, got str"),
        (["--model", "self_contrast_weight=2"], "self_contrast_weight must be from 0 to 1, got 2"),
        (["--backbone", "resnet18"], "backbone must be one of"),
        (["--protocol", "pfenet-coco"], "protocol must be one of synthetic's, got pfenet-coco"),
        (["--data", "photos"], "data must be none for synthetic, got 1"),
        (["--images", 3], "class_ids must be classes with at least 2 images"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main(training(tmp_path / "run", "--iterations", 1, *options))
    assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("train.py: ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.glob("run/*.pth"))


def test_all_classes_for_a_model_to_use(tmp_path, capsys):
    for name, classes in {"first": (1, 2, 3, 4), "second": (3, 4)}.items():
        items = {f"{name}{class_id}{number}": [class_id] for class_id in classes for number in range(2)}
        make_folder(tmp_path / name, items)
    folders = (str(tmp_path / "first"), str(tmp_path / "second"))
    protocol = replace(BENCHMARKS["folders"], train_size=33)
    model = fs.SCNetConfig(hidden_channels=8, bins=(1.0, 0.5))
    recipe = replace(RECIPES["synthetic"], pretrain=1, iterations=1, batch=2, model=model)
    data = DataSettings(benchmark="folders", data=folders, fold="all", protocol=protocol)
    trained = train.run(recipe, data, tmp_path / "run")
    said = capsys.readouterr().out
    assert "12 images, 4 classes" in said
    assert "novel classes  none" in said
    assert read(trained.checkpoint)["data"]["fold"] == "all"
    with pytest.raises(SystemExit):
        evaluate.main([str(trained.checkpoint)])
    assert capsys.readouterr().err == (
        "evaluate.py: fold must be 0 to 3 to test a model, as 'all' leaves no novel classes, got 'all'\n"
    )


def test_folders_that_are_not_there(tmp_path, capsys):
    for benchmark, missing in {"pascal": "JPEGImages", "coco": "instances_train2014.json", "folders": "JPEG"}.items():
        with pytest.raises(SystemExit):
            train.main([benchmark, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")])
        assert missing in capsys.readouterr().err
        with pytest.raises(SystemExit):
            train.main([benchmark, "--out", str(tmp_path / "run")])
        assert "folder for" in capsys.readouterr().err


def test_tensorboard_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit):
        train.main(training(tmp_path, "--iterations", 1, "--tensorboard"))
    assert "pip install tensorboard" in capsys.readouterr().err


def test_recipes_are_the_papers():
    assert RECIPES["pascal"] == PASCAL == Recipe()
    assert (PASCAL.lr, PASCAL.batch, PASCAL.epochs, PASCAL.optimizer) == (0.025, 4, 200, "sgd")
    assert (PASCAL.momentum, PASCAL.weight_decay, PASCAL.power) == (0.9, 1e-4, 0.9)
    assert PASCAL.model == fs.SCNetConfig()
    assert (COCO.lr, COCO.batch, COCO.epochs, COCO.scale) == (0.05, 8, 50, (0.8, 1.25))
    assert COCO.model.bins == (1.0, 0.5, 0.25, 0.125)
    for name in ("pascal", "coco"):
        data = DataSettings(benchmark=name, data=("somewhere",), protocol=BENCHMARKS[name])
        assert data.protocol.train_size == 473
    assert PASCAL.rate(1, 200 * 1000) == pytest.approx(0.02499989, abs=5e-9)
    assert PASCAL.rate(1000, 1000) == 0


def test_model_options():
    config = change_model(fs.SCNetConfig(), ["bins=1.0,0.5", "num_prototypes=0", "norm_stats=batch"])
    assert config == fs.SCNetConfig(bins=(1.0, 0.5), num_prototypes=0, norm_stats="batch")
