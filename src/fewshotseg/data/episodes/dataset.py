"""A data set of episodes, whose items are the same on every machine, in any order, with any number of workers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg._checks import check_at_least, shown
from fewshotseg.data.episodes.lists import EpisodeSpec, check_specs
from fewshotseg.data.episodes.masks import episode_mask
from fewshotseg.data.episodes.sampling import (
    MAX_SEED,
    DrawnSpecs,
    check_class_ids,
    check_source,
    episode_number,
    images_by_class,
)
from fewshotseg.data.episodes.transforming import EpisodeTransform, check_transform, stacked, transformed
from fewshotseg.data.sources.source import VOID, Sample, SegmentationSource
from fewshotseg.data.transforms import padded_eval


class Episode(NamedTuple):
    """A query image with supports of the same class; `torch.utils.data.default_collate` batches episodes.

    Attributes:
        support_images: ``(S, 3, H, W)`` float.
        support_masks: ``(S, H, W)`` int64: 1 the class, 0 everything else, 255 void.
        query_image: ``(3, H, W)`` float.
        query_mask: ``(H, W)`` int64.
        class_id: The class; ``(B,)`` int64 in a batch.
        number: The position in the data set; ``(B,)`` int64 in a batch. ``EpisodeDataset.spec`` names its images.
    """

    support_images: Tensor
    support_masks: Tensor
    query_image: Tensor
    query_mask: Tensor
    class_id: int
    number: int


class EpisodeDataset(Dataset[Episode]):
    """Draws episodes from a source; item ``n`` depends only on ``(seed, n)``, the source and the settings.

    The class is drawn uniformly from ``class_ids``, then the query and the supports uniformly and without repetition
    from the images that show the class. With the same seed, the supports of fewer shots are the first ones of more. The
    transform's random numbers (torch's default CPU generator) are seeded by ``(seed, n)`` and the position in the
    episode; the caller's random state does not change.

    Args:
        source: Images with class masks.
        class_ids: The classes to draw from; order and repetitions do not matter.
        shots: S, the number of supports.
        length: The number of episodes, up to 2147483647.
        seed: Seed of all random numbers, 0 or more.
        transform: Applied to every image and its episode mask (1 the class, 0 everything else, 255 void), such as a
            preset of `fewshotseg.data.transforms`. By default `padded_eval`: 473 x 473, ImageNet's normalisation.
        min_area: Smallest area in pixels of the stored mask for an image to count for a class.
        ignore_classes: Classes that become void, for data where novel objects must not count as background.

    Raises:
        ValueError: If a class has fewer than ``shots + 1`` images, is among ``ignore_classes``, ids of the source
            repeat, or a number is out of range.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from fewshotseg.data import SyntheticSource
        >>> source = SyntheticSource(20, num_classes=4, size=(48, 64))
        >>> episodes = EpisodeDataset(source, class_ids=[1, 2], shots=1, length=100, seed=0)
        >>> batch = next(iter(DataLoader(episodes, batch_size=2)))
        >>> batch.support_images.shape, batch.query_mask.shape
        (torch.Size([2, 1, 3, 473, 473]), torch.Size([2, 473, 473]))
        >>> episodes.spec(99) == EpisodeDataset(source, [2, 1], length=1000).spec(99)
        True
    """

    specs: Sequence[EpisodeSpec]
    """All episodes; may be replaced by others with as many supports."""

    images_by_class: Mapping[int, list[int]]
    """Class id -> positions in the source of the images that episodes of the class are drawn from."""

    def __init__(
        self,
        source: SegmentationSource,
        class_ids: Iterable[int],
        *,
        shots: int = 1,
        length: int = 1000,
        seed: int = 0,
        transform: EpisodeTransform | None = None,
        min_area: int = 1,
        ignore_classes: Collection[int] = (),
    ) -> None:
        length = check_at_least("length", length, 1, 2**31 - 1)
        self.seed = check_at_least("seed", seed, 0, MAX_SEED)
        self.source = source
        self.images_by_class = images = images_by_class(source, class_ids, shots=shots, min_area=min_area)
        self.specs = DrawnSpecs(source.ids, images, shots, length, self.seed)
        self.ignore_classes = frozenset(check_class_ids("ignore_classes", ignore_classes))
        if both := sorted(self.ignore_classes & images.keys()):
            raise ValueError(f"ignore_classes must not hold classes of episodes, got {shown(both)}")
        self.transform = padded_eval() if transform is None else transform
        check_transform(self.transform)
        self._positions = {image_id: position for position, image_id in enumerate(source.ids)}

    @classmethod
    def from_specs(
        cls,
        source: SegmentationSource,
        specs: Iterable[EpisodeSpec],
        *,
        transform: EpisodeTransform | None = None,
        seed: int = 0,
        ignore_classes: Collection[int] = (),
    ) -> Self:
        """Make a data set of given episodes, for example those of `read_episodes` or `pfenet_episodes`.

        Args:
            source: The source of the images.
            specs: The episodes, at least one.
            transform: As above.
            seed: Seed of the transform's random numbers.
            ignore_classes: As above.

        Returns:
            A data set with an item for each episode.

        Raises:
            ValueError: If there is no episode; if one has no supports, repeats one, or has its query among them; if one
                names an image that the source lacks or that does not show the class; if numbers of supports differ.
            TypeError: If an argument is of a wrong type, or ``specs`` holds something else than episodes.
        """
        check_source(source)
        specs = check_specs(specs)
        if not specs:
            raise ValueError("specs must be at least one episode, got none")
        shots = len(specs[0].supports)
        held = dict(zip(source.ids, source.class_areas, strict=True))
        for number, spec in enumerate(specs):
            _check_images(number, spec, held)
            if len(spec.supports) != shots:
                raise ValueError(
                    f"specs must have equal numbers of supports, got {shots} in episode 0 "
                    f"and {len(spec.supports)} in episode {number}"
                )
        episodes = cls(
            source,
            {spec.class_id for spec in specs},
            shots=shots,
            length=len(specs),
            seed=seed,
            transform=transform,
            ignore_classes=ignore_classes,
        )
        episodes.specs = specs
        return episodes

    def spec(self, number: int) -> EpisodeSpec:
        """Return the class and the image ids of episode ``number``, without decoding images.

        Raises:
            IndexError: If there is no such episode.
            TypeError: If ``number`` is not an integer.
        """
        return self.specs[episode_number(number, len(self))]

    def sample(self, image_id: str, class_id: int) -> Sample:
        """Decode one image and its episode mask for a class, before the transform.

        If the transform is not random, ``transform(*sample(image_id, class_id))`` is the same for every episode with
        this image and class, so that it can be cached.

        Raises:
            ValueError: If the source has no such image, or ``class_id`` is not a possible class id.
            TypeError: If ``class_id`` is not an integer.
        """
        image, mask = self._load(image_id)
        return Sample(image, episode_mask(mask, class_id, ignore_classes=self.ignore_classes))

    def class_sample(self, image_id: str) -> Sample:
        """Decode one image and the mask of all its classes, where ``ignore_classes`` are void.

        Raises:
            ValueError: If the source has no such image.
        """
        image, stored = self._load(image_id)
        mask = stored.long()
        for ignored in self.ignore_classes:
            mask = torch.where(mask == ignored, VOID, mask)
        return Sample(image, mask.as_subclass(tv_tensors.Mask))

    def _load(self, image_id: str) -> Sample:
        if image_id not in self._positions:
            raise ValueError(f"image_id must be the id of an image of the source, got {shown(image_id)}")
        with torch.device("cpu"):
            image, mask = self.source.load(self._positions[image_id])
        return Sample(image, mask)

    def __len__(self) -> int:
        return len(self.specs)

    @override
    def __getitem__(self, number: int) -> Episode:
        number = episode_number(number, len(self))
        class_id, query, supports = self.specs[number]
        query_image, query_mask = self._transformed(query, class_id, number, 0)
        shots = [self._transformed(support, class_id, number, 1 + s) for s, support in enumerate(supports)]
        return Episode(*stacked(shots, number), query_image, query_mask, class_id, number)

    def _transformed(self, image_id: str, class_id: int, number: int, place: int) -> tuple[Tensor, Tensor]:
        sample = self.sample(image_id, class_id)
        return transformed(self.transform, sample.image, sample.mask, seed=self.seed, number=number, place=place)


def _check_images(number: int, spec: EpisodeSpec, held: Mapping[str, Mapping[int, int]]) -> None:
    class_id, query, supports = spec
    if not supports or query in supports or len(set(supports)) < len(supports):
        raise ValueError(f"specs must have different supports and another query, got {shown(spec)} as episode {number}")
    for image_id in (query, *supports):
        if image_id not in held:
            raise ValueError(f"specs must name images of the source, got {shown(image_id)} in episode {number}")
        if not held[image_id].get(class_id, 0):
            raise ValueError(
                f"specs must name images that hold their class, got {shown(image_id)} without class {class_id} "
                f"in episode {number}"
            )
