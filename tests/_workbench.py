"""What the tests of the page share: a predictor whose answers are known, and marks."""

import numpy as np
import torch

from _segmenting import Reddest
from fewshotseg.support_files import FORMAT


class Predictor(Reddest):
    """The redder a pixel, the likelier the first class; knows how well its examples are found."""

    example_iou = ()

    def set_support(self, images, masks):
        super().set_support(images, masks)
        self.example_iou = tuple((0.9,) * len(each) for each in masks.values())

    def save_support(self, path):
        torch.save({"format": FORMAT, "supports": len(self.supports)}, path)


def rectangle(size, top, bottom, left, right):
    inside = np.zeros(size, bool)
    inside[top:bottom, left:right] = True
    return inside
