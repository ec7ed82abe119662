"""Faults of files: detected without opening them, and raised for all of them at once."""

import stat
from collections.abc import Sequence
from pathlib import Path

from fewshotseg._checks import name_some
from fewshotseg._io import StrPath


class FaultyFilesError(ValueError):
    """Raised for a data set with faulty files or annotations; made by `faulty_files`.

    Attributes:
        faults: A sentence for each fault; the message shows the first few.
        source: A source without the faulty entries, so that a check can continue; None if nothing is left.
    """

    faults: tuple[str, ...] = ()
    source: object | None = None


def faulty_files(place: StrPath, faults: Sequence[str], source: object | None = None) -> FaultyFilesError:
    """Make the error to raise for the faults of a file or folder."""
    counted = f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}"
    error = FaultyFilesError(f"{place} has {counted}: {name_some(faults, separator='; ')}")
    error.faults, error.source = tuple(faults), source
    return error


def file_fault(path: Path) -> str:
    """Say why ``path`` cannot be read as a file, as the end of a sentence; empty if it can. The file is not opened."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "cannot be read: permission denied"
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return "is missing"
    if stat.S_ISDIR(mode):
        return "is a folder, where a file must be"
    return "" if stat.S_ISREG(mode) else "is no ordinary file"


def check_file(path: Path) -> None:
    """Raise `FileNotFoundError` if there is no such file, and `ValueError` if it cannot be read as one."""
    fault = file_fault(path)
    if fault:
        raise FileNotFoundError(f"{path} {fault}") if fault == "is missing" else ValueError(f"{path} {fault}")


def check_folder(folder: Path) -> None:
    """Raise OSError unless there is such a folder."""
    if not folder.exists():
        raise FileNotFoundError(f"{folder} must be a folder, but there is none")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, but it is a file")
