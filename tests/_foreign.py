"""Small models in the manner of other methods, in plain PyTorch: loops and boolean indexing, as such code is written.

Nothing of the package is used here; `tests/foreign` replaces their parts by the package's.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bilinear(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


class Encoder(nn.Module):
    """Three maps: two at stride 4, one at stride 8; all of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 12, 5, stride=4, padding=2)
        self.mid = nn.Conv2d(12, 12, 3, padding=1)
        self.high = nn.Conv2d(12, 16, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low = self.low(images)
        mid = self.mid(low.relu())
        return low, mid, self.high(mid.relu())


class Mining(nn.Module):
    """As MiningFSS: features enlarged to the mask, a prototype of each side, ten times the cosine."""

    scale: ClassVar[float] = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def pool(self, features: Tensor, mask: Tensor) -> Tensor:
        features = bilinear(features, mask.shape[-2:])
        return (features * mask[:, None]).sum(dim=(2, 3)) / (mask.sum(dim=(1, 2))[:, None] + 1e-5)

    def prototypes(self, support: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        shots = range(masks.shape[1])
        return tuple(
            sum(self.pool(support[:, s], (masks[:, s] == side).float()) for s in shots) / len(shots) for side in (0, 1)
        )

    def compare(self, features: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
        sides = [F.cosine_similarity(features, p[:, :, None, None], dim=1) for p in (background, foreground)]
        return self.scale * torch.stack(sides, dim=1)

    def features(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(support.flatten(0, 1))[2].unflatten(0, support.shape[:2]), self.encoder(query)[2]

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        supports, features = self.features(support, query)
        return self.compare(features, *self.prototypes(supports, masks))


class Panet(Mining):
    """As PANet: scale 20, and the query's answer has to segment the supports."""

    scale = 20.0

    def alignment(self, features: Tensor, logits: Tensor, supports: Tensor, masks: Tensor) -> Tensor:
        losses = []
        for image, answer, shots, labels in zip(features, logits.argmax(dim=1), supports, masks, strict=True):
            if not (answer == 1).any():
                continue
            background, foreground = (
                (image * (answer == side)).sum(dim=(1, 2)) / ((answer == side).sum() + 1e-5) for side in (0, 1)
            )
            for shot, label in zip(shots, labels, strict=True):
                scores = bilinear(self.compare(shot[None], background[None], foreground[None]), label.shape)
                losses.append(F.cross_entropy(scores, label[None], ignore_index=255))
        return torch.stack(losses).sum() / masks.shape[:2].numel()


class Ssp(Mining):
    """As SSP: masks shrunk to the features, and a second answer by prototypes of what the first is sure of."""

    def pool(self, features: Tensor, mask: Tensor) -> Tensor:
        mask = bilinear(mask[:, None], features.shape[-2:])
        return (features * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)) + 1e-5)

    def self_support(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Foreground and background prototypes ``(B, C)``, and background ones for each location ``(B, C, h, w)``."""
        found: list[list[Tensor]] = [[], [], []]
        for image, probabilities in zip(features, logits.softmax(dim=1), strict=True):
            points, sure = image.flatten(1), []  # C N
            for side, threshold in ((1, 0.7), (0, 0.6)):
                values = probabilities[side].flatten()
                chosen = values > threshold
                sure.append(points[:, chosen if chosen.any() else values.topk(12).indices])
            directions, background = F.normalize(points, dim=0), F.normalize(sure[1], dim=0)
            weights = (2 * directions.T @ background).softmax(dim=1)
            local = (weights @ sure[1].T).T.view_as(image)
            for parts, part in zip(found, (sure[0].mean(dim=1), sure[1].mean(dim=1), local), strict=True):
                parts.append(part)
        foreground, background, local = (torch.stack(parts) for parts in found)
        return foreground, background, local

    def second_answer(self, features: Tensor, foreground: Tensor, own: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        own_foreground, own_background, local = own
        maps = (
            0.3 * own_background[:, :, None, None] + 0.7 * local,
            (0.5 * foreground + 0.5 * own_foreground)[:, :, None, None],
        )
        return self.scale * torch.stack([F.cosine_similarity(features, each, dim=1) for each in maps], dim=1)


class Pfenet(nn.Module):
    """As PFENet: query, prototype and prior side by side on two scales, each classified."""

    bins: ClassVar[tuple[int, int]] = (9, 4)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.merge = nn.ModuleList(nn.Conv2d(2 * 16 + 1, 16, 1) for _ in self.bins)
        self.scores = nn.ModuleList(nn.Conv2d(16, 2, 1) for _ in self.bins)
        self.classify = nn.Conv2d(2 * 16, 2, 3, padding=1)

    def head(self, features: Tensor, prototypes: Tensor, prior: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and those of every scale; prototypes may be a map."""
        scales = []
        for side, merge in zip(self.bins, self.merge, strict=True):
            parts = [F.adaptive_avg_pool2d(maps, side) for maps in (features, prototypes)]
            scales.append(merge(torch.cat([*parts, bilinear(prior, (side, side))], dim=1)).relu())
        aux = [score(scale) for score, scale in zip(self.scores, scales, strict=True)]
        return self.classify(torch.cat([bilinear(scale, features.shape[-2:]) for scale in scales], dim=1)), aux

    def pool(self, features: Tensor, mask: Tensor) -> Tensor:
        mask = bilinear((mask == 1).float()[:, None], features.shape[-2:])
        return (features * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)) + 5e-4)

    def loss(self, answer: tuple[Tensor, list[Tensor]], target: Tensor) -> Tensor:
        main, *aux = (
            F.cross_entropy(bilinear(logits, target.shape[-2:]), target, ignore_index=255)
            for logits in (answer[0], *answer[1])
        )
        return main + sum(aux) / len(aux)


def bam_weights(query: Tensor, supports: Tensor) -> Tensor:
    """As BAM: the distance of Gram matrices, ``(B, C, h, w)``, ``(B, S, C, h, w)`` to ``(B, S)``."""

    def gram(features: Tensor) -> Tensor:
        channels = features.flatten(2)
        lengths = channels.norm(dim=2, keepdim=True)
        return channels @ channels.mT / (lengths @ lengths.mT + 1e-7)

    own = gram(query)
    most = torch.ones_like(own).norm(dim=(1, 2))
    return torch.stack([(own - gram(shot)).norm(dim=(1, 2)) / most for shot in supports.unbind(1)], dim=1)


class Hsnet(nn.Module):
    """As HSNet: correlations of all layers, squeezed to the query's grid, here by means and 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.squeeze = nn.ModuleList(nn.Conv2d(layers, 4, 1) for layers in (2, 1))
        self.classify = nn.Conv2d(8, 2, 1)

    def correlations(self, query: tuple[Tensor, ...], support: tuple[Tensor, ...], mask: Tensor) -> list[Tensor]:
        volumes = []
        for ours, theirs in zip(query, support, strict=True):
            masked = theirs * bilinear(mask[:, None], theirs.shape[-2:])
            rows, columns = (
                maps.flatten(2) / (maps.flatten(2).norm(dim=1, keepdim=True) + 1e-5) for maps in (ours, masked)
            )
            volumes.append((rows.mT @ columns).clamp(min=0).view(len(ours), *ours.shape[2:], *theirs.shape[2:]))
        return [torch.stack(volumes[:2], dim=1), torch.stack(volumes[2:], dim=1)]

    def answer(self, volumes: list[Tensor]) -> Tensor:
        maps = [squeeze(volume.mean(dim=(4, 5))) for squeeze, volume in zip(self.squeeze, volumes, strict=True)]
        return self.classify(torch.cat([bilinear(each, maps[0].shape[-2:]) for each in maps], dim=1).relu())

    def forward(self, query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        return self.answer(self.correlations(self.encoder(query), self.encoder(support), mask))


def hsnet_votes(answers: Tensor) -> Tensor:
    """``(B, S, H, W)`` answers for each shot to one."""
    votes = answers.sum(dim=1)
    most = votes.flatten(1).max(dim=1)[0].clamp(min=1)
    return votes.float() / most[:, None, None] >= 0.5
