"""Plain folders of one's own images and masks."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from fewshotseg._io import StrPath
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.source import VOID


class FolderSource(FileSource):
    """A folder of images and a folder of masks; files with the same name up to the ending belong together.

    Masks are PNG files whose pixel values are class ids: 0 background, 255 void (see
    `fewshotseg.images.read_mask`). Hidden files and files that are no images are passed over. A file without its
    partner stays listed, so that `load` and ``class_areas`` name what is missing.

    Args:
        images: The folder of images, of any format.
        masks: The folder of masks.
        class_names: Class id (1 and up, never 255) to name; by default the classes that occur, named by number.
        ids: Which images to take, named without ending, in which order; by default all, sorted by name.
        cache: A folder for what is computed once; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there are no images, two files of a folder differ in nothing but the ending, or a class id is
            out of range.
        FileNotFoundError: If a folder does not exist.

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
        image_files, mask_files = files_by_stem(Path(images)), files_by_stem(Path(masks))
        names = sorted(image_files.keys() | mask_files.keys()) if ids is None else ids
        if not names:
            raise ValueError(f"images must be a folder with images, got {images}, which holds none")
        super().__init__(
            [image_files.get(name, Path(images, f"{name}.jpg")) for name in names],
            [mask_files.get(name, Path(masks, f"{name}.png")) for name in names],
            ids=names,
            class_names=class_names,
            cache=cache,
            progress=progress,
        )

    @staticmethod
    def from_root(root: StrPath, *, cache: StrPath | None = None, progress: bool = False) -> FileSource:
        """Read a folder that describes itself.

        Args:
            root: A folder with ``images/`` and ``masks/``. If it has an ``index.csv`` with the columns ``image`` and
                ``mask`` (paths relative to ``root``) and perhaps ``id``, that one says what belongs together, in its
                order. If it has a ``classes.csv`` with the columns ``id`` and ``name``, that one names the classes;
                its rows for 0 and 255 do not count.
            cache: As in the class.
            progress: As in the class.

        Raises:
            ValueError: If a CSV file lacks a column or a value, or as in the class.
            FileNotFoundError: If a folder does not exist.
        """
        root = Path(root)
        names = _read_classes(root / "classes.csv") if (root / "classes.csv").is_file() else None
        index = root / "index.csv"
        if not index.is_file():
            return FolderSource(root / "images", root / "masks", class_names=names, cache=cache, progress=progress)
        rows = _read_csv(index, ("image", "mask"))
        if not rows:
            raise ValueError(f"{index} must have a row for each image, got none")
        return FileSource(
            [root / row["image"] for row in rows],
            [root / row["mask"] for row in rows],
            ids=[row.get("id") or Path(row["image"]).stem for row in rows],
            class_names=names,
            cache=cache,
            progress=progress,
        )


def files_by_stem(folder: Path, endings: Iterable[str] = IMG_EXTENSIONS) -> dict[str, Path]:
    """The files of a folder with one of these endings (in either case), by name without it; hidden files left out.

    Raises:
        ValueError: If a name comes with two endings.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in endings and not file.name.startswith("."):
            if file.stem in found:
                raise ValueError(
                    f"{folder} must hold one file of each name, got {found[file.stem].name} and {file.name}"
                )
            found[file.stem] = file
    return found


def _read_classes(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in _read_csv(path, ("id", "name")):
        if not row["id"].isdecimal() or int(row["id"]) in names:
            raise ValueError(f"{path} must have a different whole number as id in each row, got {row['id']!r}")
        names[int(row["id"])] = row["name"]
    return {class_id: name for class_id, name in names.items() if class_id not in {0, VOID}}


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets like to write a byte order mark
        reader = csv.DictReader(file)
        if not set(columns) <= set(reader.fieldnames or ()):
            raise ValueError(
                f"{path} must have the columns {', '.join(columns)}, got {', '.join(reader.fieldnames or ())}"
            )
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if not all(row[column] for column in columns):
            raise ValueError(f"{path} must have a value for {' and '.join(columns)} in each row, row {number} has not")
    return rows
