"""Episodes of several classes at once: N classes with S supports each, and a query with labels for all of them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg.data.episodes.dataset import EpisodeDataset
from fewshotseg.data.episodes.masks import episode_mask, labels_of_classes
from fewshotseg.data.episodes.sampling import Specs, episode_number
from fewshotseg.data.episodes.transforming import EpisodeTransform, stacked, transformed
from fewshotseg.data.sources.source import VOID, SegmentationSource


class NWaySpec(NamedTuple):
    """The classes and the image ids of an N-way episode.

    Attributes:
        class_ids: The N classes, in the order of their labels 1 to N.
        query: The id of the query image in its source; it shows at least one of the classes.
        supports: The ids of the support images of each class.
    """

    class_ids: tuple[int, ...]
    query: str
    supports: tuple[tuple[str, ...], ...]


class NWayEpisode(NamedTuple):
    """A query with supports of N classes; `torch.utils.data.default_collate` batches episodes.

    Attributes:
        support_images: ``(N, S, 3, H, W)`` float.
        support_masks: ``(N, S, H, W)`` int64: 1 the class of these supports, 0 background, 255 void. Objects of the
            episode's other classes are void too.
        query_image: ``(3, H, W)`` float.
        query_mask: ``(H, W)`` int64: 1 to N for the classes, 0 everything else, 255 void.
        class_ids: ``(N,)`` int64, the class of each label.
        number: The position in the data set; ``(B,)`` int64 in a batch.
    """

    support_images: Tensor
    support_masks: Tensor
    query_image: Tensor
    query_mask: Tensor
    class_ids: Tensor
    number: int


class NWayDataset(Dataset[NWayEpisode]):
    """Draws N-way episodes from a source, as in PANet.

    Item ``n`` depends only on ``(seed, n)``, the source and the settings. N classes are drawn without repetition, then
    one of them for the query; the query may show the other classes or not. The query and the supports of a class are
    drawn uniformly and without repetition from the images that show it; an image that shows two of the classes may be a
    support of both. With one way the episodes are those of `EpisodeDataset`.

    Args:
        source: Images with class masks.
        class_ids: The classes to draw from, at least ``ways``.
        ways: N, the number of classes in an episode, up to 254.
        shots: S, the number of supports of each class.
        length: The number of episodes, up to 2147483647.
        seed: Seed of all random numbers, 0 or more.
        transform: As in `EpisodeDataset`; the masks of queries have the labels 1 to N.
        min_area: Smallest area in pixels of the stored mask for an image to count for a class.
        ignore_classes: Classes that become void.

    Raises:
        ValueError: If there are fewer classes than ``ways``, or as in `EpisodeDataset`.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> from fewshotseg.data import SyntheticSource, padded_eval
        >>> source = SyntheticSource(30, num_classes=5, size=(48, 64))
        >>> episodes = NWayDataset(source, [1, 2, 3, 4], ways=2, shots=3, transform=padded_eval(65))
        >>> episode = episodes[0]
        >>> episode.support_images.shape, episode.query_mask.shape, len(episode.class_ids)
        (torch.Size([2, 3, 3, 65, 65]), torch.Size([65, 65]), 2)
    """

    def __init__(
        self,
        source: SegmentationSource,
        class_ids: Iterable[int],
        *,
        ways: int = 2,
        shots: int = 1,
        length: int = 1000,
        seed: int = 0,
        transform: EpisodeTransform | None = None,
        min_area: int = 1,
        ignore_classes: Collection[int] = (),
    ) -> None:
        ways = check_at_least("ways", ways, 1, VOID - 1)
        self._one_way = EpisodeDataset(
            source,
            class_ids,
            shots=shots,
            length=length,
            seed=seed,
            transform=transform,
            min_area=min_area,
            ignore_classes=ignore_classes,
        )
        images = self._one_way.images_by_class
        if len(images) < ways:
            raise ValueError(f"class_ids must be at least as many classes as ways, {ways}, got {len(images)}")
        self.specs: Sequence[NWaySpec] = DrawnNWaySpecs(source.ids, images, ways, shots, len(self._one_way), self.seed)
        """All episodes."""

    @property
    def seed(self) -> int:
        """Seed of all random numbers."""
        return self._one_way.seed

    def spec(self, number: int) -> NWaySpec:
        """Return the classes and the image ids of episode ``number``, without decoding images.

        Raises:
            IndexError: If there is no such episode.
            TypeError: If ``number`` is not an integer.
        """
        return self.specs[episode_number(number, len(self))]

    def __len__(self) -> int:
        return len(self.specs)

    @override
    def __getitem__(self, number: int) -> NWayEpisode:
        number = episode_number(number, len(self))
        class_ids, query, supports = self.specs[number]
        image, classes = self._one_way.class_sample(query)
        query_image, query_mask = self._transformed(image, labels_of_classes(classes, class_ids), number, 0)
        shots, place = [], 1
        for class_id, names in zip(class_ids, supports, strict=True):
            others = [other for other in class_ids if other != class_id]
            for name in names:
                image, classes = self._one_way.class_sample(name)
                mask = episode_mask(classes, class_id, ignore_classes=others)
                shots.append(self._transformed(image, mask, number, place))
                place += 1
        images, masks = (part.view(len(class_ids), -1, *part.shape[1:]) for part in stacked(shots, number))
        return NWayEpisode(images, masks, query_image, query_mask, torch.tensor(class_ids, device="cpu"), number)

    def _transformed(
        self, image: tv_tensors.Image, mask: tv_tensors.Mask, number: int, place: int
    ) -> tuple[Tensor, Tensor]:
        return transformed(self._one_way.transform, image, mask, seed=self.seed, number=number, place=place)


class DrawnNWaySpecs(Specs[NWaySpec]):
    """Draws the classes of an episode, the class of the query, the query, and the supports of each class.

    Args:
        ids: The ids of all images.
        images: Class id -> positions in ``ids``.
        ways: Number of classes in an episode.
        shots: Number of supports of each class.
        length: The number of episodes.
        seed: Seed of all random numbers.
    """

    def __init__(
        self, ids: Sequence[str], images: Mapping[int, list[int]], ways: int, shots: int, length: int, seed: int
    ) -> None:
        self._ids, self._images = ids, images
        self._ways, self._shots, self._length, self._seed = ways, shots, length, seed

    @override
    def __len__(self) -> int:
        return self._length

    @override
    def draw(self, number: int) -> NWaySpec:
        stream = np.random.default_rng((self._seed, number))

        def take(remaining: list[int]) -> int:
            return remaining.pop(stream.integers(len(remaining)))

        classes = list(self._images)
        class_ids = tuple(take(classes) for _ in range(self._ways))
        asked = class_ids[stream.integers(self._ways)] if self._ways > 1 else class_ids[0]
        query = take(list(self._images[asked]))
        supports = []
        for class_id in class_ids:
            others = [image for image in self._images[class_id] if image != query]
            supports.append(tuple(self._ids[take(others)] for _ in range(self._shots)))
        return NWaySpec(class_ids, self._ids[query], tuple(supports))
