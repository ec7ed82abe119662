"""The folder of a run: what is damaged, absurd, of another run or does not fit on the disk."""

import errno
import os
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

import fewshotseg as fs
from _training import MODEL, SELECTING, assert_same_run, log_of, read, trained, training
from fewshotseg.cli import main
from fewshotseg.models import save_model, weight_files
from fewshotseg.training import run_folder
from fewshotseg.training.run_folder import RunFolder, read_checkpoint


@pytest.fixture
def copied(uninterrupted, tmp_path):
    """A copy of the whole run."""
    return shutil.copytree(uninterrupted, tmp_path / "copy")


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(capsys, out, *options):
    """The sentence with which a command is refused; nothing in the folder changes."""
    before = content_of(out)
    capsys.readouterr()
    assert main(training(out, *options)) == 2
    assert content_of(out) == before
    (said,) = capsys.readouterr().err.splitlines()
    return said.removeprefix("fewshotseg train: ")


# Which run


def test_only_the_same_run_is_resumed(copied, capsys):
    assert "out must be a new folder, or one to resume with --resume" in refused(capsys, copied, *SELECTING)
    for options, message in {
        ("--lr", 0.1): "lr must be 0.01 as in the run to resume, got 0.1",
        ("--model", *MODEL, "self_contrast_weight=1", "num_prototypes=5"): "num_prototypes must be 3 as in",
        ("--fold", 1): "fold must be 0 as in",
        ("--episodes", 7): "protocol must be 'synthetic with train_size 49",
    }.items():
        assert message in refused(capsys, copied, *SELECTING, "--resume", *options)


def test_a_model_that_is_no_checkpoint_is_not_resumed(tmp_path, capsys):
    model = fs.build_scnet("tiny", hidden_channels=8, bins=(1.0,))
    save_model(model, tmp_path / "last.pth")
    assert "last.pth must be a checkpoint of a training run" in refused(capsys, tmp_path, "--resume")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pth")


# Damage


@pytest.mark.parametrize("damage", ["half", "empty", "byte", "text"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(damage, uninterrupted, copied, capsys):
    whole = (copied / "last.pth").read_bytes()
    assert read(copied / "previous.pth")["training"]["iteration"] == 6
    turned = bytearray(whole)
    turned[len(whole) // 2] ^= 1
    (copied / "last.pth").write_bytes(
        {"half": whole[: len(whole) // 2], "empty": b"", "byte": turned, "text": b"no"}[damage]
    )
    trained(copied, *SELECTING, "--resume")
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{copied / 'last.pth'} must be ")
    assert said.endswith(f"continuing from {copied / 'previous.pth'} at iteration 6")
    assert_same_run(copied, uninterrupted)


def test_without_one_before_it_damage_is_said(copied, capsys):
    (copied / "previous.pth").unlink()
    (copied / "last.pth").write_bytes(b"")
    said = refused(capsys, copied, *SELECTING, "--resume")
    assert said.startswith(f"{copied / 'last.pth'} must be")
    assert said.endswith("start again in a new folder")


def test_where_files_cannot_have_two_names_the_one_before_is_a_copy(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "link", raising(OSError(errno.EPERM, "Operation not permitted")))
    trained(tmp_path, "--iterations", 3, "--save-every", 1)
    saved = [read(tmp_path / name)["training"]["iteration"] for name in ("previous.pth", "last.pth")]
    assert saved == [2, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"last.pth", "previous.pth", "log.jsonl"}


# Absurd fields


def a_state(training):
    return next(iter(training["optimizer"]["state"].values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda training: training.update(iteration=10**9), "iteration of last.pth must be at most 8"),
        (lambda training: training.update(iteration=-3), "iteration must be a whole number"),
        (lambda training: training.update(iteration=True), "iteration must be a whole number"),
        (lambda training: training.update(iteration="8"), "iteration must be a whole number"),
        (lambda training: training.pop("iteration"), "iteration must be a whole number"),
        (lambda training: training.update(validated=9), "validated must be a whole number"),
        (lambda training: training.update(best=1.5), "best must be an mIoU from 0 to 1 or None, got 1.5"),
        (lambda training: training.update(best=float("nan")), "best must be an mIoU"),
        (lambda training: training.update(rng=torch.zeros(3)), "rng must be the state"),
        (lambda training: training.update(scaler=3), "scaler must have the settings"),
        (lambda training: training.pop("optimizer"), "optimizer must have the settings of the recipe"),
        (lambda training: training["optimizer"]["param_groups"][0].update(weight_decay=9.0), "optimizer must have"),
        (lambda training: training["optimizer"]["state"].update({999: {}}), "optimizer must have"),
        (lambda training: a_state(training).update(exp_avg=torch.zeros(2, 3)), "optimizer must have"),
        (lambda training: a_state(training)["exp_avg"].fill_(float("inf")), "optimizer must have"),
        (lambda training: a_state(training).update(step="many"), "optimizer must have"),
    ],
)
def test_absurd_fields_are_refused(change, message, copied, capsys):
    content = read(copied / "last.pth")
    change(content["training"])
    torch.save(content, copied / "last.pth")
    assert message in refused(capsys, copied, *SELECTING, "--resume")


def test_lines_of_the_log_that_are_none_are_dropped(copied, uninterrupted):
    with (copied / "log.jsonl").open("a") as file:
        file.write('[]\nnot JSON\n{"iteration": null}\n{"iteration": 99}\n')
    trained(copied, *SELECTING, "--resume")
    assert log_of(copied) == log_of(uninterrupted)


# A full disk


def raising(error):
    def function(*_, **__):
        raise error

    return function


def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(monkeypatch, tmp_path, capsys):
    trained(tmp_path / "a", "--iterations", 1)
    save, calls = torch.save, []

    def save_while_there_is_room(content, file):
        calls.append(file.name)
        if len(calls) > 1:
            file.write(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(weight_files.torch, "save", save_while_there_is_room)
    capsys.readouterr()
    assert main(training(tmp_path / "b", "--iterations", 3, "--save-every", 1)) == 2
    assert capsys.readouterr().err == (
        f"fewshotseg train: {tmp_path / 'b' / 'last.pth'} could not be written: no space left on the device; the "
        "previous checkpoint is kept\n"
    )
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"last.pth", "log.jsonl"}
    assert read(tmp_path / "b" / "last.pth")["training"]["iteration"] == 1
    trained(tmp_path / "b", "--iterations", 3, "--save-every", 1, "--resume")


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "log.jsonl").mkdir()
    assert main(training(tmp_path, "--iterations", 1)) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "log.jsonl" in said


def test_out_must_be_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(training(out, "--iterations", 1)) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / "file") in said


# TensorBoard


def test_tensorboard_gets_the_numbers_of_the_log(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained(tmp_path, "--iterations", 2, "--tensorboard")
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    logged = [line["loss"] for line in log_of(tmp_path)]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    trained(tmp_path, "--iterations", 2)
    steps = []

    def writer(_, purge_step):
        steps.append(purge_step)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", writer)
    with RunFolder(tmp_path, writes=True, resume=True) as folder:
        folder.start(tensorboard=True)
    assert steps == [3]  # iteration 2 stays


def test_tensorboard_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(training(tmp_path, "--iterations", 1, "--tensorboard")) == 2
    assert 'pip install "fewshotseg[train]"' in capsys.readouterr().err


def test_no_file_is_left_half_written(tmp_path):
    (tmp_path / ".last.pth.abc.part").write_bytes(b"half")
    (tmp_path / ".next.pth").write_bytes(b"half")
    (tmp_path / ".log.jsonl.part").write_bytes(b"half")
    trained(tmp_path, "--iterations", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"last.pth", run_folder.LOG}
