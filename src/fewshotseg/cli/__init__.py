"""The command ``fewshotseg``: what the package does, for those who do not write Python."""

import argparse
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, NoReturn

from typing_extensions import override

from fewshotseg.cli.errors import EXPECTED, is_out_of_memory, sentence

COMMANDS = {
    "segment": "segment photographs by one or a few examples",
    "annotate": "mark objects on a local page, and see what a model finds by them",
    "train": "train a model, on your own photographs or a benchmark",
    "evaluate": "measure a model on classes that it was not trained on",
    "export": "write a trained model to share, as ONNX, or as programs of torch.export",
    "check": "decode every file of a data set, count classes, name every fault",
}
"""Each is a module of this folder: ``add_arguments(parser)``, and ``run(options)`` that returns the exit status."""


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in one sentence, as commands refuse everything else."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what cannot be done ends it with one sentence.

    Args:
        arguments: Of the command line; by default this process's.

    Returns:
        The exit status: 0 if all is well, 2 if the command could not be done, 128 and a signal's number if one ended
        it; some commands also have 1, see their help.

    Raises:
        SystemExit: After ``--help`` and ``--version``, and with status 2 if the arguments are wrong.
    """
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    parser = _Parser(prog="fewshotseg", description="Few-shot segmentation of photographs.")
    parser.add_argument("--version", action="version", version=f"fewshotseg {version('fewshotseg')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    name = next((word for word in given if word in COMMANDS), None)
    module = None if name is None else import_module(f"fewshotseg.cli.{name}")
    for each, summary in COMMANDS.items():
        command = commands.add_parser(each, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if module is not None and each == name:  # the others' modules need not be imported
            command.description = module.__doc__
            module.add_arguments(command)
    options = parser.parse_args(given)
    prog = f"{parser.prog} {options.command}"
    del options.command
    return 0 if module is None else _run(module, options, prog)


def _run(module: ModuleType, options: argparse.Namespace, prog: str) -> int:
    try:
        with _warnings_in_one_line(prog):
            status: int = module.run(options)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except EXPECTED as error:
        said = sentence(error)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        said = sentence(MemoryError())
    else:
        return status
    print(f"{prog}: {said}", file=sys.stderr)
    return 2


@contextmanager
def _warnings_in_one_line(prog: str) -> Iterator[None]:
    """Print warnings that are meant for users as the commands print everything else."""
    with warnings.catch_warnings():
        usual: Any = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if category is UserWarning:
                print(f"{prog}: {sentence(Exception(message))}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield
