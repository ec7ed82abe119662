"""Odd surroundings change no result: default devices and dtypes, deterministic mode, tracing, vmap, threads, forks."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torchvision import tv_tensors

from _cases import CASES, as_tensors, compare
from _inputs import generator, label_masks, normal, subset
from _tiny_source import three_classes
from fewshotseg import (
    FewShotIoU,
    SelfContrastiveLoss,
    cosine_kmeans,
    masked_average_pool,
    prior_mask,
    segmentation_loss,
)
from fewshotseg.data import (
    EpisodeDataset,
    SyntheticSource,
    episode_mask,
    hsnet_eval,
    padded_eval,
    pfenet_episodes,
    pfenet_eval,
    pfenet_train,
    scnet_train,
)
from fewshotseg.data.episodes import transforming
from fewshotseg.data.geometry import ForegroundCrop, RandomScale
from fewshotseg.ops import restore_size
from fewshotseg.ops._random import uniform

EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def meta_by_default():
    """Nothing on this device has a value, so whatever is made there by mistake cannot be used."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def drawn(case, own_generator):
    """The results and gradients of a case with the same draws every time."""
    tensors = [t.clone().requires_grad_() if t.is_floating_point() else t for t in case.tensors]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        options = {"generator": torch.Generator("cpu").manual_seed(0)} if case.draws and own_generator else {}
        results = as_tensors(case.call(*tensors, **options))
    differentiable = [result.sum() for result in results if result.requires_grad]
    if differentiable:
        sum(differentiable).backward()
    return [*results, *(tensor.grad for tensor in tensors if tensor.grad is not None)]


EXPECTED = {(case.name, own): drawn(case, own) for case in CASES for own in (False, True)}


@EACH_CASE
@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("surroundings", ["meta_by_default", "float64_by_default", "deterministic"])
def test_operations_give_the_same(case, own_generator, surroundings, request):
    request.getfixturevalue(surroundings)
    for result, wanted in zip(drawn(case, own_generator), EXPECTED[case.name, own_generator], strict=True):
        assert_close(result, wanted, rtol=0, atol=0)


# Data


PREDICTIONS, TARGETS = normal(4, 2, 9, 7), label_masks(4, 9, 7)


def counted():
    metric = FewShotIoU([3, 8], class_names={3: "cat"})
    metric.update(PREDICTIONS, TARGETS, [3, 8, 8, 3])
    metric.update((PREDICTIONS[:, 1] > 0), TARGETS, 8)
    metric.update(PREDICTIONS, TARGETS, torch.full((4,), 8, device="cpu"))
    return metric.compute()


COUNTED = counted()
IMAGE = tv_tensors.Image(torch.randint(256, (3, 30, 40), generator=generator(0), dtype=torch.uint8))
MASK = tv_tensors.Mask(label_masks(30, 40))
PRESETS = {
    "pfenet_train": lambda: pfenet_train(24, rotate_p=1.0, blur_p=1.0),
    "scnet_train": lambda: scnet_train(24, rotate_p=1.0),
    "pfenet_eval": lambda: pfenet_eval(24),
    "padded_eval": lambda: padded_eval(24),
    "hsnet_eval": lambda: hsnet_eval(24),
    "RandomScale": lambda: RandomScale((0.5, 1.5)),
    "ForegroundCrop": lambda: ForegroundCrop(24, color=(0,)),
}


def moved(name):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return PRESETS[name]()(IMAGE, MASK)


MOVED = {name: moved(name) for name in PRESETS}
ITEMS = [EpisodeDataset(three_classes(), [2, 5], shots=2, length=4, transform=pfenet_train(16))[n] for n in range(4)]
MAPS = normal(1, 2, 9, 9)
RESTORED = restore_size(MAPS, (20, 13))


@pytest.mark.usefixtures("meta_by_default")
@pytest.mark.parametrize("name", PRESETS)
def test_transforms_on_another_default_device(name):
    for part, wanted in zip(moved(name), MOVED[name], strict=True):
        assert_close(part.as_subclass(torch.Tensor), wanted.as_subclass(torch.Tensor), rtol=0, atol=0)


@pytest.mark.parametrize("surroundings", ["meta_by_default", "float64_by_default", "deterministic"])
def test_the_metric_counts_the_same(surroundings, request):
    request.getfixturevalue(surroundings)
    assert counted() == COUNTED
    assert_close(restore_size(MAPS, (20, 13)), RESTORED, rtol=0, atol=0)


@pytest.mark.usefixtures("meta_by_default")
def test_episodes_on_another_default_device():
    with torch.device("cpu"):  # the source's own tensors are its own affair until it is asked for an image
        source = three_classes()
    episodes = EpisodeDataset(source, [2, 5], shots=2, length=4, transform=pfenet_train(16))
    for number in range(4):
        for part, wanted in zip(episodes[number][:4], ITEMS[number][:4], strict=True):
            assert part.device.type == "cpu"
            assert_close(part, wanted, rtol=0, atol=0)
    own = EpisodeDataset(source, [2], length=1, transform=lambda image, mask: (torch.rand(3), torch.zeros(1)))
    assert own[0].query_image.isfinite().all()
    assert EpisodeDataset(SyntheticSource(12), [1], length=1)[0].query_image.isfinite().all()
    assert pfenet_episodes(source, [2], min_area=1, length=3)[0].class_id == 2
    assert episode_mask(torch.ones(2, 2, dtype=torch.int64, device="cpu"), 1).device.type == "cpu"


@pytest.mark.parametrize("own_generator", [False, True])
def test_the_callers_random_state_stays_on_another_default_device(own_generator, request):
    request.getfixturevalue("meta_by_default")
    before = torch.default_generator.get_state()
    episodes = EpisodeDataset(three_classes(), [2, 5], length=4, transform=pfenet_train(16))
    for number in range(4):
        episodes[number]
    assert torch.equal(torch.default_generator.get_state(), before)


# Threads and forks


def test_threads_get_the_same_episodes():
    def transform(image, mask):
        parts = [torch.rand(2) for _ in range(20)]  # a little at a time, so that threads would mix
        return torch.cat(parts), torch.zeros(1, dtype=torch.int64)

    episodes = EpisodeDataset(three_classes(), [2, 5], length=40, transform=transform)
    expected = [episodes[number].query_image for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for image, wanted in zip(pool.map(lambda n: episodes[n].query_image, range(40)), expected, strict=True):
                assert torch.equal(image, wanted)


def test_a_transform_may_look_at_other_episodes():
    def mix(image, mask):
        other = plain[1].query_image
        return torch.rand(3) + other.sum(), torch.zeros(1, dtype=torch.int64)

    plain = EpisodeDataset(three_classes(), [2, 5], length=4, transform=padded_eval(16))
    mixed = EpisodeDataset(three_classes(), [2, 5], length=4, transform=mix)
    assert torch.equal(mixed[2].query_image, mixed[2].query_image)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_fork_while_another_thread_draws_does_not_hang():
    inside, leave = threading.Event(), threading.Event()

    def wait(image, mask):
        inside.set()
        leave.wait(60)
        return torch.zeros(1), torch.zeros(1, dtype=torch.int64)

    slow = EpisodeDataset(three_classes(), [2, 5], length=4, transform=wait)
    quick = EpisodeDataset(three_classes(), [2, 5], length=4, transform=padded_eval(16))
    thread = threading.Thread(target=lambda: slow[0])
    thread.start()
    try:
        assert inside.wait(60)
        child = multiprocessing.get_context("fork").Process(target=quick.__getitem__, args=(0,))
        child.start()
        child.join(60)
        hung = child.is_alive()
        if hung:
            child.kill()
    finally:
        leave.set()
        thread.join()
    assert not hung
    assert child.exitcode == 0
    assert os.getpid() in transforming._LOCKS


# Tracing and transforming

UNDER_VMAP = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "name", ["cosine_kmeans, valid", "prior_mask", "masked_average_pool, several", "segmentation_loss"]
)
def test_a_trace_holds_no_values(name):
    case = next(case for case in CASES if case.name == name)

    def call(*tensors):
        return tuple(as_tensors(case.call(*tensors)))

    traced = torch.jit.trace(call, case.tensors, check_trace=False)
    others = tuple(tensor.flip(-1) for tensor in case.tensors)
    for tensors in (case.tensors, others):
        for result, wanted in zip(traced(*tensors), call(*tensors), strict=True):
            assert_close(result, wanted, rtol=1e-5, atol=1e-6)


@UNDER_VMAP
def test_vmap_gives_what_a_loop_gives():
    features, masks, targets = normal(3, 2, 6, 5, 4), subset(3, 2, 5, 4), label_masks(3, 2, 9, 7)
    points = features.flatten(3).mT
    for call, tensors in (
        (masked_average_pool, (features, masks)),
        (lambda f, m: prior_mask(f, f[:, None], m[:, None]), (features, masks)),
        (lambda p: cosine_kmeans(p, p[:, :3]).centroids, (points,)),
        (lambda f, t: segmentation_loss(f[:, :2], t), (features, targets)),
    ):
        expected = torch.stack([call(*each) for each in zip(*tensors, strict=True)])
        assert_close(torch.vmap(call)(*tensors), expected)


PARTS = [
    (case, number)
    for case in CASES
    if not case.draws and len(case.tensors) > 1 and case.name not in {"correlation", "alignment_loss"}
    for number in range(len(case.tensors))
]


@UNDER_VMAP
@pytest.mark.parametrize(("case", "number"), PARTS, ids=lambda each: each if isinstance(each, int) else each.name)
def test_vmap_over_one_argument_alone_gives_what_a_loop_gives(case, number):
    several = torch.stack([case.tensors[number], case.tensors[number].flip(-1)])

    def call(tensor):
        return tuple(as_tensors(case.call(*case.tensors[:number], tensor, *case.tensors[number + 1 :])))

    expected = [torch.stack(parts) for parts in zip(*map(call, several), strict=True)]
    for found, wanted in zip(torch.vmap(call)(several), expected, strict=True):
        assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@UNDER_VMAP
def test_gradients_for_each_sample():
    features, targets = normal(3, 1, 6, 5, 4), label_masks(3, 1, 9, 7)

    def loss(features, targets):
        return SelfContrastiveLoss(1)(features, features, targets, compare)

    each = torch.vmap(torch.func.grad(loss), randomness="different")(features, targets)
    for number in range(3):
        leaf = features[number].clone().requires_grad_()
        loss(leaf, targets[number]).backward()
        assert_close(each[number], leaf.grad)


# Accelerators


class Calls(TorchFunctionMode):
    """Remembers which functions of torch are called, and how."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append((function.__name__, kwargs or {}))
        return function(*args, **(kwargs or {}))


def test_numbers_of_a_cpu_generator_are_sent_without_a_wait():
    with Calls() as calls:
        sent = uniform((2, 3), torch.device("meta"), generator(0))
    assert sent.device.type == "meta"
    assert [options for name, options in calls.seen if name == "to"] == [{"non_blocking": True}]


def test_the_loss_is_summed_deterministically_on_an_accelerator():
    with Calls() as calls:
        segmentation_loss(torch.zeros(1, 2, 3, 3, device="meta"), torch.zeros(1, 9, 9, device="meta").long())
    assert [options["reduction"] for name, options in calls.seen if name == "cross_entropy"] == ["none"]
    logits, target = normal(2, 2, 5, 4), label_masks(2, 9, 7)
    expected = torch.nn.functional.cross_entropy(
        torch.nn.functional.interpolate(logits, (9, 7), mode="bilinear", align_corners=True), target, ignore_index=255
    )
    assert_close(segmentation_loss(logits, target), expected)


def test_uniform_numbers_do_not_depend_on_the_default_dtype(float64_by_default):
    expected = torch.rand(2, 3, dtype=torch.float32, generator=generator(4))
    assert torch.equal(uniform((2, 3), torch.device("cpu"), generator(4)), expected)
    assert np.isclose(float(expected[0, 0]), float(uniform((2, 3), torch.device("cpu"), generator(4))[0, 0]))
