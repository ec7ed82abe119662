"""Mark objects in your browser, see at once what a model finds in other photographs, and save the masks.

    fewshotseg annotate photo.jpg photos/ --out found/
    fewshotseg annotate photos/ --recursive --out found/ --model last.pth

The command prints the address of a page and opens it in your browser. Only this machine can open the page, and nothing
is sent anywhere else. Ctrl+C stops the command.

What you save goes to --out: a support set, which fewshotseg segment --support reads; your marks, in examples/; and for
each photograph the files that you ticked, named as fewshotseg segment names them. Photographs that you add on the page
are copied to photos/ there.
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
from fewshotseg.cli.pictures import is_result
from fewshotseg.cli.queries import RESULT, find_photos
from fewshotseg.cli.talk import say, warn
from fewshotseg.cli.values import check_folder, filled, filled_path
from fewshotseg.models.hub import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("photos", nargs="*", metavar="PHOTO", help="Photographs, folders of them, or patterns such as '*.jpg'.")
    add("--recursive", action="store_true", help="Search the subfolders of folders too.")
    add("--out", type=filled_path, metavar="FOLDER", default=Path("annotated"),
        help="Folder to save to (default: %(default)s).")  # fmt: skip
    add("--port", type=int, metavar="N", help="Port of the page (default: a free one).")
    add("--no-browser", action="store_true", help="Print the address, but do not open a browser.")
    add("--model", type=filled, default=DEFAULT_MODEL, metavar="MODEL", help="The model: a name such as "
        "scnet-lite0, or a file (default: %(default)s).")  # fmt: skip
    add("--size", type=int, metavar="N", help="Resize photographs to this many pixels on the longer side before the "
        "model sees them (default: the size that the model was trained with).")  # fmt: skip
    add("--device", type=filled, help="Device to compute on, such as cpu or cuda:1 (default: CUDA if there is a GPU).")


def run(options: argparse.Namespace) -> int:
    """Serve the page until it is stopped.

    Args:
        options: The parsed options of `add_arguments`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: If an argument or the model cannot be used, or no photograph is found.
        OSError: If the model's file is missing, or the port is taken.
        ImportError: If gradio or a package that the model needs is not installed.
    """
    if find_spec("gradio") is None:  # before the slow imports
        raise ModuleNotFoundError("gradio must be installed", name="gradio")
    from fewshotseg.app.page import serve
    from fewshotseg.app.workbench import Workbench

    if options.port is not None:
        check_at_least("port", options.port, 1, 65535)
    check_folder("out", options.out)
    queries = find_photos(options.photos, recursive=options.recursive, without=options.out)
    queries.skip(RESULT, [photo for photo in queries.photos if is_result(photo)])
    for remark in [*queries.faults, *queries.remarks()]:
        warn(remark, command="annotate")
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
    say(f"the page is at {url} (Ctrl+C stops it)")


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """While the block runs, SIGINT (Ctrl+C) and SIGTERM set the event."""
    ended = threading.Event()
    before = {each: signal.signal(each, lambda *_: ended.set()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
