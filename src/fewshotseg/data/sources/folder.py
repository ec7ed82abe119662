"""Your own images and masks in two folders."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewshotseg._checks import check_path, shown
from fewshotseg._io import StrPath
from fewshotseg.data.sources.faults import faulty_files
from fewshotseg.data.sources.files import FileSource, check_strings
from fewshotseg.data.sources.listing import NamedFiles, distinct_ids, files_by_name, partners
from fewshotseg.data.sources.source import VOID
from fewshotseg.data.sources.tables import read_table


class FolderSource(FileSource):
    """A source of a folder of images and a folder of masks, paired by file name without ending.

    Masks are PNG files whose pixel values are class ids: 0 background, 255 void (see `fewshotseg.images.read_mask`; for
    masks that are white on black, `FileSource`). Subfolders are paired in the same way, with ids such as ``"dog/rex"``.
    Hidden files and files that are not images are skipped. A file without its partner stays listed, so that `load` and
    ``class_areas`` name what is missing.

    Args:
        images: The folder of images, in any format.
        masks: The folder of masks.
        class_names: Class id (1 to 254) -> name; by default the classes that occur, named by number.
        ids: Ids of the images to use, in order: file names without ending; by default all, sorted by name.
        cache: Folder for the cached counts; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there are no images, files of a folder differ only in their ending, or a class id is out of
            range; the message names the first few faulty files.
        OSError: If a folder does not exist.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "images").mkdir(), (root / "masks").mkdir()
        (None, None)
        >>> Image.new("RGB", (4, 3)).save(root / "images/rex.jpg")
        >>> Image.fromarray(np.full((3, 4), 2, dtype=np.uint8)).save(root / "masks/rex.png")
        >>> source = FolderSource(root / "images", root / "masks", class_names={1: "cat", 2: "dog"})
        >>> source.ids, source.load(0).mask.unique()
        (('rex',), tensor([2]))
    """

    def __init__(
        self,
        images: StrPath,
        masks: StrPath,
        *,
        class_names: Mapping[int, str] | None = None,
        ids: Sequence[str] | None = None,
        cache: StrPath | None = None,
        progress: bool = False,
    ) -> None:
        images, masks = check_path("images", images), check_path("masks", masks)
        check_strings("ids", ids)
        found_images, found_masks = (files_by_name(folder, deep=True) for folder in (images, masks))
        names = sorted(found_images.files.keys() | found_masks.files.keys()) if ids is None else ids
        faults = found_images.faults + found_masks.faults
        if not names:
            raise (
                faulty_files(images, faults)
                if faults
                else ValueError(f"images must be a folder with images, got {images}, which holds none")
            )
        super().__init__(
            partners(images, found_images.files, names, ".jpg", others=found_images.passed_over),
            partners(masks, found_masks.files, names, ".png", others=found_masks.passed_over),
            ids=names,
            class_names=class_names,
            cache=cache,
            progress=progress,
        )
        high = [class_id for class_id in class_names or () if class_id > VOID]
        if high:
            raise ValueError(f"class_names must have ids below {VOID}, which masks of 8 bits can hold, got {high[0]}")
        used = {*self.images, *self.masks}
        others = found_images.passed_over + found_masks.passed_over
        self.passed_over = tuple(path for path in others if path not in used)
        if faults:
            raise faulty_files(f"{images} with {masks}", faults, self)

    @staticmethod
    def from_root(root: StrPath, *, cache: StrPath | None = None, progress: bool = False) -> FileSource:
        """Make a source of a folder with ``images/`` and ``masks/``, or with lists of its files and classes.

        Args:
            root: A folder with ``images/`` and ``masks/``. If it has an ``index.csv`` with the columns ``image`` and
                ``mask`` (paths inside ``root``), that file lists the pairs in order; a column ``id`` may name the
                images, whose ids are else their file names without ending, or their paths if file names repeat. If it
                has a ``classes.csv`` with the columns ``id`` and ``name``, that file names the classes; rows for 0 and
                255 are ignored. Both are text in UTF-8 or UTF-16, with commas, semicolons or tabs.
            cache: As in the class.
            progress: As in the class.

        Raises:
            ValueError: If a CSV file cannot be read, lacks a column or a value, or names a file outside of ``root``;
                or as in the class.
            OSError: If a folder does not exist.
        """
        root = check_path("root", root)
        names = _read_classes(root / "classes.csv") if os.path.lexists(root / "classes.csv") else None
        index = root / "index.csv"
        if not os.path.lexists(index):
            return FolderSource(root / "images", root / "masks", class_names=names, cache=cache, progress=progress)
        return _indexed(root, index, names, cache=cache, progress=progress)


def _indexed(
    root: Path, index: Path, class_names: Mapping[int, str] | None, *, cache: StrPath | None, progress: bool
) -> FileSource:
    rows = read_table(index, ("image", "mask"))
    if not rows:
        raise ValueError(f"{index} must have a row for each image, got none")
    files = NamedFiles(root)
    faults: list[str] = []
    pairs = []
    for row in rows:
        try:
            pairs.append((row.get("id"), files.find(row["image"]), files.find(row["mask"])))
        except ValueError as error:
            faults.append(f"image and mask {error}")
    given, images, masks = zip(*pairs, strict=True) if pairs else ((), (), ())
    short = distinct_ids([image.relative_to(root).as_posix() for image in images])
    ids = [own or other for own, other in zip(given, short, strict=True)]
    repeated = {name: count for name, count in Counter(ids).items() if count > 1}
    faults += [
        f"ids must differ, got {name!r} in {count} rows: give each row its own in a column id"
        for name, count in repeated.items()
    ]
    kept = [number for number, name in enumerate(ids) if name not in repeated]
    if not kept:
        raise faulty_files(index, faults)
    source = FileSource(
        [images[number] for number in kept],
        [masks[number] for number in kept],
        ids=[ids[number] for number in kept],
        class_names=class_names,
        cache=cache,
        progress=progress,
    )
    if faults:
        raise faulty_files(index, faults, source)
    return source


def _read_classes(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    faults = []
    for row in read_table(path, ("id", "name")):
        text = row["id"]
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= VOID):
            faults.append(f"id must be a whole number from 0 to {VOID}, got {shown(text)}")
        elif int(text) in names:
            faults.append(f"id must differ from row to row, got {text} twice")
        else:
            names[int(text)] = row["name"]
    if faults:
        raise faulty_files(path, faults)
    return {class_id: name for class_id, name in names.items() if class_id not in {0, VOID}}
