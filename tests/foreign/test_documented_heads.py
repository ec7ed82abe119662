"""The heads that README.md, docs/ and examples/ show can answer "different", on features behind a ReLU too."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import fewshotseg as fs
from _inputs import generator, uniform
from drop_in_loss import PrototypeNet

ROOT = Path(__file__).parents[2]
MASKS = torch.zeros(2, 65, 65, dtype=torch.long)
MASKS[:, 16:48, 16:48] = 1


def head_in(page, name="compare"):
    """The function of that name in the code of a page, with what its page has made before."""
    text = (ROOT / page).read_text(encoding="utf-8")
    definition = re.search(rf"^def {name}\(.*?(?=^\S)", text, flags=re.MULTILINE | re.DOTALL)
    assert definition is not None
    found = {"torch": torch, "fs": fs, "threshold": nn.Parameter(torch.tensor(0.5)), "prototypes": uniform(2, 8)}
    exec(definition[0], found)
    return found[name]


def answers(compare, *, steps=100):
    """Features behind a ReLU, moved by the loss: how many foreground locations answer "different", and their loss."""
    raw = uniform(2, 8, 9, 9).requires_grad_()
    optimizer, self_contrastive, draws = torch.optim.Adam([raw], lr=0.05), fs.SelfContrastiveLoss(), generator(0)
    for _ in range(steps):
        loss = self_contrastive(raw.relu(), raw.relu(), MASKS, compare, generator=draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features = raw.detach().relu()
    pairs = self_contrastive.pairs(features, features, MASKS, generator=draws)
    different, same = compare(features, pairs.prototype_map).detach().unbind(1)
    foreground = MASKS[:, ::8, ::8] == 1
    return (different > same)[foreground].float().mean(), nn.functional.softplus(same - different)[foreground].mean()


HEADS = {
    "README.md": lambda: head_in("README.md"),
    "index.md": lambda: head_in("docs/index.md"),
    "loss.md": lambda: head_in("docs/loss.md"),
    "loss.md, threshold": lambda: head_in("docs/loss.md", "compare_cosine"),
    "loss.md, two prototypes": lambda: head_in("docs/loss.md", "compare_two"),
    "drop_in_loss.py": lambda: PrototypeNet().compare,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_head_can_answer_different(head):
    share, loss = answers(head())
    assert share > 0.8
    assert loss < 0.7 * math.log(2)


def test_without_a_threshold_it_cannot():
    def compare(features, prototype_map):
        similarity = 10 * torch.cosine_similarity(features, prototype_map, dim=1)
        return torch.stack([-similarity, similarity], dim=1)

    share, loss = answers(compare)
    assert share == 0
    assert loss >= math.log(2) - 1e-6
