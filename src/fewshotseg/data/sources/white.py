"""Sources of images with one class each and masks that are white on black, the base of FSS-1000 and class folders."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg._io import StrPath
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.listing import one_form
from fewshotseg.data.sources.source import VOID
from fewshotseg.images import read_binary_mask


class WhiteSource(FileSource):
    """A `FileSource` of images with one class each; a pixel belongs to it if its mask has at least half brightness.

    Args:
        images: Image files.
        masks: Their mask files, of any mode.
        ids: An id for each image.
        class_ids: The class of each image.
        class_names: Class id -> name.
        cache: Folder for the cached counts; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.
    """

    def __init__(
        self,
        images: Sequence[Path],
        masks: Sequence[Path],
        *,
        ids: Sequence[str],
        class_ids: Sequence[int],
        class_names: dict[int, str],
        cache: StrPath | None,
        progress: bool,
    ) -> None:
        super().__init__(images, masks, ids=ids, class_names=class_names, cache=cache, progress=progress)
        self._class_ids = class_ids

    @override
    def stored_mask(self, index: int) -> tv_tensors.Mask:
        return (read_binary_mask(self.masks[index]) * self._class_ids[index]).as_subclass(tv_tensors.Mask)


def numbered(names: Iterable[str]) -> dict[int, str]:
    """Number names in order: 1, 2, 3, and so on, without 255, which is void.

    Example:
        >>> numbered(["cat", "dog"])
        {1: 'cat', 2: 'dog'}
    """
    return {place + (place >= VOID): one_form(name) for place, name in enumerate(names, start=1)}
