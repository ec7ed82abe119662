import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from _inputs import choice
from fewshotseg.data.episodes.masks import episode_mask, labels_of_classes


def naive(mask, class_ids, ignored=()):
    """One pixel after the other."""
    labels = np.zeros(mask.shape, dtype=np.int64)
    for place, value in np.ndenumerate(mask):
        if value == 255 or value in ignored:
            labels[place] = 255
        elif value in class_ids:
            labels[place] = class_ids.index(value) + 1
    return labels


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_classes_get_labels_in_their_order(shape, dtype):
    mask = choice([0, 3, 7, 9, 12, 255], *shape).to(dtype)
    found = labels_of_classes(mask, [9, 3, 200], ignore_classes=[12])
    assert isinstance(found, tv_tensors.Mask)
    assert found.dtype == torch.int64
    assert found.tolist() == naive(mask.numpy(), [9, 3, 200], {12}).tolist()


def test_one_class_is_the_mask_of_its_episode():
    mask = choice([0, 3, 7, 300, 255], 5, 6)
    for class_id in (3, 300):
        assert torch.equal(labels_of_classes(mask, [class_id]), episode_mask(mask, class_id))


def test_no_class_leaves_background_and_void():
    assert labels_of_classes(torch.tensor([[0, 4, 255]]), []).tolist() == [[0, 0, 255]]


def test_254_classes_have_labels_and_one_more_has_none():
    classes = [*range(1, 255)]
    assert torch.equal(labels_of_classes(torch.tensor([[254, 1]]), classes), torch.tensor([[254, 1]]))
    with pytest.raises(ValueError, match="class_ids must be up to 254 different classes"):
        labels_of_classes(torch.tensor([[1]]), [*classes, 256])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"class_ids": [3, 3]}, ValueError, r"class_ids must be up to 254 different classes, got \[3, 3\]"),
        ({"class_ids": [255]}, ValueError, "every class of class_ids must be the id of a class, got 255"),
        ({"class_ids": [0]}, ValueError, "every class of class_ids must be at least 1"),
        ({"class_ids": 3}, TypeError, "class_ids must be classes, got int"),
        ({"ignore_classes": [4, 3]}, ValueError, r"ignore_classes must not hold classes that get a label, got \[3\]"),
        ({"mask": torch.zeros(3)}, ValueError, r"mask must have shape \(H, W\) or \(B, H, W\)"),
        ({"mask": torch.zeros(3, 3)}, TypeError, "mask must hold integers"),
    ],
)
def test_what_makes_no_sense_is_refused(change, error, message):
    given = {"mask": torch.tensor([[3]]), "class_ids": [3], "ignore_classes": (), **change}
    with pytest.raises(error, match=message):
        labels_of_classes(given["mask"], given["class_ids"], ignore_classes=given["ignore_classes"])
