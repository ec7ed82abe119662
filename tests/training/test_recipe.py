"""Recipes: the papers' numbers, and what cannot be."""

import math

import pytest
from torch import nn

import fewshotseg as fs
from fewshotseg.training.benchmark import BENCHMARKS, DataSettings
from fewshotseg.training.recipe import COCO, PASCAL, RECIPES, Recipe


def test_recipes_are_the_papers():
    assert RECIPES["pascal"] == PASCAL == Recipe()
    assert (PASCAL.lr, PASCAL.batch, PASCAL.epochs, PASCAL.optimizer) == (0.025, 4, 200, "sgd")
    assert (PASCAL.momentum, PASCAL.weight_decay, PASCAL.power) == (0.9, 1e-4, 0.9)
    assert PASCAL.model == fs.SCNetConfig(backbone="resnet50")
    assert (COCO.lr, COCO.batch, COCO.epochs, COCO.scale) == (0.05, 8, 50, (0.8, 1.25))
    assert COCO.model.bins == (1.0, 0.5, 0.25, 0.125)
    for name in ("pascal", "coco"):
        data = DataSettings(benchmark=name, data=("somewhere",), protocol=BENCHMARKS[name])
        assert data.protocol.train_size == 473


def test_the_learning_rate_falls_to_zero():
    assert PASCAL.learning_rate_at(1, 200 * 1000) == pytest.approx(0.02499989, abs=5e-9)
    assert PASCAL.learning_rate_at(500, 1000) == pytest.approx(0.025 * 0.5**0.9)
    assert PASCAL.learning_rate_at(1000, 1000) == 0


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adamw", "AdamW")])
def test_the_optimizer_takes_what_is_trained(name, kind):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = Recipe(optimizer=name, weight_decay=0.5).make_optimizer(model)
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__ == kind
    assert [id(each) for each in group["params"]] == [id(each) for each in model[1].parameters()]
    assert (group["lr"], group["weight_decay"]) == (0.025, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 3, "micro_batches": 2}, "batch must be a multiple of processes times accumulation, 2, got 3"),
        ({"lr": 0}, "lr must be above 0, got 0"),
        ({"lr": math.nan}, "lr must be finite and at least 0, got nan"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"hard_share": -0.5}, "hard_share must be from 0 to 1, got -0.5"),
        ({"memory_gb": math.inf}, "memory_gb must be finite and at least 0, got inf"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"augmentation": "mirrored"}, "augmentation must be one of 'pfenet', .*, got 'mirrored'"),
        ({"start": "compare"}, "start must be one of 'random', 'comparing', got 'compare'"),
        ({"optimizer": "adam"}, "optimizer must be one of 'sgd', 'adamw', got 'adam'"),
        ({"amp": "bf16"}, "amp must be one of 'none', 'bfloat16', 'float16', got 'bf16'"),
        ({"select": "best"}, "select must be one of 'last', 'held-out', 'novel', got 'best'"),
    ],
)
def test_what_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


@pytest.mark.parametrize(("name", "value"), [("shots", 1.5), ("batch", "4"), ("windows", 1), ("lr", "0.1")])
def test_types_that_cannot_be(name, value):
    with pytest.raises(TypeError, match=f"{name} must be "):
        Recipe(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmark": "voc"}, "benchmark must be one of 'pascal', .*, got 'voc'"),
        ({"benchmark": "pascal", "data": ("VOC2012",), "fold": 7}, "fold must be one of 0, 1, 2, 3, 'all', got 7"),
    ],
)
def test_data_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(protocol=BENCHMARKS["pascal"], **settings)
