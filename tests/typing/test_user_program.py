"""The program that type checkers read also runs."""

import runpy
from pathlib import Path


def test_it_runs(capsys):
    runpy.run_path(str(Path(__file__).with_name("user_program.py")))["main"]()
    losses, _, report, untrained, answer = capsys.readouterr().out.splitlines()
    assert "self_contrast_main" in losses
    assert "in 4 episodes" in report
    assert untrained.startswith("without training 0.")
    assert answer.startswith("torch.Size([48, 64]) ")
