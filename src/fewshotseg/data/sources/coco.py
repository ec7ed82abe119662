"""COCO with class masks drawn from its instance annotations: the images of COCO-20i."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from fewshotseg._checks import check_path, name_some, shown
from fewshotseg._io import StrPath, cache_folder, progress_bar, reason
from fewshotseg.data.sources.annotations import Id, Picture, read_instances
from fewshotseg.data.sources.drawing import draw_annotations
from fewshotseg.data.sources.faults import check_folder, faulty_files
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.listing import NamedFiles, distinct_ids
from fewshotseg.images import write_mask

_RULES = 2
"""Version of the rules by which masks are drawn, to tell cached masks of other rules apart."""


class COCOSource(FileSource):
    """COCO 2014 or 2017, or other images with an instances file in COCO's format.

    Class ids are the ranks of the sorted category ids, for COCO 1 to 80. Masks are drawn by this rule (published label
    files differ): crowd annotations are skipped, all polygons of an annotation are drawn, and where annotations overlap
    the later one in the file wins. Nothing is void. Images without annotations are left out, so that 82081 images of
    COCO's 2014 training set and 40137 of its validation set remain. Images are ordered by image id; PFENet's own list,
    on which its episodes depend, may have another order, which is not known here.

    Files of other tools are read if they are unambiguous: ids may be strings, polygons nested in other ways, and file
    names may have backslashes. Everything else is refused, such as boxes without outlines, run lengths of another size,
    impossible coordinates, or file names that lead out of ``images``.

    Masks are drawn when a source of an instances file is first made, which needs pycocotools and takes minutes for all
    of COCO. They are cached as PNG files, in a folder named after the instances file and a digest of its content.

    Get the data from https://cocodataset.org, section Download.

    Args:
        images: The folder of the images, such as ``train2014``.
        annotations: The file, such as ``instances_train2014.json``.
        cache: Folder for cached masks and the index; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are drawn or read for the first time, if tqdm is installed.

    Raises:
        ValueError: If the file is of another format or has faults; the message names the first few, and ``faults`` of
            the error lists all of them.
        OSError: If there is no such file or folder, or masks cannot be written to the cache.
        ImportError: If pycocotools is not installed.

    Example:
        >>> from fewshotseg.data import EpisodeDataset, coco20i
        >>> def test_episodes(root):
        ...     source = COCOSource(f"{root}/val2014", f"{root}/annotations/instances_val2014.json", progress=True)
        ...     return EpisodeDataset(source, coco20i(0).novel, shots=1, length=20000)
    """

    def __init__(
        self, images: StrPath, annotations: StrPath, *, cache: StrPath | None = None, progress: bool = False
    ) -> None:
        images, annotations = check_path("images", images), check_path("annotations", annotations)
        content = read_instances(annotations)
        check_folder(images)
        if len(content.categories) > 254:
            raise ValueError(f"{annotations} must have at most 254 categories, got {len(content.categories)}")
        class_of = {category: class_id for class_id, category in enumerate(content.categories, start=1)}
        faults = list(content.faults)
        found = _find_files(images, content.pictures, faults)
        folder = cache_folder(cache) / f"{annotations.stem[:80]}-{content.digest}-{_RULES}"
        drawn = _write_masks(found, class_of, folder, faults, progress=progress)
        if not drawn:
            raise faulty_files(annotations, faults or ["no image has an annotation that is no crowd"])
        super().__init__(
            list(drawn),
            [folder / _mask_name(picture) for picture in drawn.values()],
            ids=distinct_ids([path.relative_to(images).as_posix() for path in drawn], with_folders=True),
            class_names={class_of[category]: name for category, name in content.categories.items()},
            cache=cache,
            progress=progress,
        )
        if faults:
            raise faulty_files(annotations, faults, self)


def _find_files(images: Path, pictures: list[Picture], faults: list[str]) -> dict[Path, Picture]:
    """Map files to their pictures; pictures without a usable file name become faults."""
    files = NamedFiles(images)
    found: dict[Path, list[Picture]] = defaultdict(list)
    for picture in pictures:
        try:
            found[files.find(picture.file_name)].append(picture)
        except ValueError as error:
            faults.append(f"file_name of image {shown(picture.id)} {error}")
    for path, several in found.items():
        if len(several) > 1:
            ids = name_some([shown(picture.id) for picture in several])
            faults.append(f"images must have files of their own, got {path} for images {ids}")
    return {path: several[0] for path, several in found.items() if len(several) == 1}


def _write_masks(
    found: Mapping[Path, Picture], class_of: Mapping[Id, int], folder: Path, faults: list[str], *, progress: bool
) -> dict[Path, Picture]:
    """Draw the masks that are missing; returns the pictures that have one."""
    drawn = dict(found)
    missing = [path for path, picture in found.items() if not (folder / _mask_name(picture)).is_file()]
    for path in progress_bar(missing, "masks of COCO", show=progress and bool(missing)):
        picture = found[path]
        mask, problems = draw_annotations(picture.size, picture.annotations, class_of)
        faults += [f"image {shown(picture.id)}, {problem}" for problem in problems]
        if problems:
            del drawn[path]
            continue
        try:
            write_mask(folder / _mask_name(picture), mask)
        except OSError as error:
            raise OSError(f"{folder} cannot keep masks, so give another cache: {reason(error)}") from error
    return drawn


def _mask_name(picture: Picture) -> str:
    """Name a mask after the image id, as the image's file name may contain any path."""
    if isinstance(picture.id, int) and 0 <= picture.id < 10**12:
        return f"{picture.id:012d}.png"
    return f"{hashlib.sha256(repr(picture.id).encode('utf-8', 'backslashreplace')).hexdigest()[:20]}.png"
