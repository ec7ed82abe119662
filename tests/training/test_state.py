"""What a run begins with."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv2d, relu

import fewshotseg as fs
from _folders import make_folder
from _training import assert_identical, read, trained
from fewshotseg.cli import main
from fewshotseg.models import load_model
from fewshotseg.training import BENCHMARKS, RECIPES, DataSettings, open_benchmark, run
from fewshotseg.training.state import initial_state, start_comparing

DATA = DataSettings(
    benchmark="synthetic", images=60, protocol=replace(BENCHMARKS["synthetic"], train_size=49, test_size=65)
)


def test_a_new_model_has_the_settings_of_the_recipe_and_the_protocols_size():
    model = fs.SCNetConfig(backbone="tiny", hidden_channels=8, bins=(1.0,), reducer_dropout=0.25, threshold=0.4)
    recipe = replace(RECIPES["synthetic"], model=model, pretrain=1, memory_gb=0.5)
    state = initial_state(recipe, DATA, open_benchmark(DATA), None, torch.device("cpu"))
    config = state.model.config
    assert replace(config, mean=None, std=None) == replace(model, image_size=65)
    assert [module.p for module in state.model.modules() if isinstance(module, torch.nn.Dropout2d)][:2] == [0.25, 0.25]
    assert state.model.memory is not None
    assert (state.iteration, state.validated, state.best) == (0, 0, None)


def test_the_same_seed_begins_with_the_same_weights_whatever_was_drawn_before():
    recipe, benchmark = replace(RECIPES["synthetic"], pretrain=2), open_benchmark(DATA)
    states = []
    for seed in (1, 1, 2):
        torch.rand(3)
        state = initial_state(replace(recipe, seed=seed), DATA, benchmark, None, torch.device("cpu"))
        states.append(torch.cat([value.flatten().double() for value in state.model.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_state_is_restored(optimizer):
    recipe = replace(RECIPES["synthetic"], pretrain=1, amp="float16", optimizer=optimizer)
    benchmark = open_benchmark(DATA)
    state, other = (initial_state(recipe, DATA, benchmark, None, torch.device("cpu")) for _ in range(2))
    state.iteration, state.best = 3, 0.5
    for parameter in state.model.head.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.scaler.scale(torch.ones(()))  # makes the scale
    state.optimizer.step()
    state.scaler.update(2.0**7)
    saved = state.to_dict()
    torch.rand(3)
    other.restore(saved)
    assert_identical(other.to_dict(), saved)
    assert saved["scaler"]["scale"] == 2.0**7
    assert saved["optimizer"]["state"]


def test_the_head_starts_with_differences():
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0, 0.5)).eval()
    before = model.head.merge[0][0].weight.clone()
    start_comparing(model)
    maps = torch.rand(1, 128, 5, 5)
    torch.testing.assert_close(model.reduce_support(maps), model.reduce_query(maps), rtol=0, atol=0)
    query, prototype, prior = torch.rand(1, 8, 5, 5), torch.rand(1, 8, 1, 1), torch.zeros(1, 1, 5, 5)
    merged = relu(conv2d(torch.cat([query, prototype.expand_as(query), prior], dim=1), model.head.merge[0][0].weight))
    expected = relu(conv2d(query - prototype, before[:, :8]))
    torch.testing.assert_close(merged, expected)


def test_training_with_hard_episodes_from_such_a_start(tmp_path):
    options = ["--iterations", 3, "--hard-share", 0.5, "--start", "comparing", "--reducer-dropout", 0]
    one, other = (read(trained(tmp_path / out, *options))["head"] for out in ("a", "b"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    origin, model = read(tmp_path / "a" / "last.pth")["origin"], load_model(tmp_path / "a" / "last.pth")
    assert origin["recipe"]["hard_share"] == 0.5
    assert model.config.reducer_dropout == 0
    assert not torch.equal(model.reduce_query[0].weight, model.reduce_support[0].weight)


def test_all_classes_for_a_model_to_use(tmp_path, capsys):
    for name, classes in {"first": (1, 2, 3, 4), "second": (3, 4)}.items():
        items = {f"{name}{class_id}{number}": [class_id] for class_id in classes for number in range(2)}
        make_folder(tmp_path / name, items)
    folders = (str(tmp_path / "first"), str(tmp_path / "second"))
    protocol = replace(BENCHMARKS["folders"], train_size=33, test_size=33)
    model = fs.SCNetConfig(backbone="tiny", hidden_channels=8, bins=(1.0, 0.5))
    recipe = replace(RECIPES["synthetic"], pretrain=1, iterations=1, batch=2, model=model)
    data = DataSettings(benchmark="folders", data=folders, fold="all", protocol=protocol)
    checkpoint = run(recipe, data, tmp_path / "run").checkpoint
    said = capsys.readouterr().out
    assert "12 images, 4 classes" in said
    assert "novel classes  none" in said
    assert read(checkpoint)["origin"]["data"]["fold"] == "all"
    assert main(["evaluate", str(checkpoint)]) == 2
    assert capsys.readouterr().err.startswith(
        "fewshotseg evaluate: fold must be 0 to 3 to test a model, as 'all' leaves no class to test on, got 'all'"
    )
