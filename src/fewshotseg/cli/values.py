"""Checks of command-line values that several commands take."""

from argparse import ArgumentTypeError
from pathlib import Path


def filled(value: str) -> str:
    """Return the value of an option; refuse an empty one, such as that of a shell variable that is not set."""
    if not value:
        raise ArgumentTypeError("must not be empty")
    return value


def filled_path(value: str) -> Path:
    """Return the value of an option as a path; refuse an empty one, which would be the working folder."""
    return Path(filled(value))


def check_folder(name: str, folder: Path) -> None:
    """Raise `ValueError` if ``folder`` can be no folder, as it or one above it is a file."""
    found = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if found.exists() and not found.is_dir():
        raise ValueError(f"{name} must be a folder, but {found} is a file")
