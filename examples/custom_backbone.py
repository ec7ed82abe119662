"""Put SCNet on a backbone of your own: train it, save it, load it again.

    python examples/custom_backbone.py
    python examples/custom_backbone.py --weights IMAGENET1K_V2          # downloads torchvision's weights of the RegNet

A backbone is any module with a method ``mid``, which returns mid-level maps, the deepest first, and a method ``high``,
which computes the high-level map from the deepest mid-level map. A network that cannot be split there has one method
``mid_and_high`` instead. The first backbone here is written from scratch, the second one splits a network of
torchvision. SCNet does not train its backbone, so random weights, as used here by default, give poor features: train
your backbone first, for example for classification.
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
    """The smallest interface that SCNet needs: ``mid``, ``high`` and ``mid_channels``."""

    mid_channels = 64 + 32  # sum over both mid-level maps

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.last = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
            for inputs, outputs, stride in ((3, 32, 4), (32, 64, 2), (64, 96, 1))
        )

    def mid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps at stride 8 and 4 from images ``(B, 3, H, W)``."""
        finer = self.fine(images)
        return self.coarse(finer), finer

    def high(self, deepest: Tensor) -> Tensor:
        """Compute the high-level map, which the prior and k-means use, from the map at stride 8."""
        return self.last(deepest)


def regnet(weights: str | None = None) -> StagedBackbone:
    """Split torchvision's RegNet after its second, third and last stage; a `StagedBackbone` can be fused."""
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
    """Train for one pass over the episodes and return the loss of every iteration."""
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
    """Train SCNet on both backbones, save and load the models, and check that the loaded ones predict the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=60, help="training iterations (default: %(default)s)")
    parser.add_argument("--weights", help="torchvision's name of weights for the RegNet (default: random weights)")
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
        # The file contains the weights and the settings, but not the backbone's code, so pass the backbone.
        loaded = fs.load_model(path, backbone=make())
        probabilities = []
        for each in (model, loaded):
            predictor = fs.FewShotPredictor(each)
            predictor.set_support(*support)
            probabilities.append(predictor.predict(query.image).probability)
        tenth = max(len(losses) // 10, 1)
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        same = "the same" if torch.equal(*probabilities) else "something else"
        print(f"{name}: loss {first:.3f} -> {last:.3f}; saved as {path}; the loaded model predicts {same}")


if __name__ == "__main__":
    main()
