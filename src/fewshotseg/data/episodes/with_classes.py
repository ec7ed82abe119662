"""Episodes with the class mask of the query, for models that also learn the base classes."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg.data.episodes.dataset import EpisodeDataset
from fewshotseg.data.episodes.sampling import episode_number
from fewshotseg.data.episodes.transforming import transformed
from fewshotseg.data.sources.source import VOID


class EpisodeWithClasses(NamedTuple):
    """An `Episode` with the class mask of its query.

    Attributes:
        support_images: ``(S, 3, H, W)`` float.
        support_masks: ``(S, H, W)`` int64: 1 the class, 0 everything else, 255 void.
        query_image: ``(3, H, W)`` float.
        query_mask: ``(H, W)`` int64.
        class_id: The class; ``(B,)`` int64 in a batch.
        number: The position in the data set; ``(B,)`` int64 in a batch.
        query_classes: ``(H, W)`` int64, the class ids of the source at the same pixels: 0 background, 255 void.
    """

    support_images: Tensor
    support_masks: Tensor
    query_image: Tensor
    query_mask: Tensor
    class_id: int
    number: int
    query_classes: Tensor


class EpisodesWithClasses(Dataset[EpisodeWithClasses]):
    """Adds to the episodes of a data set the class mask of each query, transformed like the query.

    BAM and HDMNet train a classifier of the base classes on it; `labels_of_classes` makes its targets. All other
    entries are bit-identical to those of ``episodes``. Classes that ``episodes`` ignores are void here too.

    The query is transformed twice with the same random numbers. The second time the mask is 1 for the episode's class,
    0 for background, 255 for void and negative for all other classes, so that a transform that looks for the foreground
    (labels above 0) does the same.

    Args:
        episodes: The data set.

    Raises:
        TypeError: If ``episodes`` is not an `EpisodeDataset`.

    Example:
        >>> from fewshotseg.data import SyntheticSource, labels_of_classes, pfenet_train
        >>> source = SyntheticSource(20, num_classes=4, size=(48, 64))
        >>> episodes = EpisodeDataset(source, class_ids=[1, 2, 3], transform=pfenet_train(size=33))
        >>> episode = EpisodesWithClasses(episodes)[5]
        >>> ((episode.query_classes == episode.class_id) == (episode.query_mask == 1)).all()
        tensor(True)
        >>> labels_of_classes(episode.query_classes, [1, 2, 3]).shape
        torch.Size([33, 33])
    """

    def __init__(self, episodes: EpisodeDataset) -> None:
        if not isinstance(episodes, EpisodeDataset):
            raise TypeError(f"episodes must be an EpisodeDataset, got {type(episodes).__name__}")
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    @override
    def __getitem__(self, number: int) -> EpisodeWithClasses:
        """Load an episode.

        Raises:
            ValueError: If the transform treats the query differently when the mask shows the other classes.
            IndexError: If there is no such episode.
        """
        number = episode_number(number, len(self))
        episode = self.episodes[number]
        class_id, query, _ = self.episodes.specs[number]
        image, mask = self.episodes.class_sample(query)
        marked = torch.where((mask == 0) | (mask == VOID), mask, -mask)
        marked = torch.where(mask == class_id, 1, marked)
        image, marked = transformed(
            self.episodes.transform,
            image,
            marked.as_subclass(tv_tensors.Mask),
            seed=self.episodes.seed,
            number=number,
            place=0,
        )
        same = torch.equal(image, episode.query_image) and torch.equal(marked == 1, episode.query_mask == 1)
        if not same:
            raise ValueError(
                f"transform must depend only on the foreground of a mask and on torch's random generator, so that it "
                f"treats a mask of all classes in the same way, got another query in episode {number}"
            )
        classes = torch.where(marked < 0, -marked, torch.where(marked == 1, class_id, marked))
        return EpisodeWithClasses(*episode, query_classes=classes)
