"""Add the self-contrastive loss to a few-shot model other than SCNet.

    python examples/drop_in_loss.py

The model is a small trainable network with one foreground prototype and cosine similarity, and has a training loop of
its own. Comments mark the lines that add the loss.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from fewshotseg import SelfContrastiveLoss
from fewshotseg.data import EpisodeDataset, SyntheticSource, padded_eval


class PrototypeNet(nn.Module):
    """Segment by the cosine similarity of each query feature and the mean foreground feature of the support."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
            for inputs, outputs, stride in ((3, 32, 2), (32, 64, 2), (64, 64, 2))
        )
        self.project = nn.Conv2d(64, 32, 1)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features to compare, ``(B, 32, h, w)``, and those before the projection, ``(B, 64, h, w)``."""
        for stage in self.stages:
            images = stage(images)
        return self.project(images), images

    def compare(self, features: Tensor, prototype_map: Tensor) -> Tensor:
        """Compute the logits ``(B, 2, h, w)``: how similar each feature is to the prototype at the same location."""
        # The threshold is trained: with 0, features after a ReLU, whose cosines are never negative, would all match.
        score = self.scale * (F.cosine_similarity(features, prototype_map, dim=1) - self.threshold)
        return torch.stack([-score, score], dim=1)

    def forward(self, support: Tensor, support_mask: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the logits of the query and its features from `features`."""
        support_features, _ = self.features(support)
        query_features, query_high = self.features(query)
        inside = F.interpolate((support_mask == 1).float()[:, None], support_features.shape[2:])
        prototype = (support_features * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
        logits = self.compare(query_features, prototype[:, :, None, None].expand_as(query_features))
        return logits, query_features, query_high


def main() -> None:
    """Train, and print both losses at the start and at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=150, help="training iterations (default: %(default)s)")
    iterations = parser.parse_args().iterations

    torch.manual_seed(0)
    source = SyntheticSource(200, num_classes=20, size=64)
    episodes = EpisodeDataset(source, range(6, 21), length=8 * iterations, transform=padded_eval(64))
    model = PrototypeNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    # --- create the loss ---
    self_contrastive = SelfContrastiveLoss(num_prototypes=3)
    # ---
    history = []
    for episode in tqdm(DataLoader(episodes, batch_size=8), desc="training"):
        logits, features, high = model(episode.support_images[:, 0], episode.support_masks[:, 0], episode.query_image)
        logits = F.interpolate(logits, episode.query_mask.shape[1:], mode="bilinear")
        supervised = F.cross_entropy(logits, episode.query_mask, ignore_index=255)
        # --- and add it to the model's own loss, as in Eq. 9 ---
        contrast = self_contrastive(features, high, episode.query_mask, model.compare)
        loss = 0.5 * supervised + 0.5 * contrast
        # ---
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((supervised.item(), contrast.item()))

    tenth = max(len(history) // 10, 1)
    for name, losses in zip(("own loss", "self-contrastive loss"), zip(*history, strict=True), strict=True):
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        print(f"{name:<22} {first:.3f} -> {last:.3f}")


if __name__ == "__main__":
    main()
