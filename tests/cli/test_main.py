"""The command itself: which commands there are, and how all of them refuse."""

import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from fewshotseg import __version__, cli
from fewshotseg.cli import COMMANDS, main
from fewshotseg.cli.errors import sentence


@pytest.fixture
def broken(monkeypatch):
    """A command that raises what it is told to."""

    def install(error):
        def run(options):
            raise error

        module = SimpleNamespace(__doc__="Breaks.", add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(cli, "import_module", lambda name: module)
        return main(["check"])

    return install


def test_python_m_is_the_command():
    command = [sys.executable, "-m", "fewshotseg"]
    run = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"fewshotseg {__version__}\n", "")
    run = subprocess.run(
        [*command, "check", "folder", "nowhere"], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode != 0
    assert len(run.stderr.splitlines()) == 1


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_in_sentences(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: fewshotseg {name} ")
    assert f"    fewshotseg {name} " in said
    assert "==SUPPRESS==" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_there_is_not_points_to_the_help_of_the_command(name, capsys):
    needed = {
        "segment": ["--query", "a", "--out", "b"],
        "train": ["synthetic"],
        "export": ["a", "b"],
        "check": ["folder", "a"],
    }
    with pytest.raises(SystemExit) as left:
        main([name, *needed.get(name, []), "--unknown"])
    assert left.value.code == 2
    said = f"fewshotseg {name}: unrecognized arguments: --unknown; see fewshotseg {name} --help\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", ""],
        ["evaluate", "a", "--out", ""],
        ["evaluate", "a", "--device", ""],
        ["export", "", "a"],
        ["export", "a", ""],
        ["train", "synthetic", "--out", ""],
        ["annotate", "--model", ""],
        ["annotate", "--out", ""],
    ],
)
def test_empty_values_as_of_unset_variables_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert re.fullmatch(r"fewshotseg \w+: argument [\w-]+: must not be empty; see .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["--unknown"], ["check"], ["check", "folder", "a", "b", "c"]])
def test_wrong_arguments_are_one_sentence_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("fewshotseg")
    assert said.endswith("--help")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("size must be at least 32, got 3\nand more"), "size must be at least 32, got 3"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 10_000), f"{'x' * 597}..."),
        (FileNotFoundError(2, "No such file or directory", "a.pth"), "a.pth: No such file or directory"),
        (
            OSError("a.pth could not be written: no space left on the device"),
            "a.pth could not be written: no space left",
        ),
        (
            ModuleNotFoundError("No module named 'onnx'", name="onnx"),
            'onnx must be installed: pip install "fewshotseg[onnx]"',
        ),
        (ImportError('x needs timm: pip install "fewshotseg[lite]"'), 'x needs timm: pip install "fewshotseg[lite]"'),
        (ArithmeticError("logits differ"), "logits differ"),
        (MemoryError(), "the memory of this machine is not enough"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "the memory of this machine is not enough"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "the memory of this machine is not enough"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_2(error, said, broken, capsys):
    assert broken(error) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fewshotseg check: {said}")


def test_ctrl_c_is_no_traceback(broken, capsys):
    assert broken(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "fewshotseg check: interrupted\n"


@pytest.mark.filterwarnings("default")
def test_warnings_for_users_are_one_line(monkeypatch, capsys):
    def run(options):
        warnings.warn("the backbone has random weights", stacklevel=1)
        warnings.warn("of another library", DeprecationWarning, stacklevel=1)
        return 0

    module = SimpleNamespace(__doc__="Warns.", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli, "import_module", lambda name: module)
    with pytest.warns(DeprecationWarning, match="of another library"):
        assert main(["check"]) == 0
    assert capsys.readouterr().err == "fewshotseg check: the backbone has random weights\n"


def test_faults_of_the_program_itself_are_not_hidden(broken):
    with pytest.raises(RuntimeError, match="shape mismatch"):
        broken(RuntimeError("shape mismatch"))
    with pytest.raises(TypeError):
        broken(TypeError("NoneType"))


def test_a_module_that_no_extra_brings_is_named_as_python_does():
    assert sentence(ModuleNotFoundError("No module named 'abc1'", name="abc1")) == "No module named 'abc1'"
