"""Put SCNet on a backbone of your own: train it, save it, load it again.

    python examples/custom_backbone.py
    python examples/custom_backbone.py --weights IMAGENET1K_V2          # downloads torchvision's weights of the RegNet

A backbone is any module that gives mid-level maps, of which the deepest comes first, and makes the high-level map of
that one; a network that cannot be cut there gives both at once, by ``mid_and_high``. The first here is written from
scratch, the second cuts one of torchvision's networks. SCNet never trains its backbone: with random weights, as here,
there is little to learn from. Train yours before, for classification for one.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models as tv

import fewshotseg as fs
from fewshotseg.data import EpisodeDataset, SyntheticSource, padded_eval
from fewshotseg.models import StagedBackbone


class SmallBackbone(nn.Module):
    """All that SCNet asks for: ``mid``, ``high`` and ``mid_channels``."""

    mid_channels = 64 + 32  # of both mid-level maps

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.last = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
            for inputs, outputs, stride in ((3, 32, 4), (32, 64, 2), (64, 96, 1))
        )

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` to maps at stride 8 and 4."""
        finer = self.fine(images)
        return self.coarse(finer), finer

    def high(self, deepest: Tensor) -> Tensor:
        """The map at stride 8 to the one that the prior and k-means look at."""
        return self.last(deepest)


def regnet(weights: str | None = None) -> StagedBackbone:
    """A RegNet of torchvision, cut after its second, third and last stage; `StagedBackbone` lets ``fuse`` fold it."""
    net = tv.regnet_y_400mf(weights=weights)
    blocks = net.trunk_output
    return StagedBackbone(
        {"stem": net.stem, "one": blocks.block1, "two": blocks.block2, "three": blocks.block3, "four": blocks.block4},
        shallow=["stem", "one", "two"],
        mid=["three"],
        high=["four"],
        mid_channels=208 + 104,
    )


def train(model: fs.SCNet, episodes: EpisodeDataset) -> list[float]:
    """One pass over the episodes; the loss of every iteration."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    model.train()
    for episode in DataLoader(episodes, batch_size=4):
        loss = model(episode.support_images, episode.support_masks, episode.query_image, episode.query_mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    """Train on both backbones, save the models, load them, and see that they answer as before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=60, help="of training (default: %(default)s)")
    parser.add_argument("--weights", help="of the RegNet, as torchvision names them (default: random ones)")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder of the models (default: %(default)s)")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    source = SyntheticSource(200, num_classes=20, size=96)
    episodes = EpisodeDataset(source, range(6, 21), length=4 * options.iterations, transform=padded_eval(97))
    spec = episodes.spec(0)
    support, query = (episodes.sample(image_id, spec.class_id) for image_id in (spec.supports[0], spec.query))
    backbones: dict[str, Callable[[], nn.Module]] = {"small": SmallBackbone, "regnet": partial(regnet, options.weights)}
    for name, make in backbones.items():
        model = fs.build_scnet(make(), hidden_channels=32, bins=(1.0, 0.5), image_size=97)
        losses = train(model, episodes)
        path = options.out / f"{name}.pth"
        fs.save_model(model.eval(), path, origin={"made by": "examples/custom_backbone.py"})
        # The file has all weights and numbers; only what the backbone's modules are, it cannot say.
        again = fs.load_model(path, backbone=make())
        answers = []
        for each in (model, again):
            predictor = fs.FewShotPredictor(each)
            predictor.set_support(*support)
            answers.append(predictor.predict(query.image).probability)
        tenth = max(len(losses) // 10, 1)
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        same = "as before" if torch.equal(*answers) else "otherwise"
        print(f"{name}: loss {first:.3f} -> {last:.3f}; saved as {path}; loaded, it answers {same}")


if __name__ == "__main__":
    main()
