"""Evaluation gives what a plain loop over episodes gives, with or without its cache, on one process or two."""

import functools
import threading

import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _evaluation_process import CLASSES, episodes, evaluate_share
from _models import tiny
from _processes import run_together
from _tiny_source import TinySource
from fewshotseg.data import EpisodeDataset, padded_eval
from fewshotseg.evaluation.reading import ReadAhead
from fewshotseg.models.fast.lru import LeastRecentlyUsed
from fewshotseg.models.segmentation_model import at_threshold
from fewshotseg.ops import restore_size


def original_share(dataset, episode):
    """The share of the stored mask that is the episode's class."""
    mask = dataset.sample(dataset.spec(episode.number).query, episode.class_id).mask
    return torch.tensor([(mask == 1).double().mean()])


def plain_loop(model, dataset):
    """Every episode from scratch, in one forward."""
    metric = fs.FewShotIoU(CLASSES)
    model.eval()
    with torch.no_grad():
        for episode in map(dataset.__getitem__, range(len(dataset))):
            logits = model(episode.support_images[None], episode.support_masks[None], episode.query_image[None]).logits
            metric.update(
                logits, episode.query_mask[None], episode.class_id, object_shares=original_share(dataset, episode)
            )
    return metric.compute()


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("cache_bytes", [0, 30_000, 2**30])
def test_report_is_that_of_a_plain_loop_whatever_the_cache(shots, cache_bytes):
    model = tiny()
    report = fs.evaluate(model, episodes(shots), fs.FewShotIoU(CLASSES), cache_bytes=cache_bytes)
    assert report == plain_loop(tiny(), episodes(shots))
    assert report.episodes == 12
    assert model.training


def test_the_metric_is_reset_first():
    metric = fs.FewShotIoU(CLASSES)
    first = fs.evaluate(tiny(), episodes(), metric)
    assert fs.evaluate(tiny(), episodes(), metric) == first


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("scoring", ["resized", "original"])
@pytest.mark.parametrize("cache_bytes", [0, 30_000, 2**30])
def test_batches_change_nothing(shots, scoring, cache_bytes):
    options = {"scoring": scoring, "cache_bytes": cache_bytes}
    expected = fs.evaluate(tiny(), episodes(shots), fs.FewShotIoU(CLASSES), scoring=scoring)
    for batch_size in (2, 5, 50):
        found = fs.evaluate(tiny(), episodes(shots), fs.FewShotIoU(CLASSES), batch_size=batch_size, **options)
        assert found.episodes_per_class == expected.episodes_per_class
        assert_close(found.miou, expected.miou, atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_every_image_is_encoded_once(monkeypatch, batch_size):
    model, dataset = tiny(), episodes(shots=2)
    calls = {"query": [], "support": [], "both": []}
    for role, seen in calls.items():
        method = getattr(model, f"encode_{role}")
        monkeypatch.setattr(
            model, f"encode_{role}", lambda *args, seen=seen, method=method: seen.append(len(args[0])) or method(*args)
        )
    decoded, sample = [], dataset.sample
    monkeypatch.setattr(dataset, "sample", lambda *key: decoded.append(key) or sample(*key))
    fs.evaluate(model, dataset, fs.FewShotIoU(CLASSES), batch_size=batch_size)
    specs = [dataset.spec(number) for number in range(len(dataset))]
    queries = {(spec.query, spec.class_id) for spec in specs}
    supports = {(image, spec.class_id) for spec in specs for image in spec.supports}
    assert sum(calls["both"]) == len(queries & supports) > 0
    assert sum(calls["query"]) == len(queries - supports)
    assert sum(calls["support"]) == len(supports - queries)
    assert len(decoded) < len(specs) * 2


def test_encodings_in_half_precision_are_near():
    expected = fs.evaluate(tiny(), episodes(shots=2), fs.FewShotIoU(CLASSES))
    found = fs.evaluate(tiny(), episodes(shots=2), fs.FewShotIoU(CLASSES), cache_dtype=torch.float16)
    assert_close(found.miou, expected.miou, atol=5e-3, rtol=0)


def test_half_precision_keeps_more():
    encodings = []
    for dtype in (None, torch.float16):
        model, made = tiny(), []
        mid = model.backbone.mid
        model.backbone.mid = lambda images, mid=mid, made=made: made.append("mid") or mid(images)
        fs.evaluate(model, episodes(shots=2), fs.FewShotIoU(CLASSES), cache_bytes=30_000, cache_dtype=dtype)
        encodings.append(made.count("mid"))
    assert encodings[1] < encodings[0]


def test_scoring_at_the_original_size():
    model, dataset = tiny(), episodes()
    report = fs.evaluate(model, dataset, fs.FewShotIoU(CLASSES), scoring="original")
    metric = fs.FewShotIoU(CLASSES)
    model.eval()
    with torch.no_grad():
        for number in range(len(dataset)):
            episode, spec = dataset[number], dataset.spec(number)
            logits = model(episode.support_images[None], episode.support_masks[None], episode.query_image[None]).logits
            mask = dataset.sample(spec.query, spec.class_id).mask
            metric.update(restore_size(logits, (48, 64)), mask[None].as_subclass(torch.Tensor), spec.class_id)
    assert report == metric.compute()
    assert report != fs.evaluate(model, dataset, fs.FewShotIoU(CLASSES))
    with pytest.raises(ValueError, match="scoring must be one of 'resized', 'original', got 'native'"):
        fs.evaluate(model, dataset, fs.FewShotIoU(CLASSES), scoring="native")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        fs.evaluate(model, dataset, fs.FewShotIoU(CLASSES), batch_size=0)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_sizes_are_those_of_the_original_masks_wherever_pixels_are_counted(cache_bytes):
    # Image 0 covers 1 of 192 pixels, image 1 more than 2 % and image 2 a third; padding makes all shares smaller.
    source = TinySource([{1: 1}, {1: 4}, {1: 64}] * 4)
    dataset = EpisodeDataset(source, [1], length=40, transform=padded_eval(48))
    queries = [int(dataset.spec(number).query[-3:]) % 3 for number in range(40)]
    for scoring in ("resized", "original"):
        report = fs.evaluate(tiny(), dataset, fs.FewShotIoU([1]), scoring=scoring, cache_bytes=cache_bytes)
        assert [found.episodes for found in report.by_size.values()] == [queries.count(kind) for kind in range(3)]


def test_any_staged_model_is_evaluated():
    class Copier(torch.nn.Module):
        """Answers the support's mask; nothing in it is learned."""

        def encode_support(self, images, masks):
            return (masks[:, 0] == 1,)

        def merge_shots(self, shots):
            return shots[0]

        def encode_query(self, images):
            return (images,)

        def segment(self, support, query):
            return torch.stack([~support[0], support[0]], dim=1).float()

    report = fs.evaluate(Copier(), episodes(), fs.FewShotIoU(CLASSES))
    assert 0 < report.miou < 1
    assert fs.evaluate(Copier(), episodes(), fs.FewShotIoU(CLASSES), batch_size=5) == report


def test_progress_wraps_the_numbers():
    seen = []

    def progress(numbers):
        for number in numbers:
            seen.append(number)
            yield number

    fs.evaluate(tiny(), episodes(), fs.FewShotIoU(CLASSES), progress=progress)
    assert sorted(seen) == list(range(12))
    specs = [episodes().spec(number) for number in seen]
    assert [spec.class_id for spec in specs] == sorted(spec.class_id for spec in specs)


def test_cache_forgets_the_longest_unused():
    cache, made = LeastRecentlyUsed(2 * 4), []

    def encode(key):
        made.append(key)
        return (torch.zeros(1),)

    for key in "abacab":
        cache.get(key, functools.partial(encode, key))
    assert "".join(made) == "abcb"


def test_two_processes_with_uneven_shares_give_the_report_of_one(tmp_path):
    run_together(evaluate_share, 2, str(tmp_path))
    expected = fs.evaluate(tiny(), episodes(length=11), fs.FewShotIoU(CLASSES))
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == expected.to_dict()


def test_five_copies_are_worth_one_shot():
    model = tiny().eval()
    episode = episodes()[0]
    images, masks = episode.support_images[None], episode.support_masks[None]
    with torch.no_grad():
        one = model.encode_support(images, masks)
        query = model.encode_query(episode.query_image[None])
        assert_close(model.segment(model.merge_shots([one] * 5), query), model.segment(one, query))


# Thresholds


def counted(model, threshold):
    """What is above the threshold is foreground, by the probabilities."""
    metric, dataset = fs.FewShotIoU(CLASSES), episodes()
    model.eval()
    with torch.no_grad():
        for episode in map(dataset.__getitem__, range(len(dataset))):
            logits = model(episode.support_images[None], episode.support_masks[None], episode.query_image[None]).logits
            found = logits.softmax(dim=1)[:, 1] > threshold
            logits = torch.stack([~found, found], dim=1).float()
            metric.update(
                logits, episode.query_mask[None], episode.class_id, object_shares=original_share(dataset, episode)
            )
    return metric.compute()


def middle(share):
    """A threshold that so many of the probabilities of ``tiny`` are below."""
    model, episode = tiny().eval(), episodes()[0]
    with torch.no_grad():
        logits = model(episode.support_images[None], episode.support_masks[None], episode.query_image[None]).logits
    return round(float(logits.softmax(dim=1)[:, 1].quantile(share)), 4)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_pixel_counts_from_the_threshold_on(share):
    threshold = middle(share)
    expected = counted(tiny(), threshold)
    assert expected != counted(tiny(), 0.5)
    assert fs.evaluate(tiny(), episodes(), fs.FewShotIoU(CLASSES), threshold=threshold) == expected
    for scoring in ("resized", "original"):
        by_config = fs.evaluate(tiny(threshold=threshold), episodes(), fs.FewShotIoU(CLASSES), scoring=scoring)
        by_hand = fs.evaluate(tiny(), episodes(), fs.FewShotIoU(CLASSES), scoring=scoring, threshold=threshold)
        assert by_config == by_hand
    assert fs.evaluate(tiny(threshold=threshold), episodes(), fs.FewShotIoU(CLASSES), threshold=0.5) == counted(
        tiny(), 0.5
    )


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 0.35, 0.5, 0.9, 1 - 1e-6])
def test_logits_at_a_threshold_are_its_probabilities(threshold):
    torch.manual_seed(0)
    logits = 8 * torch.randn(2, 2, 40, 40, dtype=torch.float64)
    found = at_threshold(logits, threshold).argmax(dim=1) == 1
    assert torch.equal(found, logits.softmax(dim=1)[:, 1] > threshold)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (1, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        ("0.5", TypeError),
        (True, TypeError),
    ],
)
def test_thresholds_are_checked(value, error):
    with pytest.raises(error, match="threshold must be"):
        fs.evaluate(tiny(), episodes(), fs.FewShotIoU(CLASSES), threshold=value)


@pytest.mark.parametrize("cache_device", [None, "cpu"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("scoring", ["resized", "original"])
def test_threads_that_read_ahead_change_nothing(monkeypatch, scoring, workers, cache_device):
    options = {"scoring": scoring, "batch_size": 2}
    expected = fs.evaluate(tiny(), episodes(3), fs.FewShotIoU(CLASSES), **options)
    dataset = episodes(3)
    decoded, sample = [], dataset.sample
    monkeypatch.setattr(dataset, "sample", lambda *key: decoded.append(threading.current_thread()) or sample(*key))
    options |= {"workers": workers, "cache_device": cache_device}
    assert fs.evaluate(tiny(), dataset, fs.FewShotIoU(CLASSES), **options) == expected
    ahead = [thread for thread in decoded if thread is not threading.main_thread()]
    assert len(ahead) > len(decoded) / 3
    assert not any(thread.is_alive() for thread in ahead)


def test_what_is_read_ahead_is_not_read_twice():
    read = []
    ahead = ReadAhead(lambda key: read.append(key) or -key, workers=2, room=1)
    ahead.prepare(range(20))
    assert [ahead(key) for key in range(20)] == [-key for key in range(20)]
    assert sorted(read) == list(range(20))
    assert ahead(30) == -30
    ahead.close()


def test_little_is_kept_of_what_was_read():
    read = []
    ahead = ReadAhead(lambda key: read.append(key) or key, workers=0, room=2)
    for key in (1, 2, 1, 3, 1, 2):
        assert ahead(key) == key
    assert read == [1, 2, 3, 2]


def test_an_image_that_cannot_be_read_ends_an_evaluation_with_its_own_error(monkeypatch):
    dataset, sample = episodes(1), episodes(1).sample

    def broken(image, class_id):
        if image == dataset.spec(7).query:
            raise ValueError("that image")
        return sample(image, class_id)

    monkeypatch.setattr(dataset, "sample", broken)
    for workers in (0, 2):
        with pytest.raises(ValueError, match="that image"):
            fs.evaluate(tiny(), dataset, fs.FewShotIoU(CLASSES), workers=workers)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_a_batch_is_counted_at_once(monkeypatch):
    metric, calls = fs.FewShotIoU(CLASSES), []
    update = metric.update
    monkeypatch.setattr(
        metric, "update", lambda *args, **options: calls.append(len(args[0])) or update(*args, **options)
    )
    fs.evaluate(tiny(), episodes(1), metric, batch_size=5)
    assert calls == [5, 5, 2]
