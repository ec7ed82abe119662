"""A source whose images and masks are files, the base class of most data sets."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torchvision import tv_tensors

from fewshotseg._checks import as_list, check_path, name_some, shown
from fewshotseg._io import StrPath
from fewshotseg.data.sources.faults import file_fault
from fewshotseg.data.sources.index import index_masks
from fewshotseg.data.sources.listing import one_form
from fewshotseg.data.sources.source import VOID, Sample
from fewshotseg.images import read_image, read_mask

if TYPE_CHECKING:  # pyright accepts a property for `SegmentationSource`, but not a cached_property
    from builtins import property as cached_property
else:
    from functools import cached_property


class FileSource:
    """A source of images and masks in files, paired by position.

    Creating it does not open files. The first access of ``class_areas`` checks that all files exist, reads all masks
    once and caches the counts in a small JSON file, which is used until the masks change.

    In masks that are white on black, 255 would be void. If no mask of the source shows a class, 255 is therefore taken
    as the one class of ``class_names``, or as class 1 without names, with a warning; with several names such masks are
    refused.

    Args:
        images: Image files, see `fewshotseg.images.read_image`.
        masks: Their mask files, see `fewshotseg.images.read_mask`: pixel values are class ids, 255 is void.
        ids: An id for each image, the same on every machine; by default the file's name without ending.
        class_names: Class id (1 and up, never 255) -> name; by default the classes that occur, named by number.
        cache: Folder for the cached counts; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Attributes:
        images: The image files.
        masks: The mask files.
        ids: The id of each image.
        named: Whether class names were given.
        passed_over: Files beside them that belong to no image.
        incomplete: Sentences about missing parts of the data set; the rest can be used.

    Raises:
        ValueError: If there are no images, the numbers of files or ids differ, an id repeats, or a class id is
            out of range.
        TypeError: If ``images`` or ``masks`` is a single path, or ids, class ids or class names are of other types.

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
        check_strings("ids", ids)
        self.images = tuple(check_path("every item of images", file) for file in as_list("images", images, "paths"))
        self.masks = tuple(check_path("every item of masks", file) for file in as_list("masks", masks, "paths"))
        self.ids = tuple(one_form(file.stem) for file in self.images) if ids is None else tuple(ids)
        self.passed_over: tuple[Path, ...] = ()
        self.incomplete: tuple[str, ...] = ()
        if not self.images:
            raise ValueError("images must hold at least one path, got none")
        sizes = (len(self.images), len(self.masks), len(self.ids))
        if len(set(sizes)) > 1:
            raise ValueError(f"images, masks and ids must be equally many, got {sizes[0]}, {sizes[1]} and {sizes[2]}")
        repeated = [repr(name) for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise ValueError(f"ids must differ, got {name_some(repeated)} more than once")
        self.named = class_names is not None
        self._given_names = None if class_names is None else _checked_names(class_names)
        self._cache = cache
        self._progress = progress

    @cached_property
    def class_names(self) -> Mapping[int, str]:
        """Class id -> name, ids ascending."""
        if self._given_names is not None:
            return self._given_names
        return {class_id: str(class_id) for class_id in sorted(set().union(*self.class_areas))}

    @cached_property
    def class_areas(self) -> Sequence[Mapping[int, int]]:
        """For each image, class id -> number of pixels in the stored mask.

        Raises:
            FileNotFoundError: If images or masks are missing; the message names the first few.
            ValueError: If masks cannot be read, or show only void; the message names the first few.
        """
        if self._white_class is None:
            return self._stored_areas
        warnings.warn(white_remark(self._white_class), stacklevel=3)  # past cached_property
        key = f"white {self._index_key}"
        return index_masks(self.masks, self.load_mask, key=key, cache=self._cache, progress=self._progress)

    @cached_property
    def _stored_areas(self) -> Sequence[Mapping[int, int]]:
        faults = [f"{file} {fault}" for file in (*self.images, *self.masks) if (fault := file_fault(file))]
        if faults:
            missing = all(fault.endswith("is missing") for fault in faults)
            text = f"{len(faults):,} of the files of this source cannot be used: {name_some(faults, separator='; ')}"
            raise FileNotFoundError(text) if missing else ValueError(text)
        key = self._index_key
        return index_masks(self.masks, self.stored_mask, key=key, cache=self._cache, progress=self._progress)

    @cached_property
    def _white_class(self) -> int | None:
        """The class that 255 means in masks that are white on black; None if 255 is void."""
        if any(self._stored_areas) or not any((self.stored_mask(i) == VOID).any() for i in range(len(self.masks))):
            return None
        if self.one_class is None:
            raise ValueError(f"masks must show classes, but in {self.masks[0]} and all others {WHITE_ADVICE}")
        return self.one_class

    @property
    def one_class(self) -> int | None:
        """The class of a source with one class: the only one that is named, or 1 without names; None for several."""
        if self._given_names is None:
            return 1
        return next(iter(self._given_names)) if len(self._given_names) == 1 else None

    @property
    def _index_key(self) -> str:
        return f"{type(self).__name__} {self._given_names}"

    def stored_mask(self, index: int) -> tv_tensors.Mask:
        """Decode the mask at this position, ``(H, W)`` int64, with 255 as it is stored.

        Raises:
            ValueError: If the file cannot be read as a mask; the message names it.
            OSError: If there is no such file.
        """
        return read_mask(self.masks[index])

    def load_mask(self, index: int) -> tv_tensors.Mask:
        """Decode the mask at this position, ``(H, W)`` int64.

        Raises:
            ValueError: If the file cannot be read as a mask; the message names it.
            OSError: If there is no such file.
        """
        mask = self.stored_mask(index)
        if self.one_class is None or not is_white(mask) or self._white_class is None:
            return mask
        return torch.where(mask == VOID, self._white_class, mask).as_subclass(tv_tensors.Mask)

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


WHITE_ADVICE = "the only values are 0 and 255, and 255 is void: store class ids from 1 to 254"


def white_remark(class_id: int) -> str:
    """Write the remark that 255 is taken as a class."""
    return f"no mask shows a class, so that 255, which is void otherwise, is taken as class {class_id}"


def is_white(mask: torch.Tensor) -> bool:
    """Whether a mask holds 255 and otherwise only 0."""
    return int(mask.max()) == VOID and bool(((mask == 0) | (mask == VOID)).all())


def size_mismatch(sample: Sample) -> str:
    """Describe an image and a mask of different sizes, as words between their names; empty if the sizes agree."""
    height, width = sample.image.shape[-2:]
    mask_height, mask_width = sample.mask.shape
    if (height, width) == (mask_height, mask_width):
        return ""
    return (
        f"is {width} x {height} pixels (EXIF orientation applied), which does not fit {mask_width} x {mask_height} of"
    )


def check_strings(name: str, values: Sequence[str] | None) -> None:
    """Raise unless ``values`` is None or a sequence of strings."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values or ()):
        raise TypeError(f"{name} must be a sequence of strings, got {shown(values)}")


def _checked_names(class_names: Mapping[int, str]) -> dict[int, str]:
    if not isinstance(class_names, Mapping):
        raise TypeError(f"class_names must map class ids to names, got {type(class_names).__name__}")
    for class_id, name in class_names.items():
        if isinstance(class_id, bool) or not isinstance(class_id, int) or not isinstance(name, str):
            raise TypeError(f"class_names must be whole numbers with their names, got {class_id!r}: {name!r}")
        if class_id < 1 or class_id == VOID:
            raise ValueError(f"class_names must have ids of 1 and up without {VOID}, got {class_id}")
    return {class_id: class_names[class_id] for class_id in sorted(class_names)}
