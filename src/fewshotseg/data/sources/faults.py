"""What is wrong with files: told without opening them, and raised for all of them at once."""

import stat
from collections.abc import Sequence
from pathlib import Path

from fewshotseg._checks import name_some
from fewshotseg._io import StrPath


class FaultyFilesError(ValueError):
    """A data set whose list of files, or whose annotations, are at fault; made by `faulty_files`.

    Attributes:
        faults: A sentence for each fault. The message itself shows the first few and says how many more there are.
        source: The source of what is not at fault, so that a check can go on; None if nothing is left.
    """

    faults: tuple[str, ...] = ()
    source: object | None = None


def faulty_files(place: StrPath, faults: Sequence[str], source: object | None = None) -> FaultyFilesError:
    """The error to raise for the faults of a file or folder."""
    counted = f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}"
    error = FaultyFilesError(f"{place} has {counted}: {name_some(faults, separator='; ')}")
    error.faults, error.source = tuple(faults), source
    return error


def file_fault(path: Path) -> str:
    """What keeps ``path`` from being a file to read, as the end of a sentence; empty if nothing does. Opens nothing."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "cannot be read: permission denied"
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return "is missing"
    if stat.S_ISDIR(mode):
        return "is a folder, where a file must be"
    return "" if stat.S_ISREG(mode) else "is no ordinary file"


def check_folder(folder: Path) -> None:
    """Raise OSError unless there is such a folder."""
    if not folder.exists():
        raise FileNotFoundError(f"{folder} must be a folder, but there is none")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, but it is a file")
