"""Episodes as a data set: item number n is the same on every machine, in every order, with any number of workers."""

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
from fewshotseg.data.episodes.moving import EpisodeTransform, check_transform, moved, stacked
from fewshotseg.data.episodes.sampling import (
    MAX_SEED,
    DrawnSpecs,
    check_class_ids,
    check_source,
    episode_number,
    images_by_class,
)
from fewshotseg.data.sources.source import VOID, Sample, SegmentationSource
from fewshotseg.data.transforms import padded_eval


class Episode(NamedTuple):
    """A query image with supports of the same class; `torch.utils.data.default_collate` makes batches of them.

    Attributes:
        support_images: ``(S, 3, H, W)`` float.
        support_masks: ``(S, H, W)`` int64: 1 the class, 0 everything else, 255 void.
        query_image: ``(3, H, W)`` float.
        query_mask: ``(H, W)`` int64.
        class_id: The class; ``(B,)`` int64 in a batch.
        number: The position in the data set, which names the images there; ``(B,)`` int64 in a batch.
    """

    support_images: Tensor
    support_masks: Tensor
    query_image: Tensor
    query_mask: Tensor
    class_id: int
    number: int


class EpisodeDataset(Dataset[Episode]):
    """Episodes drawn from a source. Item ``n`` depends on ``(seed, n)``, the source and the settings, nothing else.

    The class is drawn uniformly from ``class_ids``, then the query and the supports uniformly and without repetition
    from the images that hold the class. With one seed, the supports of fewer shots are the first supports of more. The
    transform's randomness (torch's default CPU generator) is derived from ``(seed, n)`` and the position in the
    episode; the caller's random state stays as it was.

    Args:
        source: Images with class masks.
        class_ids: The classes to draw from, in any order; one that stands there twice counts once.
        shots: S, the number of supports.
        length: The number of episodes, up to 2147483647.
        seed: Of all draws, 0 or more.
        transform: Applied to every image and its episode mask (1 the class, 0 everything else, 255 void), as the
            presets in `fewshotseg.data.transforms`. By default `padded_eval`: 473 x 473, ImageNet's normalisation.
        min_area: An image holds a class from this many pixels of the stored mask on.
        ignore_classes: Classes that become void, for data where novel objects must not count as background.

    Raises:
        ValueError: If a class has fewer than ``shots + 1`` images (it says which, and how many), a class is also to
            be ignored, ids of the source repeat, or a number is out of range.
        TypeError: If an argument is of a wrong type, such as a class that is no integer.

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
    """All episodes. Others of as many supports may be put in their place."""

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
        images = images_by_class(source, class_ids, shots=shots, min_area=min_area)
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
        """Episodes of a list that is given: read from a file, or PFENet's own.

        Args:
            source: Where the images are.
            specs: The episodes, at least one.
            transform: As above.
            seed: Of the transform's randomness.
            ignore_classes: As above.

        Returns:
            A data set as long as the list.

        Raises:
            ValueError: If there is no episode; if one has no supports, one twice or its query among them, or names an
                image that the source does not have or that does not hold the class; if numbers of supports differ.
            TypeError: If an argument is of a wrong type, or something in ``specs`` no episode.
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
        """Name the class and the images of episode ``number``; nothing is decoded. All of them are in ``specs``.

        Raises:
            IndexError: If there is no such episode.
            TypeError: If ``number`` is no integer.
        """
        return self.specs[episode_number(number, len(self))]

    def sample(self, image_id: str, class_id: int) -> Sample:
        """Decode one image, with its mask as an episode of a class has it, before any transform.

        With a transform that draws nothing, ``transform(*sample(image_id, class_id))`` is what every episode gets
        for this image and class, so that it can be kept for the next one.

        Raises:
            ValueError: If the source has no such image, or ``class_id`` is one that no class can have.
            TypeError: If ``class_id`` is no integer.
        """
        image, mask = self._load(image_id)
        return Sample(image, episode_mask(mask, class_id, ignore_classes=self.ignore_classes))

    def class_sample(self, image_id: str) -> Sample:
        """Decode one image, with the mask of all its classes; those to be ignored are void.

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
        return moved(self.transform, sample.image, sample.mask, seed=self.seed, number=number, place=place)


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
