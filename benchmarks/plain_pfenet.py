"""A plain transcription of PFENet: one operation after the other, in the order of its official code.

It is written from a description of that code, not from the code. State dicts have the keys of `fewshotseg.SCNet`: after
``plain.load_state_dict(model.state_dict())`` both compute the same. Operations that SCNet avoids:

- norms of the backbone are separate layers, in training with batch statistics unless they are frozen;
- layer4 runs on whole supports, even if the mask keeps only a small part;
- the prior compares all query locations with all support locations and divides the matrix by a matrix of norms;
- every scale concatenates query, expanded prototype and prior, and resizes all maps, even to their own size;
- the classifiers for deep supervision run even if no loss is computed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

BINS = (60, 30, 15, 8)
"""Height and width of PFENet's grids on PASCAL-5i, at 473 pixels."""


class PlainPFENet(nn.Module):
    """PFENet on a ResNet-50 with the deep stem.

    Args:
        channels: Channels of the reduced features and of every layer of the comparison head.
        bins: Height and width of the maps at each scale of the comparison head, fine to coarse.
    """

    def __init__(self, channels: int = 256, bins: Sequence[int] = BINS) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.backbone = DilatedResNet()
        self.reduce_query = nn.Sequential(*conv1x1(1024 + 512, channels), nn.Dropout2d(0.5))
        self.reduce_support = nn.Sequential(*conv1x1(1024 + 512, channels), nn.Dropout2d(0.5))
        scales = range(len(bins))
        self.head = nn.ModuleDict(
            {
                "merge": nn.ModuleList(conv1x1(2 * channels + 1, channels) for _ in scales),
                "pass_down": nn.ModuleList(conv1x1(2 * channels, channels) for _ in scales[1:]),
                "refine": nn.ModuleList(refinement(channels) for _ in scales),
                "aux_classifiers": nn.ModuleList(classifier(channels) for _ in scales),
                "fuse": conv1x1(len(bins) * channels, channels),
                "fuse_refine": refinement(channels),
                "classifier": classifier(channels),
            }
        )
        self.backbone.requires_grad_(False)

    def forward(
        self, support_images: Tensor, support_masks: Tensor, query_images: Tensor, query_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor] | Tensor:
        """Compute the logits at the query's size; with query masks also the main and the auxiliary loss.

        Shapes are those of `fewshotseg.SCNet.forward`.
        """
        with torch.no_grad():
            shallow, deepest = self.backbone.mid(query_images)
            query_high = self.backbone.layer4(deepest)
        query = self.reduce_query(torch.cat([deepest, shallow], dim=1))

        prototypes, highs, masks = [], [], []
        for shot in range(support_images.shape[1]):
            mask = (support_masks[:, shot] == 1).to(query.dtype)[:, None]
            with torch.no_grad():
                shallow, deepest = self.backbone.mid(support_images[:, shot])
                small = resize(mask, deepest.shape[2:])
                high = self.backbone.layer4(deepest * small)
            support = self.reduce_support(torch.cat([deepest, shallow], dim=1))
            prototypes.append(masked_mean(support, small))
            highs.append(high)
            masks.append(mask)

        priors = [self.prior(query_high, high, mask) for high, mask in zip(highs, masks, strict=True)]
        prior = torch.cat([resize(each, query.shape[2:]) for each in priors], dim=1).mean(dim=1, keepdim=True)
        prototype = prototypes[0]
        for another in prototypes[1:]:
            prototype = prototype + another
        logits, aux = self.compare(query, prototype / len(prototypes), prior)
        logits = resize(logits, query_images.shape[2:])
        if query_masks is None:
            return logits
        resized = [resize(each, query_images.shape[2:]) for each in aux]
        main_loss = F.cross_entropy(logits, query_masks, ignore_index=255)
        aux_loss = torch.stack([F.cross_entropy(each, query_masks, ignore_index=255) for each in resized]).mean()
        return logits, main_loss, aux_loss

    @staticmethod
    def prior(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        """Compute the largest cosine of each query location with any support location, scaled to 0...1 per image."""
        batch, _, height, width = query.shape
        support = support * resize(mask, support.shape[2:])
        q, s = query.flatten(2), support.flatten(2).transpose(1, 2)
        norms = torch.bmm(s.norm(dim=2, keepdim=True), q.norm(dim=1, keepdim=True))
        cosine = torch.bmm(s, q) / (norms + 1e-7)
        best = cosine.max(dim=1).values
        low, high = best.min(dim=1, keepdim=True).values, best.max(dim=1, keepdim=True).values
        return ((best - low) / (high - low + 1e-7)).view(batch, 1, height, width)

    def compare(self, query: Tensor, prototype: Tensor, prior: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the logits of all scales together, and of each scale."""
        head, size = self.head, query.shape[2:]
        maps: list[Tensor] = []
        aux: list[Tensor] = []
        for number, side in enumerate(self.bins):
            grid = (side, side)
            pooled = F.adaptive_avg_pool2d(query, grid)
            expanded = prototype.expand(-1, -1, side, side)
            x = head["merge"][number](torch.cat([pooled, expanded, resize(prior, grid)], dim=1))
            if number > 0:
                finer = resize(maps[-1], grid)
                x = head["pass_down"][number - 1](torch.cat([x, finer], dim=1)) + x
            x = head["refine"][number](x) + x
            aux.append(head["aux_classifiers"][number](x))
            maps.append(resize(x, size))
        z = head["fuse"](torch.cat(maps, dim=1))
        z = head["fuse_refine"](z) + z
        return head["classifier"](z), aux


class DilatedResNet(nn.Module):
    """ResNet-50 with a stem of three convolutions, and dilation 2 in layer3 and 4 in layer4 for stride 8."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet50(weights=None)
        convs = [nn.Conv2d(*channels, 3, padding=1, bias=False) for channels in ((3, 64), (64, 64), (64, 128))]
        convs[0].stride = (2, 2)
        between = [nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        self.conv1 = nn.Sequential(convs[0], *between, convs[1], nn.BatchNorm2d(64), nn.ReLU(inplace=True), convs[2])
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(128), net.relu, net.maxpool
        net.layer1[0].conv1 = nn.Conv2d(128, 64, 1, bias=False)
        net.layer1[0].downsample[0] = nn.Conv2d(128, 256, 1, bias=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        for stage, dilation in ((self.layer3, 2), (self.layer4, 4)):
            for block in stage:
                block.conv2.stride, block.conv2.padding, block.conv2.dilation = (1, 1), (dilation,) * 2, (dilation,) * 2
            stage[0].downsample[0].stride = (1, 1)

    def mid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the maps of layer2 and layer3."""
        shallow = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images))))))
        return shallow, self.layer3(shallow)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly with aligned corners, also if the size stays the same."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean of the masked features, ``(B, C, 1, 1)``: their average pool divided by that of the mask."""
    size = features.shape[2:]
    cells = size[0] * size[1]
    area = F.avg_pool2d(mask, size) * cells + 0.0005
    return F.avg_pool2d(features * mask, size) * cells / area


def conv1x1(inputs: int, outputs: int) -> nn.Sequential:
    """A 1x1 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU(inplace=True))


def refinement(channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with ReLU."""
    convs = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
    return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU(inplace=True))))


def classifier(channels: int) -> nn.Sequential:
    """A 3x3 convolution, ReLU, dropout, and two logits."""
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Dropout2d(0.1), nn.Conv2d(channels, 2, 1))
