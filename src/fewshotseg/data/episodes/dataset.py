"""Episodes as a data set: item number n is the same on every machine, in every order, with any number of workers."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg._checks import check_at_least
from fewshotseg.data.episodes.lists import EpisodeSpec
from fewshotseg.data.episodes.sampling import DrawnSpecs, check_ids, images_by_class
from fewshotseg.data.sources.source import VOID, Sample, SegmentationSource
from fewshotseg.data.transforms import padded_eval

EpisodeTransform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[Tensor, Tensor]]
"""Turns a uint8 image ``(3, H, W)`` and its episode mask ``(H, W)`` into what the model takes."""


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
        class_ids: The classes to draw from, in any order.
        shots: S, the number of supports.
        length: The number of episodes.
        seed: Of all draws, 0 or more.
        transform: Applied to every image and its episode mask (1 the class, 0 everything else, 255 void), as the
            presets in `fewshotseg.data.transforms`. By default `padded_eval`: 473 x 473, ImageNet's normalisation.
        min_area: An image holds a class from this many pixels of the stored mask on.
        ignore_classes: Classes that become void, for data where novel objects must not count as background.

    Raises:
        ValueError: If a class has fewer than ``shots + 1`` images (it says which, and how many), a class is also to
            be ignored, ids of the source repeat, or a number is out of range.

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
        check_at_least("length", length, 1)
        images = images_by_class(source, class_ids, shots=shots, min_area=min_area)
        specs = DrawnSpecs(source.ids, images, shots, length, seed)
        self._set_up(source, specs, images, transform, seed, ignore_classes)

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
            specs: The episodes.
            transform: As above.
            seed: Of the transform's randomness.
            ignore_classes: As above.

        Returns:
            A data set as long as the list.

        Raises:
            ValueError: If an episode has no supports, one twice or its query among them, or names an image that the
                source does not have or that does not hold the class; or if numbers of supports differ.
        """
        specs = list(specs)
        check_ids(source)
        held = dict(zip(source.ids, source.class_areas, strict=True))
        for number, spec in enumerate(specs):
            _check_spec(number, spec, held)
            if len(spec.supports) != len(specs[0].supports):
                raise ValueError(
                    f"specs must have equal numbers of supports, got {len(specs[0].supports)} in episode 0 "
                    f"and {len(spec.supports)} in episode {number}"
                )
        episodes = cls.__new__(cls)
        episodes._set_up(source, specs, {spec.class_id for spec in specs}, transform, seed, ignore_classes)
        return episodes

    def _set_up(
        self,
        source: SegmentationSource,
        specs: Sequence[EpisodeSpec],
        class_ids: Collection[int],
        transform: EpisodeTransform | None,
        seed: int,
        ignore_classes: Collection[int],
    ) -> None:
        check_at_least("seed", seed, 0)
        if set(class_ids) & set(ignore_classes):
            both = sorted(set(class_ids) & set(ignore_classes))
            raise ValueError(f"ignore_classes must not hold classes of episodes, got {both}")
        self.source = source
        self.specs = specs
        self.transform = padded_eval() if transform is None else transform
        self.seed = seed
        self.ignore_classes = frozenset(ignore_classes)
        self._positions = {image_id: position for position, image_id in enumerate(source.ids)}

    def spec(self, number: int) -> EpisodeSpec:
        """The class and the images of episode ``number``; nothing is decoded. All of them are in ``specs``."""
        return self.specs[number]

    def sample(self, image_id: str, class_id: int) -> Sample:
        """Decode one image, with its mask as an episode of a class has it, before any transform.

        With a transform that draws nothing, ``transform(*sample(image_id, class_id))`` is what every episode gets
        for this image and class, so that it can be kept for the next one.
        """
        image, mask = self.source.load(self._positions[image_id])
        return Sample(image, episode_mask(mask, class_id, ignore_classes=self.ignore_classes))

    def __len__(self) -> int:
        return len(self.specs)

    @override
    def __getitem__(self, number: int) -> Episode:
        number = range(len(self))[number]
        class_id, query, supports = self.specs[number]
        query_image, query_mask = self._transformed(query, class_id, number, 0)
        shots = [self._transformed(support, class_id, number, 1 + s) for s, support in enumerate(supports)]
        images, masks = zip(*shots, strict=True)
        return Episode(torch.stack(images), torch.stack(masks), query_image, query_mask, class_id, number)

    def _transformed(self, image_id: str, class_id: int, number: int, place: int) -> tuple[Tensor, Tensor]:
        sample = self.sample(image_id, class_id)
        # place + 1, as numpy's seeds do not tell (seed, number) from (seed, number, 0), which drew the images.
        state = np.random.SeedSequence((self.seed, number, place + 1)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(state[0]))
            image, mask = self.transform(sample.image, sample.mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)


def episode_mask(mask: Tensor, class_id: int, *, ignore_classes: Collection[int] = ()) -> tv_tensors.Mask:
    """Turn a class mask into the mask of an episode.

    Args:
        mask: ``(H, W)`` class ids; 0 background, 255 void.
        class_id: The class of the episode.
        ignore_classes: Other classes that become void.

    Returns:
        ``(H, W)`` int64: 1 the class, 255 void, 0 everything else.

    Raises:
        ValueError: If the class of the episode is among those to ignore.

    Example:
        >>> import torch
        >>> episode_mask(torch.tensor([[0, 3, 7, 9, 255]]), 7, ignore_classes=[9])
        Mask([[  0,   0,   1, 255, 255]])
    """
    if class_id in ignore_classes:
        raise ValueError(f"ignore_classes must not hold the class of the episode, got {class_id}")
    void = mask == VOID
    for ignored in ignore_classes:  # much faster than torch.isin for one or a few
        void = void | (mask == ignored)
    return tv_tensors.Mask(torch.where(void, VOID, (mask == class_id).long()))


def _check_spec(number: int, spec: EpisodeSpec, held: Mapping[str, Mapping[int, int]]) -> None:
    class_id, query, supports = spec
    if not supports or query in supports or len(set(supports)) < len(supports):
        raise ValueError(f"specs must have different supports and another query, got {spec} as episode {number}")
    for image_id in (query, *supports):
        if image_id not in held:
            raise ValueError(f"specs must name images of the source, got {image_id!r} in episode {number}")
        if not held[image_id].get(class_id, 0):
            raise ValueError(
                f"specs must name images that hold their class, got {image_id!r} without class {class_id} "
                f"in episode {number}"
            )
