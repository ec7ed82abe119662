"""Training episodes that cannot be solved without the support."""

from collections.abc import Collection, Sequence

import numpy as np
from typing_extensions import override

from fewshotseg._checks import check_at_least, check_share, shown
from fewshotseg.data.episodes.lists import EpisodeSpec
from fewshotseg.data.episodes.sampling import MAX_SEED, Specs, check_class_ids, check_source, refuse_small_classes
from fewshotseg.data.sources.source import SegmentationSource

MIN_PIXELS = 400
"""Smallest area in pixels of each of two classes in an image for a query that shows both."""

KINDS = ("two classes", "two classes", "absent", "same image")
"""Kinds of hard episodes; each entry is drawn equally often."""


class HardSpecs(Specs[EpisodeSpec]):
    """Replaces a share of episodes by hard ones.

    Most photographs show one thing, which can be segmented without a support; a model trained only on them learns to
    ignore the support. A hard episode has a query that shows two classes and asks for one, or a query without the
    class, or the query itself among the supports. Episode n depends only on ``(seed, n)``, the source and the settings.

    Args:
        usual: The other episodes, at least one.
        source: The source of the images.
        class_ids: The classes of hard episodes.
        share: Share of hard episodes, from 0 to 1.
        seed: Seed of all random numbers, 0 or more.

    Raises:
        ValueError: If a number is out of range, a class has too few images, or no image shows two classes.
        TypeError: If an argument is of a wrong type.

    Example:
        >>> from fewshotseg.data import EpisodeDataset, SyntheticSource
        >>> source = SyntheticSource(60, num_classes=4, size=96)
        >>> episodes = EpisodeDataset(source, [1, 2], length=100)
        >>> episodes.specs = HardSpecs(episodes.specs, source, [1, 2], share=0.5, seed=0)
        >>> len(episodes.specs)
        100
    """

    def __init__(
        self,
        usual: Sequence[EpisodeSpec],
        source: SegmentationSource,
        class_ids: Collection[int],
        *,
        share: float,
        seed: int,
    ) -> None:
        self._share = check_share("share", share)
        self._seed = check_at_least("seed", seed, 0, MAX_SEED)
        check_source(source)
        classes = check_class_ids("class_ids", class_ids)
        if not isinstance(usual, Sequence) or not usual:
            raise TypeError(f"usual must be a sequence of at least one episode, got {shown(usual)}")
        self._usual, self._ids = usual, source.ids
        self._held = [set(areas) for areas in source.class_areas]
        self._with = {c: [i for i, held in enumerate(self._held) if c in held] for c in classes}
        refuse_small_classes(source, self._with, len(usual[0].supports))
        large = [
            {c for c, area in areas.items() if c in classes and area >= MIN_PIXELS} for areas in source.class_areas
        ]
        pairs = {c: [i for i, shown in enumerate(large) if c in shown and len(shown) > 1] for c in classes}
        self._among_others = {c: images for c, images in pairs.items() if images}
        if not self._among_others:
            raise ValueError(f"share of hard episodes must be 0 where no image shows two classes, got {self._share:g}")

    @override
    def __len__(self) -> int:
        return len(self._usual)

    @override
    def draw(self, number: int) -> EpisodeSpec:
        usual = self._usual[number]
        stream = np.random.default_rng((self._seed, number, 1))  # 1: other random numbers than the usual episode's
        if stream.random() >= self._share:
            return usual

        kind = KINDS[stream.integers(len(KINDS))]
        classes = self._among_others if kind == "two classes" or stream.random() < 0.5 else self._with
        class_id = int(stream.choice([*classes]))
        query = int(stream.choice(classes[class_id]))
        if kind == "absent":
            without = [i for i, held in enumerate(self._held) if class_id not in held]
            query = int(stream.choice(without or [query]))
        others = [i for i in self._with[class_id] if i != query]
        supports = stream.choice(others, len(usual.supports), replace=False).tolist()
        if kind == "same image":
            supports[0] = query
        return EpisodeSpec(class_id, self._ids[query], tuple(self._ids[support] for support in supports))
