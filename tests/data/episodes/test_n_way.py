from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from _tiny_source import TinySource, three_classes
from fewshotseg.data import (
    EpisodeDataset,
    NWayDataset,
    NWayEpisode,
    NWaySpec,
    Sample,
    SyntheticSource,
    padded_eval,
    pfenet_train,
    scnet_train,
)


def dataset(**settings):
    settings = {"ways": 2, "shots": 3, "length": 30, "seed": 3, "transform": pfenet_train(size=16), **settings}
    return NWayDataset(three_classes(), settings.pop("class_ids", [2, 5, 7]), **settings)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_an_episode_and_a_batch_have_the_documented_shapes_and_types():
    episode = dataset()[5]
    assert isinstance(episode, NWayEpisode)
    assert episode.support_images.shape == (2, 3, 3, 16, 16)
    assert episode.support_masks.shape == (2, 3, 16, 16)
    assert episode.query_image.shape == (3, 16, 16)
    assert episode.query_mask.shape == (16, 16)
    assert episode.query_mask.dtype == episode.support_masks.dtype == episode.class_ids.dtype == torch.int64
    assert tuple(episode.class_ids.tolist()) == dataset().spec(5).class_ids
    batch = next(iter(DataLoader(dataset(), batch_size=4)))
    assert isinstance(batch, NWayEpisode)
    assert batch.support_images.shape == (4, 2, 3, 3, 16, 16)
    assert batch.class_ids.shape == (4, 2)
    assert batch.number.tolist() == [0, 1, 2, 3]


def test_specs_are_the_same_for_ever():
    assert list(dataset(length=3, shots=1).specs) == SPECS
    assert dataset(length=99, shots=1).specs[:3] == SPECS


SPECS = [
    NWaySpec((7, 2), "image-006", (("image-005",), ("image-023",))),
    NWaySpec((7, 2), "image-011", (("image-022",), ("image-010",))),
    NWaySpec((7, 2), "image-022", (("image-006",), ("image-023",))),
]


def test_specs_hold_images_of_their_classes():
    episodes = dataset(length=300, ways=3, min_area=20)
    areas = dict(zip(three_classes().ids, three_classes().class_areas, strict=True))
    for class_ids, query, supports in episodes.specs:
        assert sorted(class_ids) == [2, 5, 7]
        assert any(areas[query].get(class_id, 0) >= 20 for class_id in class_ids)
        for class_id, names in zip(class_ids, supports, strict=True):
            assert len({query, *names}) == 4
            assert all(areas[name][class_id] >= 20 for name in names)


def test_classes_and_queries_are_drawn_uniformly():
    source = TinySource([{1: 5}] * 4 + [{2: 5}] * 10 + [{3: 5}] * 6)
    specs = list(NWayDataset(source, [1, 2, 3], ways=2, length=4000).specs)
    pairs = Counter(spec.class_ids for spec in specs)
    assert len(pairs) == 6
    assert all(abs(count - 4000 / 6) < 5 * (4000 / 6) ** 0.5 for count in pairs.values())
    shown = Counter(next(iter(source.class_areas[source.ids.index(spec.query)])) for spec in specs)
    assert all(abs(count - 4000 / 3) < 5 * (4000 / 3) ** 0.5 for count in shown.values())
    queries = Counter(spec.query for spec in specs)
    assert len(queries) == 20
    supports = Counter(name for spec in specs for names in spec.supports for name in names)
    assert all(abs(supports[f"image-{i:03}"] - 8000 / 3 / 4) < 5 * (8000 / 12) ** 0.5 for i in range(4))


def test_more_shots_of_one_way_only_add_supports_and_seeds_differ():
    assert [s[:2] for s in dataset(shots=1).specs] == [s[:2] for s in dataset(shots=5).specs]
    for one, five in zip(dataset(shots=1).specs, dataset(shots=5).specs, strict=True):
        assert one.supports[0] == five.supports[0][:1]
    assert list(dataset().specs) != list(dataset(seed=4).specs)
    assert list(dataset(class_ids=[7, 2, 5, 2]).specs) == list(dataset().specs)
    assert list(dataset(class_ids=iter([7, 2, 5])).specs) == list(dataset().specs)


def test_one_way_is_the_episode_data_set():
    one = dataset(ways=1, shots=2)
    plain = EpisodeDataset(three_classes(), [2, 5, 7], shots=2, length=30, seed=3, transform=pfenet_train(size=16))
    for number in range(30):
        episode, expected = one[number], plain[number]
        assert_same(
            (episode.support_images[0], episode.support_masks[0], *episode[2:4], episode.class_ids[0]), expected[:5]
        )


def test_masks_are_those_of_the_classes_pixel_by_pixel():
    source = SyntheticSource(40, num_classes=6, size=(48, 64), border=1)
    episodes = NWayDataset(source, [1, 2, 3, 4], ways=3, length=60, transform=padded_eval(64), ignore_classes=[6])
    several = others = 0
    for number in range(60):
        episode, spec = episodes[number], episodes.spec(number)
        stored = source.load(source.ids.index(spec.query)).mask
        expected = torch.zeros_like(stored)
        expected[(stored == 255) | (stored == 6)] = 255
        for label, class_id in enumerate(spec.class_ids, start=1):
            expected[stored == class_id] = label
        assert torch.equal(episode.query_mask[:48], expected)
        assert (episode.query_mask[48:] == 255).all()
        several += len(set(episode.query_mask.unique().tolist()) - {0, 255}) > 1
        for way, class_id in enumerate(spec.class_ids):
            stored = source.load(source.ids.index(spec.supports[way][0])).mask
            expected = (stored == class_id).long()
            for void in (255, 6, *(other for other in spec.class_ids if other != class_id)):
                expected[stored == void] = 255
            assert torch.equal(episode.support_masks[way, 0, :48], expected)
            others += bool(torch.isin(stored, torch.tensor([c for c in spec.class_ids if c != class_id])).any())
    assert several > 10
    assert others > 10


class TwoCorners(TinySource):
    """Class 1 in one place and class 2 in another, so far apart that few crops hold both."""

    def load(self, index):
        image, mask = super().load(index)
        mask = torch.zeros_like(mask)
        mask[2:4, 2:4], mask[12:14, 12:14] = 1, 2
        return Sample(image, tv_tensors.Mask(mask))


def test_crops_keep_the_objects_of_all_ways():
    source = TwoCorners([{1: 4, 2: 4}] * 5, size=(20, 20))
    transform = scnet_train(13, keep=1, rotate_p=0, max_redraws=1000)
    for episode in map(NWayDataset(source, [1, 2], ways=2, length=20, transform=transform).__getitem__, range(20)):
        assert [int((episode.query_mask == label).sum()) for label in (1, 2)] == [4, 4]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_any_order_and_workers_give_the_same_episodes():
    expected = [dataset()[number] for number in range(30)]
    episodes = dataset()
    torch.manual_seed(99)
    for number in [7, 0, 29, 7]:
        assert_same(episodes[number], expected[number])
    before = torch.get_rng_state()
    assert_same(episodes[-1], expected[29])
    assert torch.equal(torch.get_rng_state(), before)
    for episode, same in zip(DataLoader(episodes, batch_size=None, num_workers=2), expected, strict=True):
        assert_same(episode, same)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"ways": 4}, ValueError, "class_ids must be at least as many classes as ways, 4, got 3"),
        ({"ways": 0}, ValueError, "ways must be at least 1, got 0"),
        ({"ways": 255}, ValueError, "ways must be at most 254, got 255"),
        ({"ways": "2"}, TypeError, "ways must be an integer"),
        ({"shots": 30}, ValueError, "class_ids must be classes with at least 31 images"),
        ({"length": 0}, ValueError, "length must be at least 1"),
        ({"class_ids": 3}, TypeError, "class_ids must be a list of classes, got int"),
        ({"class_ids": "257"}, TypeError, "class_ids must be a list of classes, got str"),
        ({"ignore_classes": [2]}, ValueError, "ignore_classes must not hold classes of episodes"),
        ({"transform": 3}, TypeError, "transform must be a function"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        dataset(**settings)


def test_positions_out_of_range_are_refused():
    for number in (30, -31):
        with pytest.raises(IndexError):
            dataset()[number]
        with pytest.raises(IndexError):
            dataset().spec(number)
