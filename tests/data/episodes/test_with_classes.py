import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from _tiny_source import three_classes
from fewshotseg.data import (
    EpisodeDataset,
    EpisodesWithClasses,
    EpisodeWithClasses,
    Sample,
    SyntheticSource,
    labels_of_classes,
    padded_eval,
    pfenet_train,
    scnet_train,
)


def dataset(transform, source=None, **settings):
    source = SyntheticSource(30, num_classes=6, size=(60, 80), border=1) if source is None else source
    return EpisodeDataset(source, [1, 2, 3], shots=2, length=40, transform=transform, **settings)


@pytest.mark.parametrize("transform", [pfenet_train(size=49), padded_eval(49)], ids=["training", "evaluation"])
def test_all_else_is_the_episode_bit_for_bit(transform):
    plain = dataset(transform)
    for number, episode in zip(range(40), EpisodesWithClasses(plain), strict=False):
        assert isinstance(episode, EpisodeWithClasses)
        for part, expected in zip(episode[:6], plain[number], strict=True):
            assert torch.equal(torch.as_tensor(part), torch.as_tensor(expected))
        assert episode.query_classes.dtype == torch.int64
        assert torch.equal(episode.query_classes == episode.class_id, episode.query_mask == 1)
        assert torch.equal(episode.query_classes == 255, episode.query_mask == 255)


class Painted:
    """A source whose images show the class ids themselves as the brightness of their pixels."""

    def __init__(self):
        self.drawn = SyntheticSource(30, num_classes=6, size=(60, 80), border=1)
        self.class_names, self.ids = self.drawn.class_names, self.drawn.ids
        self.class_areas = self.drawn.class_areas

    def load(self, index):
        mask = self.drawn.load(index).mask
        return Sample(tv_tensors.Image(mask.expand(3, -1, -1).to(torch.uint8)), mask)


def test_classes_lie_where_the_image_shows_them_after_crops_that_look_for_the_foreground():
    # The crop is smaller than most objects' images, so that it is often drawn again.
    transform = scnet_train(41, rotate_p=0, keep=0.99, mean=(0, 0, 0), std=(1, 1, 1))
    redrawn = 0
    for episode in map(EpisodesWithClasses(dataset(transform, Painted())).__getitem__, range(40)):
        shown = (episode.query_image[0] * 255).round().long()
        assert torch.equal(episode.query_classes, shown)
        redrawn += len(episode.query_classes.unique()) > 2
    assert redrawn > 10  # other classes than the episode's are there to be told


def test_rotated_and_scaled_classes_are_those_of_the_class_mask_itself():
    # With keep 0 a crop depends on no mask, so the class mask can be given to the transform directly.
    transform = pfenet_train(size=49, keep=0, rotate_p=1)
    direct = dataset(lambda image, mask: transform(image, masks.pop()), Painted())
    episodes = dataset(transform, Painted())
    for number in range(10):
        spec = episodes.spec(number)
        masks = [
            episodes.source.load(episodes.source.ids.index(name)).mask for name in (*spec.supports[::-1], spec.query)
        ]
        expected = direct[number].query_mask
        assert torch.equal(EpisodesWithClasses(episodes)[number].query_classes, expected)


def test_ignored_classes_are_void():
    plain = dataset(padded_eval(49), ignore_classes=[5, 6])
    episodes, all_classes = EpisodesWithClasses(plain), EpisodesWithClasses(dataset(padded_eval(49)))
    seen = 0
    for number in range(40):
        ignored = torch.isin(all_classes[number].query_classes, torch.tensor([5, 6, 255]))
        assert torch.equal(episodes[number].query_classes == 255, ignored)
        assert torch.equal(episodes[number].query_mask == 255, ignored)
        seen += int(ignored.sum() > (all_classes[number].query_classes == 255).sum())
    assert seen > 5


def test_batches_and_labels_of_a_classifier():
    episodes = EpisodesWithClasses(dataset(pfenet_train(size=49)))
    batch = next(iter(DataLoader(episodes, batch_size=4)))
    assert isinstance(batch, EpisodeWithClasses)
    labels = labels_of_classes(batch.query_classes, [4, 2])
    assert labels.shape == (4, 49, 49)
    assert torch.equal(labels == 1, batch.query_classes == 4)
    assert torch.equal(labels == 2, batch.query_classes == 2)


def test_class_ids_of_more_than_a_byte_are_kept():
    source = three_classes()
    source.class_areas = [{class_id * 100: area for class_id, area in areas.items()} for areas in source.class_areas]
    source.class_names = {200: "a", 500: "b", 700: "c"}
    episodes = EpisodesWithClasses(EpisodeDataset(source, [200, 500, 700], length=20, transform=padded_eval(16)))
    assert set().union(*(set(episodes[n].query_classes.unique().tolist()) for n in range(20))) == {
        0,
        200,
        255,
        500,
        700,
    }


def test_a_transform_that_looks_at_the_background_is_refused():
    def crop(image, mask):
        return image[:, : 1 + int((mask == 0).sum()) % 7].float(), mask[: 1 + int((mask == 0).sum()) % 7]

    episodes = EpisodesWithClasses(EpisodeDataset(SyntheticSource(30, num_classes=6, size=64), [1], transform=crop))
    with pytest.raises(ValueError, match="transform must depend only on the foreground of a mask"):
        list(map(episodes.__getitem__, range(30)))


def test_a_transform_that_marks_other_classes_is_refused():
    def mark_all(image, mask):
        return image.float(), ((mask != 0) & (mask != 255)).long()

    source = SyntheticSource(12, num_classes=4, size=48)
    episodes = EpisodesWithClasses(EpisodeDataset(source, [1, 2], length=20, transform=mark_all))
    with pytest.raises(ValueError, match="transform must depend only on the foreground of a mask"):
        list(map(episodes.__getitem__, range(20)))


def test_nothing_but_episodes_is_taken():
    with pytest.raises(TypeError, match="episodes must be an EpisodeDataset, got SyntheticSource"):
        EpisodesWithClasses(SyntheticSource(3))
    episodes = EpisodesWithClasses(dataset(padded_eval(49)))
    assert len(episodes) == 40
    with pytest.raises(IndexError):
        episodes[40]
    assert torch.equal(episodes[-1].query_image, episodes[39].query_image)
