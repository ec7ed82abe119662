"""Windows around small objects: what they show, that they repeat, and which objects get none."""

import sys

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from fewshotseg.data import Sample
from fewshotseg.data.sources import windows
from fewshotseg.data.sources.windows import WindowSource, draw_window

pytest.importorskip("scipy", reason="needs the extra train")


class Planted:
    """Images whose pixels say where they are, with masks of rectangles: class, top, left, height, width."""

    class_names = {1: "one", 2: "two"}  # noqa: RUF012

    def __init__(self, *scenes, size=(200, 300)):
        self.ids = [f"scene-{number}" for number in range(len(scenes))]
        self.masks = []
        for scene in scenes:
            mask = torch.zeros(size, dtype=torch.int64)
            for class_id, top, left, height, width in scene:
                mask[top : top + height, left : left + width] = class_id
            self.masks.append(mask)
        self.class_areas = [
            {int(c): int((mask == c).sum()) for c in mask.unique() if c not in (0, 255)} for mask in self.masks
        ]
        rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
        self.image = torch.stack([rows % 256, columns % 256, columns // 256]).to(torch.uint8)

    def load(self, index):
        return Sample(tv_tensors.Image(self.image), tv_tensors.Mask(self.masks[index]))


SMALL = (1, 50, 100, 20, 30)


def test_a_small_object_gets_a_window_around_it():
    source = Planted([SMALL])
    closer = WindowSource(source, [1], seed=0)
    assert closer.ids == ["scene-0", "scene-0@1"]
    assert torch.equal(closer.load(0).image, source.image)
    ((_, top, left, side),) = closer.windows
    assert 80 <= side <= 90
    assert top <= 50
    assert left <= 100
    image, mask = closer.load(1)
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(mask, tv_tensors.Mask)
    assert torch.equal(image, source.image[:, top : top + side, left : left + side])
    assert torch.equal(mask, source.masks[0][top : top + side, left : left + side])
    assert closer.class_areas == [{1: 600}, {1: 600}]


@pytest.mark.parametrize("index", [2, -1])
def test_positions_beyond_the_images_and_windows_are_refused(index):
    with pytest.raises(IndexError, match=f"index must be from 0 to 1, got {index}"):
        WindowSource(Planted([SMALL]), [1], seed=0).load(index)


def test_windows_name_all_that_they_show_but_void():
    closer = WindowSource(Planted([SMALL, (2, 70, 100, 10, 10), (255, 48, 100, 2, 30)]), [1], seed=0)
    assert [sorted(areas) for areas in closer.class_areas] == [[1, 2], [1, 2]]
    assert 255 in closer.load(1).mask.unique()


@pytest.mark.parametrize(
    ("rectangles", "class_ids"),
    [
        ([(1, 0, 0, 150, 200)], [1]),  # too large
        ([(1, 50, 100, 12, 12)], [1]),  # 144 pixels are too few
        ([(1, 10 + 30 * n, 10, 9, 9) for n in range(6)], [1]),  # enough together, none alone
        ([SMALL], [2]),  # not asked for
        ([(1, 20, 0, 10, 280)], [1]),  # a window would be most of the image
        ([], [1]),
    ],
)
def test_what_gets_no_window(rectangles, class_ids):
    assert WindowSource(Planted(rectangles), class_ids, seed=0).windows == []


@pytest.mark.parametrize(("height", "width", "some"), [(80, 80, True), (80, 90, True), (90, 90, False)])
def test_a_class_of_more_than_12_percent_gets_no_window(height, width, some):
    closer = WindowSource(Planted(*[[(1, 50, 100, height, width)]] * 30), [1], seed=0)
    assert bool(closer.windows) == some


def test_the_largest_part_is_looked_at():
    closer = WindowSource(Planted([(1, 10, 10, 13, 13), (1, 150, 240, 20, 20)]), [1], seed=0)
    ((_, top, left, side),) = closer.windows
    assert top + side > 170
    assert left + side > 260


def test_windows_depend_on_seed_image_and_class_alone():
    scenes = [[SMALL], [SMALL, (2, 120, 200, 25, 20)], []]
    source = Planted(*scenes)
    first, again = (WindowSource(source, [1, 2], seed=3) for _ in range(2))
    assert first.windows == again.windows
    assert [window.image for window in first.windows] == [0, 1, 1]
    assert len({window[1:] for window in first.windows}) == 3
    assert WindowSource(source, [2], seed=3).windows == first.windows[2:]
    assert WindowSource(source, [1, 2], seed=4).windows != first.windows


@pytest.mark.parametrize("seed", range(20))
def test_windows_lie_in_the_image_and_hold_the_middle_of_the_object(seed):
    draw = np.random.default_rng(seed)
    inside = np.zeros((120, 160), dtype=bool)
    top, left = draw.integers(0, 100), draw.integers(0, 140)
    inside[top : top + 20, left : left + 20] = True
    found = draw_window(inside, draw)
    assert found is not None
    row, column, side = found
    assert 0 <= row <= 120 - side
    assert 0 <= column <= 160 - side
    assert 80 <= side <= 90
    assert row <= top + 10 <= row + side
    assert column <= left + 10 <= column + side


def test_what_is_wrong_is_said(monkeypatch):
    with pytest.raises(ValueError, match="seed must be"):
        WindowSource(Planted([SMALL]), [1], seed=-1)
    with pytest.raises(TypeError, match="source must"):
        WindowSource(object(), [1], seed=0)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r'windows need scipy: pip install "fewshotseg\[train\]"'):
        windows.WindowSource(Planted([SMALL]), [1], seed=0)
