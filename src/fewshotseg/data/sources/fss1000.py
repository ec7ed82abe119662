"""FSS-1000: a thousand classes with ten images each."""

from pathlib import Path

from fewshotseg._checks import check_path
from fewshotseg._io import StrPath
from fewshotseg.data.sources.faults import check_folder, faulty_files
from fewshotseg.data.sources.listing import files_by_name, is_hidden, partners
from fewshotseg.data.sources.white import WhiteSource, numbered


class FSS1000Source(WhiteSource):
    """FSS-1000: a folder for each class, with images ``1.jpg`` and masks ``1.png``, white on black, and so on.

    Class ids are the positions of the class folders sorted by name, from 1 on, without 255, which is void: 1000
    classes have the ids 1 to 1001. They depend on which folders there are. A folder without images keeps its id, so
    that ids do not change if images are missing, and is listed in ``incomplete``. Image ids are ``class/number``. A
    pixel belongs to the class if its mask has at least half brightness.

    Args:
        root: The folder that holds the class folders.
        cache: Folder for the cached counts; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there are no images, or files of a folder differ only in their ending; the message names the
            first few.
        OSError: If the folder does not exist.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "abacus").mkdir()
        >>> Image.new("RGB", (4, 3)).save(root / "abacus/1.jpg")
        >>> Image.new("L", (4, 3), 255).save(root / "abacus/1.png")
        >>> source = FSS1000Source(root, cache=root)
        >>> source.ids, dict(source.class_names), source.class_areas
        (('abacus/1',), {1: 'abacus'}, [{1: 12}])
    """

    def __init__(self, root: StrPath, *, cache: StrPath | None = None, progress: bool = False) -> None:
        root = check_path("root", root)
        check_folder(root)
        inside = sorted((path for path in root.iterdir() if not is_hidden(path.name)), key=lambda path: path.name)
        folders = [path for path in inside if path.is_dir()]
        names = numbered(folder.name for folder in folders)
        ids: list[str] = []
        images: list[Path] = []
        masks: list[Path] = []
        faults: list[str] = []
        incomplete: list[str] = []
        passed_over = [path for path in inside if not path.is_dir()]
        class_ids: list[int] = []
        for (class_id, name), folder in zip(names.items(), folders, strict=True):
            photographs, labels = files_by_name(folder, _PHOTOGRAPHS), files_by_name(folder, {".png"})
            stems = sorted(photographs.files.keys() | labels.files.keys(), key=lambda stem: (len(stem), stem))
            ids += [f"{name}/{stem}" for stem in stems]
            others = [path for path in photographs.passed_over if path in labels.passed_over]
            images += partners(folder, photographs.files, stems, ".jpg", others=others)
            masks += partners(folder, labels.files, stems, ".png")
            class_ids += [class_id] * len(stems)
            faults += photographs.faults + labels.faults
            passed_over += others
            incomplete += [] if stems else [f"{folder} holds no images"]
        if not ids:
            raise ValueError(f"root must hold a folder of images for each class, got {root}, which holds none")
        super().__init__(images, masks, ids=ids, class_ids=class_ids, class_names=names, cache=cache, progress=progress)
        used = set(images)
        self.passed_over = tuple(path for path in passed_over if path not in used)
        self.incomplete = tuple(incomplete)
        if faults:
            raise faulty_files(root, faults, self)


_PHOTOGRAPHS = frozenset({".jpg", ".jpeg", ".jfif", ".jpe"})
