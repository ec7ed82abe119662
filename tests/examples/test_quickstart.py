"""The examples as a new user runs them, cut short."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fewshotseg.data import SyntheticSource

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, *arguments):
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def check_results(folder, printed):
    assert "PFENet (lambda = 0)" in printed
    assert "SCNet (lambda = 0.5)" in printed
    results = json.loads((folder / "results.json").read_text())
    for name in ("PFENet (lambda = 0)", "SCNet (lambda = 0.5)"):
        for shots in ("1-shot", "5-shot"):
            assert results[name][shots]["episodes"] == 12
            assert 0 <= results[name][shots]["miou"] <= 1
    with Image.open(folder / "episodes.png") as picture:
        assert picture.width > 600


def test_quickstart_on_its_own_images(tmp_path):
    printed = run(
        "quickstart.py", "--iterations", 2, "--pretrain", 1, "--episodes", 12, "--size", 49, "--out", tmp_path
    )
    check_results(tmp_path, printed)


def test_quickstart_on_photographs(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    source = SyntheticSource(48, num_classes=4, size=64)
    for index, image_id in enumerate(source.ids):
        image, mask = source.load(index)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{image_id}.jpg")
        Image.fromarray(mask.byte().numpy()).save(tmp_path / "masks" / f"{image_id}.png")
    options = ("--iterations", 2, "--batch", 2, "--episodes", 12, "--size", 49, "--channels", 8)
    printed = run("quickstart.py", "--data", tmp_path, *options, "--out", tmp_path / "results")
    check_results(tmp_path / "results", printed)


def test_the_loss_lowers_in_a_foreign_model():
    printed = run("drop_in_loss.py", "--iterations", 30)
    for line in printed.splitlines():
        first, last = (float(number) for number in line.split()[-3::2])
        assert last < first
    assert "self-contrastive loss" in printed


def test_a_backbone_of_ones_own_is_saved_and_loaded(tmp_path):
    lines = run("custom_backbone.py", "--iterations", 2, "--out", tmp_path / "new").splitlines()
    assert [line.split(":")[0] for line in lines] == ["small", "regnet"]
    assert all(line.endswith("the loaded model predicts the same") for line in lines)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"small.pth", "regnet.pth"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_import_nothing_of_each_other(path):
    imported = re.findall(r"^ *(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    siblings = {other.stem for other in EXAMPLES.glob("**/*.py")}
    assert not siblings & {name.partition(".")[0] for name in imported}
