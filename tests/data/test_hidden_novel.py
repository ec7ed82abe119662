"""The share of novel classes in the training images of a fold."""

from types import SimpleNamespace

import pytest

from fewshotseg.data.hidden_novel import hidden_novel_share
from fewshotseg.data.sources.synthetic import SyntheticSource
from fewshotseg.data.splits import ClassSplit

SPLIT = ClassSplit(base=(1, 2, 3), novel=(4, 5))


def source(*class_areas):
    return SimpleNamespace(class_areas=class_areas)


def test_literal():
    areas = [
        {1: 9, 2: 5, 4: 1},  # two base, one novel
        {3: 9, 4: 700, 5: 2},  # one base, two novel
        {1: 4},  # one base
        {4: 9, 5: 9},  # no training image
        {},
    ]
    assert hidden_novel_share(source(*areas), SPLIT) == 3 / 7


def test_classes_of_neither_part_do_not_count():
    assert hidden_novel_share(source({1: 9, 4: 9, 6: 9}, {6: 9, 5: 9}), SPLIT) == 0.5


def test_class_without_a_pixel_is_not_there():
    assert hidden_novel_share(source({1: 9, 4: 0}, {2: 0, 5: 9}), SPLIT) == 0


def test_no_novel_class():
    assert hidden_novel_share(source({1: 9}), ClassSplit(base=(1,), novel=())) == 0


@pytest.mark.parametrize("class_areas", [[], [{}], [{4: 9}, {6: 1}]])
def test_no_training_image(class_areas):
    with pytest.raises(ValueError, match=r"split must have a base class that the source holds, got \[1, 2, 3\]"):
        hidden_novel_share(source(*class_areas), SPLIT)


def test_a_class_on_both_sides_is_refused():
    with pytest.raises(ValueError, match=r"split must not have classes that are base and novel, got \[2\]"):
        hidden_novel_share(source({1: 9}), ClassSplit(base=(1, 2), novel=(2, 3)))


def test_equals_a_count_over_decoded_masks():
    data = SyntheticSource(40, num_classes=5, size=32)
    base = novel = 0
    for index in range(40):
        held = set(data.load(index).mask.unique().tolist()) - {0}
        if held & {1, 2, 3}:
            base += len(held & {1, 2, 3})
            novel += len(held & {4, 5})
    share = hidden_novel_share(data, SPLIT)
    assert share == novel / (base + novel)
    assert 0.15 < share < 0.45
