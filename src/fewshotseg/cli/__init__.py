"""The command ``fewshotseg`` and its parser; each subcommand is a module of this folder."""

import argparse
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from typing_extensions import override

from fewshotseg._version import VERSION
from fewshotseg.cli.errors import EXPECTED, is_out_of_memory, sentence

COMMANDS = {
    "segment": "segment photographs by one or a few annotated examples",
    "annotate": "mark objects in your browser and see at once what a model finds in other photographs",
    "train": "train a model on your own photographs or on a benchmark",
    "evaluate": "measure a model on classes that it was not trained on",
    "export": "write a trained model as a file to share, as ONNX or as torch.export programs",
    "check": "decode every file of a data set, count its classes and report every fault",
}
"""Each is a module of this folder: ``add_arguments(parser)``, and ``run(options)``, which returns the exit status."""

DESCRIPTION = "Few-shot segmentation: annotate one or a few photographs, and find the same objects in others."
EPILOG = "fewshotseg COMMAND --help explains a command, with examples."


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports wrong arguments in one line, without the usage."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an expected error is printed in one line, without a traceback.

    Args:
        arguments: The words of the command line, by default those of this process.

    Returns:
        The exit status: 0 for success, 2 if the command failed, 128 plus the signal's number if a signal stopped it;
        some commands also return 1, as their help says.

    Raises:
        SystemExit: After ``--help`` and ``--version``, and with status 2 if the arguments are wrong.
    """
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    parser = _Parser(prog="fewshotseg", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"fewshotseg {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    name = next((word for word in given if word in COMMANDS), None)
    module = None if name is None else import_module(f"fewshotseg.cli.{name}")
    for each, summary in COMMANDS.items():
        command = commands.add_parser(each, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if module is not None and each == name:  # the others' modules need not be imported
            command.description = module.__doc__
            module.add_arguments(command)
    options, unknown = parser.parse_known_args(given)
    if unknown:  # the command's own help lists what there is
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
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
    """Print each `UserWarning` in one line, with the name of the command, while the block runs."""
    with warnings.catch_warnings():
        usual: Any = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if category is UserWarning:
                print(f"{prog}: {sentence(Exception(message))}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield
