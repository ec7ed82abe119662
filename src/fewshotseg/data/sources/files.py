"""A source whose images and masks are files. The data sets of this package are this, each with its own layout."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torchvision import tv_tensors

from fewshotseg._io import StrPath
from fewshotseg.data.sources.index import index_masks
from fewshotseg.data.sources.source import VOID, Sample
from fewshotseg.images import read_image, read_mask


class FileSource:
    """Images and masks in files, paired by position. A `SegmentationSource`.

    Making one only lists files. The first use of ``class_areas`` makes sure that all of them exist, reads all masks
    once and remembers what it found in a small JSON file, which is used for as long as the masks don't change.

    Args:
        images: Image files, see `fewshotseg.images.read_image`.
        masks: Their mask files, see `fewshotseg.images.read_mask`: pixel values are class ids, 255 is void.
        ids: A name for each image, the same on every machine; by default the file's name without ending.
        class_names: Class id (1 and up, never 255) to name; by default the classes that occur, named by number.
        cache: A folder for what is computed once; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Attributes:
        images: The image files.
        masks: The mask files.
        ids: The name of each image.
        named: Whether class names were given.

    Raises:
        ValueError: If there are no images, the numbers of files or ids differ, an id repeats, or a class id is
            out of range.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (4, 3)).save(folder / "a.jpg")
        >>> Image.fromarray(np.full((3, 4), 2, dtype=np.uint8)).save(folder / "a.png")
        >>> source = FileSource([folder / "a.jpg"], [folder / "a.png"], class_names={2: "dog"}, cache=folder)
        >>> source.ids, source.class_areas, source.load(0).image.shape
        (('a',), [{2: 12}], torch.Size([3, 3, 4]))
    """

    def __init__(
        self,
        images: Sequence[StrPath],
        masks: Sequence[StrPath],
        *,
        ids: Sequence[str] | None = None,
        class_names: Mapping[int, str] | None = None,
        cache: StrPath | None = None,
        progress: bool = False,
    ) -> None:
        self.images = tuple(Path(file) for file in images)
        self.masks = tuple(Path(file) for file in masks)
        self.ids = tuple(file.stem for file in self.images) if ids is None else tuple(ids)
        if not self.images:
            raise ValueError("images must not be empty")
        sizes = (len(self.images), len(self.masks), len(self.ids))
        if len(set(sizes)) > 1:
            raise ValueError(f"images, masks and ids must be equally many, got {sizes[0]}, {sizes[1]} and {sizes[2]}")
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise ValueError(f"ids must differ, got {', '.join(map(repr, repeated))} more than once")
        for class_id in class_names or ():
            if class_id < 1 or class_id == VOID:
                raise ValueError(f"class_names must have ids of 1 and up without {VOID}, got {class_id}")
        self.named = class_names is not None
        self._given_names = None if class_names is None else {i: class_names[i] for i in sorted(class_names)}
        self._cache = cache
        self._progress = progress

    @cached_property
    def class_names(self) -> Mapping[int, str]:
        """Class id to name, ids ascending."""
        if self._given_names is not None:
            return self._given_names
        return {class_id: str(class_id) for class_id in sorted(set().union(*self.class_areas))}

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id to number of pixels in the stored mask.

        Raises:
            FileNotFoundError: If an image or mask is missing; it says how many are, and the first.
            ValueError: If a mask cannot be read.
        """
        missing = [file for file in (*self.images, *self.masks) if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the files of this source are missing, the first is {missing[0]}"
            )
        key = f"{type(self).__name__} {self._given_names}"
        return index_masks(self.masks, self.load_mask, key=key, cache=self._cache, progress=self._progress)

    def load_mask(self, index: int) -> tv_tensors.Mask:
        """Decode the mask at this position, ``(H, W)`` int64.

        Raises:
            ValueError: If the file cannot be read as a mask; the message names it.
            OSError: If there is no such file.
        """
        return read_mask(self.masks[index])

    def load(self, index: int) -> Sample:
        """Decode the image and the mask at this position.

        Raises:
            ValueError: If a file cannot be read, or image and mask differ in size; the message names the files.
            OSError: If there is no such file.
        """
        sample = Sample(read_image(self.images[index]), self.load_mask(index))
        problem = size_mismatch(sample)
        if problem:
            raise ValueError(f"{self.images[index]} {problem} {self.masks[index]}")
        return sample


def size_mismatch(sample: Sample) -> str:
    """The middle of a sentence between the names of an image and of a mask of another size; empty if they agree."""
    height, width = sample.image.shape[-2:]
    mask_height, mask_width = sample.mask.shape
    if (height, width) == (mask_height, mask_width):
        return ""
    return (
        f"is {width} x {height} pixels (EXIF orientation applied), which does not fit {mask_width} x {mask_height} of"
    )
