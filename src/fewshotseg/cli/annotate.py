"""Mark objects on a page of your browser, see at once what a model finds by them elsewhere, and save all of it.

    fewshotseg annotate photo.jpg photos/ --out found/
    fewshotseg annotate photos/ --recursive --out found/ --model last.pth

Prints the address of the page, which only this machine can open, and opens it in your browser. Nothing is sent
anywhere. The page ends with Ctrl+C. --out gets what is saved there: a support set for fewshotseg segment --support,
the marks in examples/, and for each photograph what was ticked, as fewshotseg segment names it. Photographs that are
added on the page are copied to photos/ in it.
"""

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

import fewshotseg as fs
from fewshotseg._checks import check_at_least, checked_device
from fewshotseg.cli.queries import find_photos
from fewshotseg.cli.talk import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command can be asked for."""
    add = parser.add_argument
    add("photos", nargs="*", metavar="PHOTO", help="photographs, folders of them, or patterns like '*.jpg'")
    add("--recursive", action="store_true", help="look into the folders of a folder, too")
    add("--out", type=Path, default=Path("annotated"), help="folder of what is saved (default: %(default)s)")
    add("--port", type=int, help="of the page (default: a free one)")
    add("--no-browser", action="store_true", help="only print the address")
    add("--model", default="scnet-lite0", help="a trained model: a name or a file (default: %(default)s)")
    add("--size", type=int, help="pixels of the longer side as the model sees it (default: as it was trained)")
    add("--device", help="such as cpu or cuda:1 (default: CUDA where there is any)")


def run(options: argparse.Namespace) -> int:
    """Show the page until somebody ends it.

    Args:
        options: With the attributes of `add_arguments`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: If an argument or the model is not possible, or no photograph is found.
        OSError: If the model is not there, or the port is taken.
        ImportError: If gradio or a package that the model needs is not installed.
    """
    from fewshotseg.app.page import serve
    from fewshotseg.app.workbench import Workbench

    if find_spec("gradio") is None:  # said before anything else takes its time
        raise ModuleNotFoundError("gradio must be installed", name="gradio")
    if options.port is not None:
        check_at_least("port", options.port, 1, 65535)
    queries = find_photos(options.photos, recursive=options.recursive, without=options.out)
    for remark in [*queries.faults, *queries.remarks()]:
        say(f"fewshotseg annotate: {remark}")
    if options.photos and not queries.photos:
        raise ValueError(f"photos must be photographs or folders of them, got {' '.join(options.photos)}")
    device = checked_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size: int | Literal["model"] = "model" if options.size is None else options.size
    predictor = fs.FewShotPredictor.from_pretrained(options.model, size=size, device=device)
    workbench = Workbench(predictor, queries.photos, options.out)
    with _until_interrupted() as ended:
        serve(workbench, ended=ended, started=_say_where, port=options.port, browser=not options.no_browser)
    return 0


def _say_where(url: str) -> None:
    say(f"the page is at {url} (Ctrl+C ends it)")


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """Within: Ctrl+C and a request to end set the event."""
    ended = threading.Event()
    before = {each: signal.signal(each, lambda *_: ended.set()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
