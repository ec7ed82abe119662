"""Training episodes that nobody can answer without a look at the support."""

from collections.abc import Collection, Sequence
from typing import overload

import numpy as np
from typing_extensions import override

from fewshotseg.data import EpisodeSpec, SegmentationSource

MIN_PIXELS = 400
"""What each of two classes in an image must at least cover to be asked for."""

KINDS = ("two classes", "two classes", "absent", "same image")
"""Each is drawn equally often."""


class HardSpecs(Sequence[EpisodeSpec]):
    """Episodes of which a share is exchanged for hard ones.

    Most photographs show one thing, which is found without a support; a model trained on them alone learns to do so. A
    hard episode has a query that shows two classes and asks for one, or a query without the class, or the query itself
    among the supports. Number n depends on ``(seed, n)``, the source and the settings, nothing else.

    Args:
        usual: What is drawn otherwise.
        source: Where the images are.
        class_ids: The classes to ask for.
        share: Of hard episodes, from 0 to 1.
        seed: Of the exchange and of what is put in, 0 or more.

    Raises:
        ValueError: If ``share`` is not from 0 to 1, or no image shows two classes.

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
        if not 0 <= share <= 1:
            raise ValueError(f"hard_share must be from 0 to 1, got {share}")
        self._usual, self._ids, self._share, self._seed = usual, source.ids, share, seed
        self._held = [set(areas) for areas in source.class_areas]
        large = [
            {class_id for class_id, area in areas.items() if class_id in set(class_ids) and area >= MIN_PIXELS}
            for areas in source.class_areas
        ]
        self._with = {c: [i for i, held in enumerate(self._held) if c in held] for c in sorted(class_ids)}
        pairs = {c: [i for i, classes in enumerate(large) if c in classes and len(classes) > 1] for c in self._with}
        self._among_others = {c: images for c, images in pairs.items() if images}
        if not self._among_others:
            raise ValueError("hard_share must be 0 where no image shows two classes")

    @override
    def __len__(self) -> int:
        return len(self._usual)

    @overload
    def __getitem__(self, number: int) -> EpisodeSpec: ...
    @overload
    def __getitem__(self, number: slice) -> list[EpisodeSpec]: ...
    @override
    def __getitem__(self, number: int | slice) -> EpisodeSpec | list[EpisodeSpec]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        number = range(len(self))[number]
        usual = self._usual[number]
        stream = np.random.default_rng((self._seed, number, 1))  # 1: not the draws of the usual episode
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
