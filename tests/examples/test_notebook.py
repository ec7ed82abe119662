"""The notebook: every cell runs, and shows what it says."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshotseg.models.backbones import lite

PATH = Path(__file__).parents[2] / "examples" / "own_photographs.ipynb"


def cells(kind):
    content = json.loads(PATH.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def run(source, names):
    """What a notebook shows under a cell: the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, PATH.name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), PATH.name, "eval"), names)


def test_it_is_kept_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
    assert PATH.stat().st_size < 20_000


def test_every_cell_runs_and_shows_pictures(capsys):
    pytest.importorskip(lite.PACKAGES["efficientnet_lite2"], reason="needs the extra lite")
    pytest.importorskip("skimage", reason="needs scikit-image")
    names = {}
    shown = [run("".join(cell["source"]), names) for cell in cells("code")]
    sizes = [each.size for each in shown if isinstance(each, Image.Image)]
    assert sizes == [(320, 320), (960, 320), (640, 320), (640, 320)]
    assert all(np.asarray(each).std() > 20 for each in shown if isinstance(each, Image.Image))
    assert shown[-1] == ["annotations.json", "person-and-cup.fss", "photographer-mask.png"]
    said = capsys.readouterr().out
    assert "mirrored" in said
    found = names["answers"]["mirrored"].mask.bool().numpy()
    expected = names["mask"][:, ::-1]
    assert (found & expected).sum() > 0.5 * (found | expected).sum()
    assert names["answers"]["mirrored"].presence > names["answers"]["coffee"].presence
    assert (names["more"].mask >= names["answers"]["photographer"].mask).all()
    categories = json.loads((names["folder"] / "annotations.json").read_text())["categories"]
    assert [each["name"] for each in categories] == ["person", "cup"]
