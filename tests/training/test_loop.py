"""Training: exact after any interruption, and the same on one process or two."""

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _processes import run_together, start
from _training import (
    HALF,
    MODEL,
    SELECTING,
    assert_identical,
    assert_same_run,
    log_of,
    reached,
    read,
    run_command,
    run_share,
    share_numbered_buffers,
    signalled,
    trained,
    training,
    wait,
)
from fewshotseg.cli import main
from fewshotseg.models import load_model
from fewshotseg.training import BENCHMARKS, RECIPES, DataSettings, StopSignals, run, session
from fewshotseg.training.stopping import Stopped

# Killed and resumed


@pytest.mark.parametrize("moments", [(0, 2, 6), (1, 4, 7)])
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bits(moments, uninterrupted, tmp_path):
    out, draw, exit_codes = tmp_path / "run", random.Random(0), []
    for iteration in moments:
        process = start(run_command, training(out, *SELECTING, "--resume"))
        wait(lambda done=iteration: reached(out, starts=len(exit_codes) + 1, iteration=done), process)
        process.join(draw.uniform(0, 0.03))
        process.kill()
        process.join()
        exit_codes.append(process.exitcode)
    assert exit_codes[0] == -signal.SIGKILL
    trained(out, *SELECTING, "--resume")
    assert_same_run(out, uninterrupted)


@pytest.mark.parametrize(
    ("save", "found"),
    [
        (1, {}),
        (5, {"last.pth": 4, "previous.pth": 3, "best.pth": 2}),
        (6, {"last.pth": 4, "previous.pth": 3, "best.pth": 6}),
    ],
)
def test_killed_while_it_writes_a_checkpoint(save, found, uninterrupted, tmp_path):
    process = start(run_command, training(tmp_path, *SELECTING), stuck_at_save=save)
    assert wait(lambda: half_a_checkpoint_in(tmp_path), process)
    process.kill()
    process.join()
    whole = [path for path in tmp_path.glob("*.pth") if not path.name.startswith(".")]
    assert {path.name: read(path)["origin"]["iteration"] for path in whole} == found
    trained(tmp_path, *SELECTING, "--resume")
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
    trained(tmp_path, *SELECTING, "--resume")
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_stays_as_it_is(uninterrupted, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in uninterrupted.glob("*.pth")}
    trained(uninterrupted, *SELECTING, "--resume")
    best = read(uninterrupted / "last.pth")["training"]["best"]
    assert f"trained: {uninterrupted / 'best.pth'}, mIoU {100 * best:.1f}" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in uninterrupted.glob("*.pth")} == before


# Stopped and resumed


@pytest.mark.parametrize(("number", "iteration"), [(signal.SIGTERM, 1), (signal.SIGINT, 3), (signal.SIGTERM, 6)])
def test_stopped_by_a_signal_it_saves_and_goes_on_with_the_same_bits(number, iteration, uninterrupted, tmp_path):
    out, said = tmp_path / "run", tmp_path / "stderr"
    process = start(run_command, training(out, *SELECTING), said=said)
    assert wait(lambda: reached(out, starts=1, iteration=iteration), process)
    assert signalled(process, number) == 128 + number
    saved = read(out / "last.pth")["training"]["iteration"]
    assert 8 > saved >= iteration
    assert said.read_text() == (
        f"fewshotseg train: stopped by {number.name} after iteration {saved} of 8, saved in {out / 'last.pth'}: "
        "the same command with --resume continues from there\n"
    )
    trained(out, *SELECTING, "--resume")
    assert_same_run(out, uninterrupted)


def test_stopped_in_the_last_validation_it_saves_and_goes_on_with_the_same_bits(uninterrupted, monkeypatch, tmp_path):
    score, calls = session.score, []

    def stopped(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == 4:
            raise Stopped(signal.SIGTERM)
        return score(*arguments, **settings)

    monkeypatch.setattr(session, "score", stopped)
    assert main(training(tmp_path, *SELECTING)) == 128 + signal.SIGTERM
    saved = read(tmp_path / "last.pth")["training"]
    assert (saved["iteration"], saved["validated"]) == (8, 6)
    trained(tmp_path, *SELECTING, "--resume")
    assert_same_run(tmp_path, uninterrupted)


def test_a_signal_in_the_last_iteration_stops_nothing(tmp_path):
    model = fs.SCNetConfig(backbone="tiny", hidden_channels=8, bins=(1.0, 0.5))
    recipe = replace(RECIPES["synthetic"], pretrain=1, iterations=1, batch=2, model=model)
    protocol = replace(BENCHMARKS["synthetic"], train_size=49, test_size=49)
    stop = StopSignals()
    stop.received = signal.SIGTERM
    data = DataSettings(benchmark="synthetic", images=90, protocol=protocol)
    assert run(recipe, data, tmp_path, device="cpu", stop=stop).checkpoint == tmp_path / "last.pth"


def test_what_a_model_remembers_is_saved_and_goes_on_with_the_same_bits(tmp_path):
    options = [*SELECTING, "--model", *MODEL, "learned_points=True"]
    trained(tmp_path / "whole", *options)
    process = start(run_command, training(tmp_path / "run", *options))
    assert wait(lambda: reached(tmp_path / "run", starts=1, iteration=3), process)
    signalled(process, signal.SIGTERM)
    trained(tmp_path / "run", *options, "--resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert load_model(tmp_path / "run" / "last.pth").point_map.clutter.any()


def test_processes_that_load_do_not_die_of_the_signal(uninterrupted, tmp_path, capfd):
    command = [sys.executable, "-m", "fewshotseg", *training(tmp_path, *SELECTING, "--workers", 2)]
    process = subprocess.Popen(command, start_new_session=True, text=True, stderr=subprocess.PIPE)
    process.is_alive = lambda: process.poll() is None
    assert wait(lambda: reached(tmp_path, starts=1, iteration=1), process)
    os.killpg(process.pid, signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert len(error.splitlines()) == 1
    trained(tmp_path, *SELECTING, "--workers", 2, "--resume")
    assert_same_run(tmp_path, uninterrupted)


# One process or several


def test_two_processes_train_as_one_with_accumulation(uninterrupted, tmp_path):
    arguments = training(tmp_path / "two", *SELECTING)
    arguments[arguments.index("--accumulate") + 1] = "1"
    run_together(run_share, 2, str(tmp_path / "store"), arguments)
    alone, together = log_of(uninterrupted), log_of(tmp_path / "two")
    assert [line.keys() for line in together] == [line.keys() for line in alone]
    for one, two in zip(alone, together, strict=True):
        assert_close(two, one, rtol=1e-3 if "validation" in one else 1e-5, atol=0)
    one, two = read(uninterrupted / "last.pth"), read(tmp_path / "two" / "last.pth")
    assert_close(two["head"], one["head"], rtol=1e-4, atol=1e-5)
    assert two["origin"]["recipe"] == one["origin"]["recipe"]


def test_processes_validate_with_the_buffers_that_are_saved(tmp_path):
    run_together(share_numbered_buffers, 2, str(tmp_path / "store"), str(tmp_path))
    for rank in range(2):
        buffers = torch.load(tmp_path / f"{rank}.pt")
        assert len(buffers) == 3
        assert all((buffer == 1).all() for buffer in buffers.values())


def test_two_processes_stop_together_when_one_is_asked(tmp_path):
    arguments = training(tmp_path / "run", "--iterations", 1000, "--accumulate", 2)
    store, said = str(tmp_path / "store"), tmp_path / "stderr"
    first, second = (start(run_share, rank, 2, store, arguments, said=said) for rank in range(2))
    assert wait(lambda: reached(tmp_path / "run", starts=1, iteration=2), first)
    assert signalled(second, signal.SIGTERM) == 128 + signal.SIGTERM
    first.join(60)
    assert first.exitcode == 128 + signal.SIGTERM
    saved = read(tmp_path / "run" / "last.pth")["training"]["iteration"]
    (sentence,) = said.read_text().splitlines()
    assert f"after iteration {saved} of 1000" in sentence


def test_torchrun_starts_it(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "fewshotseg",
    ]
    arguments = training(tmp_path / "run", "--iterations", 2)
    process = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    assert "4 episodes = 2 processes x 1 accumulated x 2" in process.stdout
    assert process.stdout.count("protocol") == 1
    assert "FutureWarning" not in process.stderr
    assert read(tmp_path / "run" / "last.pth")["origin"]["iteration"] == 2


# What it leaves


def test_log_lines(uninterrupted):
    lines = log_of(uninterrupted, starts=True)
    first = lines.pop(0)
    assert first["event"] == "start"
    assert first["recipe"]["lr"] == 0.01
    assert first["data"]["protocol"]["train_size"] == 49
    assert first["versions"].keys() == {"fewshotseg", "torch", "torchvision", "numpy", "python"}
    losses = [line for line in lines if "loss" in line]
    assert [line["iteration"] for line in losses] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["lr"] for line in losses] == [0.01 * (1 - t / 8) ** 0.9 for t in range(1, 9)]
    scores = {line["iteration"]: line["validation"] for line in lines if "validation" in line}
    assert list(scores) == [2, 4, 6, 8]
    assert 0 < scores[8] < scores[6] == max(scores.values())
    assert read(uninterrupted / "best.pth")["origin"]["iteration"] == 6
    assert read(uninterrupted / "last.pth")["training"]["best"] == scores[6]


def test_losses_are_those_of_the_paper_and_fall(tmp_path):
    trained(tmp_path, "--iterations", 40, "--lr", 0.003)
    lines = log_of(tmp_path)
    for line in lines:
        specific, agnostic = line["main"] + line["aux"], line["self_contrast_main"] + line["self_contrast_aux"]
        assert line["loss"] == pytest.approx((specific + agnostic) / 2, rel=1e-6)
    losses = [line["loss"] for line in lines]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_checkpoint_is_a_model_that_knows_its_settings(uninterrupted):
    saved, model = read(uninterrupted / "last.pth"), load_model(uninterrupted / "last.pth")
    assert not model.training
    assert (model.config.backbone, model.config.image_size, model.config.hidden_channels) == ("tiny", 49, 8)
    assert_identical({key: value for key, value in model.state_dict().items() if key in saved["head"]}, saved["head"])
    assert saved["training"].keys() == {"optimizer", "scaler", "iteration", "validated", "best", "rng"}
    assert DataSettings.from_dict(saved["origin"]["data"]).protocol.hash() == saved["origin"]["protocol_hash"]
    assert read(uninterrupted / "best.pth")["training"] is None


def test_processes_that_load_change_nothing(uninterrupted, tmp_path):
    trained(tmp_path, *SELECTING, "--workers", 2)
    assert_same_run(tmp_path, uninterrupted)


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
        ["--model", "hidden_channels=8", "bins=1.0,0.5", "norm_stats=batch"],
        ["--optimizer", "sgd", "--augmentation", "pfenet", "--scale", 0.8, 1.2],
    ],
)
def test_every_setting_trains(options, tmp_path):
    head = read(trained(tmp_path, "--iterations", 2, *options))["head"]
    assert all(torch.isfinite(value).all() for value in head.values())


def test_the_backbone_runs_in_its_faster_form_and_from_memory(tmp_path, monkeypatch):
    fuse, fused = fs.SCNet.fuse, []
    monkeypatch.setattr(fs.SCNet, "fuse", lambda model: fused.append(model) or fuse(model))

    class Counting(fs.FeatureMemory):
        calls = 0

        def __call__(self, *arguments):
            Counting.calls += 1
            return super().__call__(*arguments)

    protocol = replace(BENCHMARKS["synthetic"], train_size=49, test_size=49)
    data = DataSettings(benchmark="synthetic", images=60, protocol=protocol)
    recipe = replace(RECIPES["synthetic"], pretrain=1, iterations=3, memory_gb=0.1)
    for name, memory in {"shared": Counting(2**24), "own": None}.items():
        seen = []
        fused.clear()

        def watch(model, seen=seen):
            assert fused == [model]
            seen.append(model.memory)
            return {"seen": 1.0}

        run(recipe, data, tmp_path / name, device="cpu", memory=memory, watch=watch, watch_every=2)
        assert all(isinstance(found, fs.FeatureMemory) for found in seen)
        assert (seen[0] is memory) == (memory is not None)
        assert [line["iteration"] for line in log_of(tmp_path / name) if "watched" in line] == [2, 3]
    assert Counting.calls > 0


def test_batch_statistics_reach_the_checkpoint_and_frozen_ones_do_not_change(tmp_path):
    key = "shallow.1.running_mean"
    means = []
    for name in ("frozen", "batch"):
        means.append([])
        for iterations in (1, 3):
            out, model = tmp_path / f"{name}{iterations}", ["hidden_channels=8", f"norm_stats={name}"]
            means[-1].append(read(trained(out, "--iterations", iterations, "--model", *model))["backbone"][key])
    assert torch.equal(*means[0])
    assert not torch.equal(*means[1])
