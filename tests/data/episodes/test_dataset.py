import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from _tiny_source import TinySource, three_classes
from fewshotseg.data.episodes.dataset import Episode, EpisodeDataset, episode_mask
from fewshotseg.data.episodes.lists import EpisodeSpec
from fewshotseg.data.transforms import padded_eval, pfenet_train


def dataset(**settings):
    settings = {"shots": 2, "length": 12, "seed": 3, "transform": pfenet_train(size=16), **settings}
    return EpisodeDataset(three_classes(), settings.pop("class_ids", [2, 5, 7]), **settings)


def assert_same(first, second):
    assert isinstance(first, Episode)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_an_episode_and_a_batch_have_the_documented_shapes_and_types():
    episode = dataset()[5]
    assert episode.support_images.shape == (2, 3, 16, 16)
    assert episode.support_images.dtype == torch.float32
    assert episode.support_masks.shape == (2, 16, 16)
    assert episode.support_masks.dtype == torch.int64
    assert episode.query_image.shape == (3, 16, 16)
    assert episode.query_mask.shape == (16, 16)
    assert type(episode.query_image) is type(episode.query_mask) is torch.Tensor
    assert episode.number == 5
    assert episode.class_id == dataset().spec(5).class_id
    batch = next(iter(DataLoader(dataset(), batch_size=3)))
    assert isinstance(batch, Episode)
    assert batch.support_images.shape == (3, 2, 3, 16, 16)
    assert batch.query_mask.shape == (3, 16, 16)
    assert batch.number.tolist() == [0, 1, 2]
    assert batch.class_id.tolist() == [dataset().spec(number).class_id for number in range(3)]


def test_specs_hold_different_images_of_the_class():
    episodes = dataset(length=300, min_area=20)
    areas = dict(zip(episodes.source.ids, episodes.source.class_areas, strict=True))
    for class_id, query, supports in episodes.specs:
        assert class_id in {2, 5, 7}
        assert len({query, *supports}) == 3
        assert all(areas[image_id].get(class_id, 0) >= 20 for image_id in (query, *supports))


def test_specs_are_the_same_for_ever():
    assert list(dataset(length=4).specs) == [
        EpisodeSpec(class_id=7, query="image-002", supports=("image-006", "image-010")),
        EpisodeSpec(class_id=7, query="image-006", supports=("image-018", "image-013")),
        EpisodeSpec(class_id=7, query="image-001", supports=("image-017", "image-022")),
        EpisodeSpec(class_id=2, query="image-003", supports=("image-010", "image-011")),
    ]


def test_length_order_and_repetition_of_classes_change_nothing():
    expected = list(dataset().specs)
    assert list(dataset(length=1000).specs[:12]) == expected
    assert list(dataset(class_ids=(7, 2, 5)).specs) == expected
    assert list(dataset(class_ids=iter([7, 2, 2, 5])).specs) == expected
    assert list(dataset(seed=4).specs) != expected


def test_more_shots_only_add_supports():
    for one, five in zip(dataset(shots=1).specs, dataset(shots=5).specs, strict=True):
        assert one == (five.class_id, five.query, five.supports[:1])


def test_classes_and_images_are_drawn_uniformly():
    source = TinySource([{1: 5}] * 4 + [{2: 5}] * 10 + [{1: 5, 2: 5}])
    specs = EpisodeDataset(source, [1, 2], length=4000).specs
    classes = Counter(spec.class_id for spec in specs)
    assert abs(classes[1] - 2000) < 5 * 1000**0.5
    for class_id, holders in ((1, 5), (2, 11)):
        for role in (lambda spec: spec.query, lambda spec: spec.supports[0]):
            counts = Counter(role(spec) for spec in specs if spec.class_id == class_id)
            assert len(counts) == holders
            expected = classes[class_id] / holders
            assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1, 2, 8])
def test_any_number_of_workers_gives_the_same_episodes(workers):
    expected = [dataset()[number] for number in range(12)]
    loader = DataLoader(dataset(), batch_size=None, num_workers=workers)
    for _ in range(2):
        for episode, same in zip(loader, expected, strict=True):
            assert_same(episode, same)


def test_any_order_and_any_random_state_give_the_same_episodes():
    episodes = dataset()
    expected = [episodes[number] for number in range(12)]
    torch.manual_seed(99)
    for number in [7, 0, 11, 7, 3]:
        assert_same(episodes[number], expected[number])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(episodes[5], expected[5])
    finally:
        torch.set_num_threads(threads)
    assert_same(episodes[np.int64(-1)], expected[11])


def test_a_pickled_data_set_gives_the_same_episodes():
    assert_same(pickle.loads(pickle.dumps(dataset()))[4], dataset()[4])


def test_random_states_stay_as_they_were():
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 (the global one)
    dataset()[0]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002 (the global one)
    assert random.getstate() == before[2]


def test_random_states_stay_when_a_transform_fails():
    def fail(image, mask):
        torch.rand(3)
        raise RuntimeError("broken")

    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        dataset(transform=fail)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_of_every_episode_is_transformed_by_its_own_draws():
    def draw(image, mask):
        return torch.rand(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64)

    drawn = []
    for seed in (0, 1):
        for episode in DataLoader(dataset(transform=draw, seed=seed), batch_size=None):
            drawn += [image.flatten().tolist() for image in (episode.query_image, *episode.support_images)]
    assert len({tuple(each) for each in drawn}) == 2 * 12 * 3


def test_supports_stand_in_the_order_of_the_spec():
    episodes = dataset(transform=padded_eval(16))
    episode, spec = episodes[2], episodes.spec(2)
    for image_id, image, mask in [
        (spec.query, episode.query_image, episode.query_mask),
        *zip(spec.supports, episode.support_images, episode.support_masks, strict=True),
    ]:
        expected_image, expected_mask = episodes.transform(*episodes.sample(image_id, spec.class_id))
        assert torch.equal(image, expected_image)
        assert torch.equal(mask, expected_mask)


def test_without_a_transform_images_become_padded_squares():
    episode = dataset(transform=None)[0]
    spec = dataset().spec(0)
    expected_image, expected_mask = padded_eval(473)(*dataset().sample(spec.query, spec.class_id))
    assert torch.equal(episode.query_image, expected_image)
    assert torch.equal(episode.query_mask, expected_mask)


def test_a_sample_has_the_original_image_and_the_mask_of_the_episode():
    source = TinySource([{3: 10, 4: 5, 9: 4}, {3: 10}])
    episodes = EpisodeDataset(source, [3], ignore_classes=[9, 8])
    image, mask = episodes.sample("image-000", 3)
    assert torch.equal(image, source.load(0).image)
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(mask, tv_tensors.Mask)
    assert mask.dtype == torch.int64
    flat = mask.flatten().tolist()
    assert flat == [1] * 10 + [0] * 5 + [255] * 4 + [0] * (12 * 16 - 20) + [255]
    assert EpisodeDataset(source, [3]).sample("image-000", 3).mask.eq(255).sum() == 1


def test_an_episode_cannot_ignore_its_class():
    with pytest.raises(ValueError, match=r"ignore_classes must not hold classes of episodes, got \[5\]"):
        dataset(ignore_classes=[1, 5])
    with pytest.raises(ValueError, match="ignore_classes must not hold classes of episodes"):
        EpisodeDataset.from_specs(three_classes(), dataset().specs, ignore_classes=[2])
    with pytest.raises(ValueError, match="ignore_classes must not hold the class of the episode, got 5"):
        episode_mask(torch.tensor([[5]]), 5, ignore_classes={5})


def test_a_class_with_too_few_images_is_refused_by_name_and_count():
    source = TinySource([{1: 9}] * 4 + [{2: 9}, {2: 3}])
    assert EpisodeDataset(source, [1, 2], min_area=3)[0].class_id in {1, 2}
    with pytest.raises(ValueError, match=r"at least 3 images .* got 2 \(class 2\): 2, 8 \(unknown\): 0"):
        EpisodeDataset(source, [1, 2, 8], shots=2)
    with pytest.raises(ValueError, match=r"of 4 pixels or more, got 2 \(class 2\): 1"):
        EpisodeDataset(source, [1, 2], min_area=4)
    with pytest.raises(ValueError, match="got no class"):
        EpisodeDataset(source, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"min_area": 0}, "min_area must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dataset(**settings)


def test_supports_of_several_sizes_are_refused():
    episodes = dataset(transform=lambda image, mask: (image[:, : int(image.sum()) % 5 + 1].float(), mask), length=40)
    with pytest.raises(
        ValueError, match=r"transform must resize all supports to one size, .* got \[\(3, .* in episode"
    ):
        list(map(episodes.__getitem__, range(40)))


def test_specs_may_be_put_in_place():
    episodes = dataset()
    episodes.specs = episodes.specs[5:7]
    assert len(episodes) == 2
    assert episodes.spec(-1) == dataset().spec(6)
    assert episodes[1].class_id == dataset().spec(6).class_id
    assert isinstance(EpisodeDataset.from_specs(three_classes(), episodes.specs), EpisodeDataset)


def test_a_list_without_an_episode_is_refused():
    with pytest.raises(ValueError, match="specs must be at least one episode, got none"):
        EpisodeDataset.from_specs(three_classes(), [])


def test_positions_out_of_range_are_refused():
    for number in (12, -13):
        with pytest.raises(IndexError):
            dataset()[number]
        with pytest.raises(IndexError):
            dataset().spec(number)
    assert len(list(dataset())) == 12


def test_sources_with_equal_ids_are_refused():
    source = three_classes()
    source.ids[4] = source.ids[9]
    with pytest.raises(ValueError, match="source must have different ids, got 1 repetitions"):
        EpisodeDataset(source, [2])
    with pytest.raises(ValueError, match="source must have different ids"):
        EpisodeDataset.from_specs(source, [])


def test_a_list_of_specs_gives_the_episodes_it_was_taken_from():
    drawn = dataset()
    listed = EpisodeDataset.from_specs(three_classes(), drawn.specs, transform=pfenet_train(size=16), seed=3)
    assert len(listed) == 12
    assert listed.spec(4) == drawn.spec(4)
    for number in range(12):
        assert_same(listed[number], drawn[number])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EpisodeSpec(2, "image-000", ()), "different supports and another query"),
        (EpisodeSpec(2, "image-000", ("image-000",)), "different supports and another query"),
        (EpisodeSpec(2, "image-000", ("image-003", "image-003")), "different supports and another query"),
        (EpisodeSpec(2, "image-002", ("elsewhere",)), "images of the source, got 'elsewhere' in episode 1"),
        (EpisodeSpec(2, "image-002", ("image-001",)), "hold their class, got 'image-001' without class 2"),
        (EpisodeSpec(2, "image-002", ("image-003", "image-006")), "equal numbers of supports, got 1 .* and 2"),
    ],
)
def test_broken_lists_are_refused(spec, message):
    good = EpisodeSpec(2, "image-002", ("image-003",))
    assert len(EpisodeDataset.from_specs(three_classes(), [good])) == 1
    with pytest.raises(ValueError, match=message):
        EpisodeDataset.from_specs(three_classes(), [good, spec])
