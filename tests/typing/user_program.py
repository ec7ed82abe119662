"""A program as users write it, with types: mypy and pyright accept it, both as strict as they can be, and it runs."""

# pyright: strict, reportMissingTypeStubs=false

from collections.abc import Mapping, Sequence
from typing import assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import fewshotseg as fs
from fewshotseg.data import (
    ConcatSource,
    Episode,
    EpisodeDataset,
    FileSource,
    Sample,
    SegmentationSource,
    SubsetSource,
    SyntheticSource,
    padded_eval,
)


class Squares:
    """A source of one's own: noise with a bright square for class 1, a dark one for class 2."""

    def __init__(self, length: int) -> None:
        self.ids: Sequence[str] = [f"square-{index}" for index in range(length)]
        self.class_names: Mapping[int, str] = {1: "bright", 2: "dark"}
        self.class_areas: Sequence[Mapping[int, int]] = [{1 + index % 2: 24 * 24} for index in range(length)]

    def load(self, index: int) -> Sample:
        """Make the image at this position and its mask."""
        image, mask = torch.randint(64, 192, (3, 48, 64), dtype=torch.uint8), torch.zeros(48, 64, dtype=torch.int64)
        top, left = index % 24, index % 40
        image[:, top : top + 24, left : left + 24] = 0 if index % 2 else 255
        mask[top : top + 24, left : left + 24] = 1 + index % 2
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask))


class OwnModel(nn.Module):
    """A model of one's own that takes the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.contrast = fs.SelfContrastiveLoss(3)

    def compare(self, features: Tensor, prototype_map: Tensor) -> Tensor:
        """``(B, 2, h, w)`` logits."""
        similarity = torch.cosine_similarity(features, prototype_map, dim=1)
        return torch.stack([-similarity, similarity], dim=1)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """The self-contrastive loss alone."""
        features: Tensor = self.encode(images)
        loss: Tensor = self.contrast(features, features.detach(), masks, self.compare)
        return loss


def first_images(source: FileSource | SyntheticSource, length: int) -> SegmentationSource:
    """The first images of a source of the package: a folder, VOC, COCO, or those it makes."""
    return ConcatSource(SubsetSource(source, range(length)))


def main() -> None:
    """Train both models for a step, evaluate one, and use it."""
    source: SegmentationSource = Squares(12)
    episodes = EpisodeDataset(source, [1, 2], shots=2, length=4, seed=1, transform=padded_eval(65))
    loader: DataLoader[Episode] = DataLoader(episodes, batch_size=2)
    model: fs.SCNet = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0, 0.5), num_prototypes=2)
    own = OwnModel()
    for batch in loader:
        output = model(batch.support_images, batch.support_masks, batch.query_image, batch.query_mask)
        assert_type(output, fs.SCNetOutput)
        loss = output.loss + own(batch.query_image, batch.query_mask)
        loss.backward()
        parts: dict[str, float] = {name: float(part.detach()) for name, part in output.losses.items()}
        print(float(loss.detach()), parts)

    metric = fs.FewShotIoU([1, 2], class_names=source.class_names)
    report: fs.IoUReport = fs.evaluate(model, episodes, metric, batch_size=2)
    print(f"mIoU {report.miou:.3f} in {report.episodes} episodes", report.per_class)

    segmenter: fs.PrototypeSegmenter = fs.build_prototype_segmenter("mobilenet_v2", score="cosine")
    print(f"without training {fs.evaluate(segmenter, episodes, metric).miou:.3f}")

    predictor = fs.FewShotPredictor(model, size=65)
    image, mask = source.load(0)
    predictor.set_support(image, mask == 1)
    prediction: fs.Prediction = predictor.predict(source.load(2).image)
    print(prediction.mask.shape, float(prediction.probability.max()))


if __name__ == "__main__":
    main()
