"""The commands on the page about photographs, as they stand there."""

import json
import re
import shlex
from pathlib import Path

import pytest

from _segmenting import labels, photo
from fewshotseg import to_labelme
from fewshotseg.cli import main
from fewshotseg.images import write_mask

PAGE = Path(__file__).parents[2] / "docs" / "segment-photos.md"
COMMANDS = [line for block in re.findall(r"```shell\n(.*?)```", PAGE.read_text(), re.S) for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("fewshotseg segment")])
def test_commands_run(files, line):
    for name in ("photo.jpg", "second.jpg", "a.jpg", "b.jpg"):
        photo(files / name)
    write_mask("b.png", labels())
    Path("a.json").write_text(json.dumps(to_labelme(labels(), ["mug"], "a.jpg")))
    Path("queries").rename("photos")
    assert main(shlex.split(line)[1:]) == 0
    words = shlex.split(line)
    assert any(Path(words[words.index("--out") + 1]).glob("*-mask.png"))


def test_every_option_is_on_the_page(capsys):
    with pytest.raises(SystemExit):
        main(["segment", "--help"])
    options = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out)) - {"--help"}
    assert {option for option in options if option not in PAGE.read_text()} == set()
