"""FSS-1000: a thousand classes with ten images each."""

from pathlib import Path

from torchvision import tv_tensors
from typing_extensions import override

from fewshotseg._io import StrPath
from fewshotseg.data.sources.files import FileSource
from fewshotseg.data.sources.folder import files_by_stem
from fewshotseg.data.sources.source import VOID
from fewshotseg.images import read_binary_mask


class FSS1000Source(FileSource):
    """FSS-1000's layout: a folder for each class, in it ``1.jpg`` with the mask ``1.png``, white on black, and so on.

    Class ids are the positions of the class folders sorted by name, from 1 on, without 255, which is void: 1000
    classes have the ids 1 to 1001. Another set of folders gives other ids. Images are named ``class/number``. A mask
    is the class where it is at least half bright.

    Args:
        root: The folder that holds the class folders.
        cache: A folder for what is computed once; by default ``fewshotseg`` in the user's cache folder.
        progress: Show a progress bar while masks are read for the first time, if tqdm is installed.

    Raises:
        ValueError: If there are no images.
        FileNotFoundError: If the folder does not exist.

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
        folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith("."))
        class_ids = [class_id for class_id in range(1, len(folders) + 2) if class_id != VOID]
        ids: list[str] = []
        images: list[Path] = []
        masks: list[Path] = []
        self._class_ids: list[int] = []
        for class_id, folder in zip(class_ids, folders, strict=False):
            image_files, mask_files = files_by_stem(folder, (".jpg", ".jpeg")), files_by_stem(folder, (".png",))
            for stem in sorted(image_files.keys() | mask_files.keys(), key=lambda stem: (len(stem), stem)):
                ids.append(f"{folder.name}/{stem}")
                images.append(image_files.get(stem, folder / f"{stem}.jpg"))
                masks.append(mask_files.get(stem, folder / f"{stem}.png"))
                self._class_ids.append(class_id)
        if not ids:
            raise ValueError(f"root must hold a folder of images for each class, got {root}, which holds none")
        names = {class_id: folder.name for class_id, folder in zip(class_ids, folders, strict=False)}
        super().__init__(images, masks, ids=ids, class_names=names, cache=cache, progress=progress)

    @override
    def load_mask(self, index: int) -> tv_tensors.Mask:
        return tv_tensors.Mask(read_binary_mask(self.masks[index]) * self._class_ids[index])
