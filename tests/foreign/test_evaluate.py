"""The adapters of the page on foreign models: `evaluate` gives what a loop of one's own gives."""

import re
from pathlib import Path

import pytest
import torch

import fewshotseg as fs
from _foreign import Mining, bilinear, hsnet_votes
from fewshotseg.data import EpisodeDataset, SyntheticSource, padded_eval

PAGE = Path(__file__).parents[2] / "docs" / "foreign-models.md"
CLASSES = [1, 3]


class OneShot(torch.nn.Module):
    """`Mining` for one support image, as most models are published."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Mining()

    def forward(self, query, support, mask):
        return self.model(support[:, None], mask[:, None], query)


@pytest.fixture(scope="module")
def adapters():
    """What the page defines, by name."""
    found = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[:3]:
        exec(block, found)
    return found


def episodes(shots):
    source = SyntheticSource(20, num_classes=4, size=64)
    return EpisodeDataset(source, CLASSES, shots=shots, length=12, transform=padded_eval(65))


def own_loop(answer, shots):
    """Mean IoU over the classes, by a loop over episodes."""
    together = {class_id: torch.zeros(2) for class_id in CLASSES}
    chosen = episodes(shots)
    with torch.no_grad():
        for number in range(len(chosen)):
            episode = chosen[number]
            target = episode.query_mask
            found = answer(episode.query_image[None], episode.support_images[None], episode.support_masks[None])[0]
            hit, void = found & (target == 1), target == 255
            union = (found | (target == 1)) & ~void
            together[int(episode.class_id)] += torch.tensor([hit.sum(), union.sum()])
    return float(torch.stack([hit / union for hit, union in together.values()]).mean())


def one_shot(model, query, images, masks, shot=0):
    logits = model(query, images[:, shot], (masks[:, shot] == 1).float())
    return bilinear(logits, query.shape[-2:]).argmax(dim=1)


def test_one_forward(adapters):
    model = OneShot()
    report = fs.evaluate(adapters["OneForward"](model), episodes(1), fs.FewShotIoU(CLASSES))
    expected = own_loop(lambda *episode: one_shot(model, *episode) == 1, shots=1)
    assert 0 < expected < 1
    assert report.miou == pytest.approx(expected, abs=1e-6)
    assert model.training


def test_by_votes(adapters):
    model = OneShot()

    def voted(*episode):
        return hsnet_votes(torch.stack([one_shot(model, *episode, shot) for shot in range(4)], dim=1))

    report = fs.evaluate(adapters["ByVotes"](model), episodes(4), fs.FewShotIoU(CLASSES))
    assert report.miou == pytest.approx(own_loop(voted, shots=4), abs=1e-6)


def test_in_stages(adapters):
    model, foreign = OneShot(), adapters["InStages"]
    staged = foreign(torch.nn.Sequential(model.model.encoder, Last()))

    def together(query, images, masks):
        prototypes = [
            fs.masked_average_pool(model.model.encoder(images[0])[2], (masks[0] == side).float(), resize="masks").mean(
                dim=0
            )
            for side in (0, 1)
        ]
        logits = fs.cosine_logits(model.model.encoder(query)[2], torch.stack(prototypes)[None])
        return bilinear(logits, query.shape[-2:]).argmax(dim=1) == 1

    report = fs.evaluate(staged, episodes(3), fs.FewShotIoU(CLASSES))
    assert report.miou == pytest.approx(own_loop(together, shots=3), abs=1e-6)


class Last(torch.nn.Module):
    def forward(self, maps):
        return maps[-1]
