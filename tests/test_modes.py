"""Whatever runs a model for its answers leaves every module's own mode as it was: after errors and in threads too."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from _evaluation_process import CLASSES, episodes
from _models import tiny
from fewshotseg import _inference
from fewshotseg._inference import inference

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[10:40, 10:40] = True


def all_training(model):
    model.train()


def all_evaluating(model):
    model.eval()


def frozen_in_training(model):
    """As when only the classifier trains."""
    model.train()
    model.reduce_query.eval()
    model.head.refine[0].eval()


def dropout_in_evaluation(model):
    """As for Monte Carlo dropout."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.train()


def norms_in_training(model):
    """As when their statistics are measured anew."""
    model.eval()
    model.backbone.deep[1].train()


def only_the_outermost(model):
    model.eval()
    model.training = True


def at_random(model):
    draw = random.Random(0)
    for module in model.modules():
        module.training = draw.random() < 0.5


MODES = [
    all_training,
    all_evaluating,
    frozen_in_training,
    dropout_in_evaluation,
    norms_in_training,
    only_the_outermost,
    at_random,
]


def flags(model):
    return {name: module.training for name, module in model.named_modules()}


def predict(model):
    predictor = fs.FewShotPredictor(model, size=65)
    predictor.set_support(PHOTO, MASK)
    return predictor.predict(PHOTO).probability


def set_support(model):
    fs.FewShotPredictor(model, size=65).set_support({"a": PHOTO, "b": [PHOTO, PHOTO]}, {"a": MASK, "b": [MASK, MASK]})


def evaluate(model):
    return fs.evaluate(model, episodes(), fs.FewShotIoU(CLASSES))


@pytest.mark.parametrize("run", [predict, set_support, evaluate])
@pytest.mark.parametrize("mode", MODES)
def test_every_modules_own_mode_stays(run, mode):
    model = tiny()
    mode(model)
    before = flags(model)
    run(model)
    assert flags(model) == before


@pytest.mark.parametrize(
    ("run", "stage"),
    [
        (predict, "backbone"),
        (predict, "head"),
        (set_support, "reduce_support"),
        (evaluate, "backbone"),
        (evaluate, "reduce_query"),
        (evaluate, "head"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_it_stays_when_the_model_fails(run, stage, mode):
    model = tiny()

    def fail(module, inputs):
        raise ZeroDivisionError

    first = next(part for part in getattr(model, stage).modules() if isinstance(part, nn.Conv2d))
    for part in (first, getattr(model, stage)):
        part.register_forward_pre_hook(fail)
    mode(model)
    before = flags(model)
    with pytest.raises(ZeroDivisionError):
        run(model)
    assert flags(model) == before


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_those_of_evaluation_mode(mode):
    model = tiny()
    mode(model)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert_close(predict(model), predict(tiny().eval()))
    assert evaluate(model) == evaluate(tiny().eval())
    assert_close(dict(model.named_buffers()), statistics, rtol=0, atol=0)


@pytest.mark.parametrize("run", [predict, evaluate])
def test_gradients_are_on_again_afterwards(run):
    run(tiny())
    assert torch.is_grad_enabled()
    with torch.no_grad():
        run(tiny())
        assert not torch.is_grad_enabled()


def test_a_model_of_ones_own_keeps_the_modes_of_its_parts():
    class Pixelwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)

        def encode_support(self, images, masks):
            return (masks[:, :1],)

        def merge_shots(self, shots):
            return shots[0]

        def encode_query(self, images):
            return (images,)

        def segment(self, support, query):
            return self.norm(self.conv(query[0]))

    model = Pixelwise().train()
    model.norm.eval()
    evaluate(model)
    assert flags(model) == {"": True, "conv": True, "norm": False}


def slow_down(module, model, seen):
    """Have a module take its time, so that threads meet inside of it, and note the modes that it saw there."""
    draw = random.Random(0)

    def wait(*_):
        time.sleep(0.001 + 0.004 * draw.random())
        seen.add(any(part.training for part in model.modules()))

    module.register_forward_pre_hook(wait)


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("mode", [all_training, frozen_in_training, dropout_in_evaluation])
@pytest.mark.parametrize("shared", ["predictor", "model"])
def test_threads_get_the_answers_of_one_and_keep_the_mode(count, mode, shared):
    """Eight photographs on one predictor; or two predictors of one model."""
    photos = [np.roll(PHOTO, 7 * number, axis=1) for number in range(8)]
    expected = fs.FewShotPredictor(tiny().eval(), size=65)
    expected.set_support(PHOTO, MASK)

    model, seen = tiny(), set()
    mode(model)
    for module in (model.head, model.reduce_query):
        slow_down(module, model, seen)
    before = flags(model)
    predictors = [fs.FewShotPredictor(model, size=65) for _ in range(1 if shared == "predictor" else 2)]
    for predictor in predictors:
        predictor.set_support(PHOTO, MASK)
    seen.clear()

    start = threading.Barrier(count)

    def work(thread):
        start.wait(timeout=30)
        numbers = [thread % 8, (thread + 3) % 8]
        return [(number, predictors[thread % len(predictors)].predict(photos[number])) for number in numbers]

    with ThreadPoolExecutor(count) as pool:
        answers = [answer for part in pool.map(work, range(count)) for answer in part]
    for number, found in answers:
        assert_close(found.probability, expected.predict(photos[number]).probability, atol=1e-5, rtol=0)
    assert seen == {False}
    assert flags(model) == before


def test_threads_keep_the_mode_when_some_of_them_fail():
    model = tiny().train()
    predictor = fs.FewShotPredictor(model, size=65)
    predictor.set_support(PHOTO, MASK)
    expected, before = predictor.predict(PHOTO).probability, flags(model)
    failing = threading.local()

    def fail_or_wait(module, inputs):
        time.sleep(0.002)
        if getattr(failing, "now", False):
            raise ZeroDivisionError

    model.head.register_forward_pre_hook(fail_or_wait)

    def work(thread):
        failing.now = thread % 2 == 1
        if not failing.now:
            return predictor.predict(PHOTO).probability
        with pytest.raises(ZeroDivisionError):
            predictor.predict(PHOTO)
        return expected

    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(work, range(12)):
            assert_close(found, expected, atol=1e-5, rtol=0)
    assert flags(model) == before


def test_a_prediction_in_the_middle_of_an_evaluation():
    """In a thread of its own, so that two that wait for each other fail the test."""
    model = tiny().train()
    model.head.refine[0].eval()
    predictor = fs.FewShotPredictor(model, size=65)
    predictor.set_support(PHOTO, MASK)
    expected, before = predictor.predict(PHOTO).probability, flags(model)
    answers = []

    def predicting(numbers):
        for number in numbers:
            answers.append(predictor.predict(PHOTO).probability)
            yield number

    def run():
        answers.append(fs.evaluate(model, episodes(), fs.FewShotIoU(CLASSES), progress=predicting))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    *found, report = answers
    assert report == evaluate(tiny().eval())
    assert_close(torch.stack(found), expected.expand(12, -1, -1), atol=1e-5, rtol=0)
    assert flags(model) == before


# The context itself


class Shared(nn.Module):
    """A root with a part of its own and one that it shares."""

    def __init__(self, shared):
        super().__init__()
        self.own, self.shared = nn.Dropout(), shared


def test_it_nests_and_roots_may_share_parts():
    shared = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2)).train()
    one, two = Shared(shared), Shared(shared).eval()
    one.train()
    shared[1].eval()
    before = flags(one), flags(two)
    with inference(one):
        assert not any(flags(one).values())
        assert flags(two)["shared"] is False
        with inference(two):
            with inference(one):
                assert not torch.is_grad_enabled()
            assert not any(flags(one).values())
        assert not any(flags(one).values())
    assert (flags(one), flags(two)) == before
    assert torch.is_grad_enabled()


def test_the_last_thread_gives_the_modes_back():
    shared = nn.Dropout().train()
    one, two = Shared(shared), Shared(shared)
    entered, leave = threading.Event(), threading.Event()

    def run():
        with inference(two):
            entered.set()
            leave.wait(timeout=30)

    thread = threading.Thread(target=run)
    with inference(one):
        thread.start()
        assert entered.wait(timeout=30)
    assert flags(one) == {"": True, "own": True, "shared": False}
    assert not any(flags(two).values())
    leave.set()
    thread.join(timeout=30)
    assert all({**flags(one), **flags(two)}.values())


def test_parts_that_come_or_go_meanwhile():
    root = Shared(nn.Dropout()).train()
    gone = root.own
    with inference(root):
        root.own = nn.Dropout()
        assert root.own.training
    assert gone.training
    assert all(flags(root).values())
    assert _inference._running == {}


def test_an_error_within_gives_the_modes_back():
    root = Shared(nn.Dropout()).train()
    with pytest.raises(ZeroDivisionError), inference(root), inference(root.shared):
        raise ZeroDivisionError
    assert all(flags(root).values())
    assert _inference._running == {}
