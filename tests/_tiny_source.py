"""A source in memory whose masks hold given numbers of pixels of each class."""

from collections.abc import Mapping, Sequence

import torch
from torchvision import tv_tensors

from fewshotseg.data.sources.source import Sample


class TinySource:
    """Image ``i`` shows the classes of ``areas[i]`` with that many pixels each, row by row, then a pixel of void."""

    def __init__(self, areas: Sequence[Mapping[int, int]], size: tuple[int, int] = (12, 16)) -> None:
        self.class_names = {class_id: f"class {class_id}" for image in areas for class_id in image}
        self.ids = [f"image-{index:03}" for index in range(len(areas))]
        self.class_areas = [dict(image) for image in areas]
        self.size = size

    def load(self, index: int) -> Sample:
        mask = torch.zeros(self.size[0] * self.size[1], dtype=torch.int64)
        start = 0
        for class_id, area in self.class_areas[index].items():
            mask[start : start + area] = class_id
            start += area
        mask[-1] = 255
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(256, (3, *self.size), generator=generator, dtype=torch.uint8)
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask.reshape(self.size)))


def three_classes(num_images: int = 30) -> TinySource:
    """Classes 2, 5 and 7, alone and together, with 1 to 60 pixels."""
    return TinySource(
        [
            {class_id: 1 + (7 * index + class_id) % 60 for class_id in (2, 5, 7) if (index + class_id) % 4 < 2}
            for index in range(num_images)
        ]
    )
