"""Prints the lines of commands, also while a progress bar is shown."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, TextIO

from fewshotseg._checks import one_line


def say(text: str, *, to: TextIO | None = None) -> None:
    """Print one line, as `show` does."""
    show(one_line(text, most=10_000), to=to)


def show(text: str, *, to: TextIO | None = None) -> None:
    """Print text; characters that the stream's encoding lacks are escaped.

    If nobody reads the stream any more, as after ``| head``, this and all that follows is dropped.
    """
    stream = sys.stdout if to is None else to
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(shown, file=stream)  # above the progress bar, if there is one
        else:
            print(shown, file=stream)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def warn(text: str, *, command: str = "segment") -> None:
    """Print to standard error, after the name of the command."""
    say(f"fewshotseg {command}: {text}", to=sys.stderr)


@contextmanager
def bar(total: int) -> Iterator[Any]:
    """Show a progress bar if standard error is a terminal and tqdm is installed; gives it, or None."""
    tqdm: Any = None
    if sys.stderr.isatty():
        with suppress(ImportError):
            tqdm = import_module("tqdm").tqdm
    if tqdm is None:
        yield None
        return
    with tqdm(total=total, unit="photo", leave=False) as shown:
        yield shown
