import pytest

from fewshotseg.data.splits import COCO_CLASSES, PASCAL_CLASSES, PASCAL_TO_COCO, coco20i, pascal5i

NOVEL_PASCAL = [
    ["aeroplane", "bicycle", "bird", "boat", "bottle"],
    ["bus", "car", "cat", "chair", "cow"],
    ["diningtable", "dog", "horse", "motorbike", "person"],
    ["pottedplant", "sheep", "sofa", "train", "tvmonitor"],
]


@pytest.mark.parametrize("fold", range(4))
def test_pascal_folds_by_name(fold):
    split = pascal5i(fold)
    assert [PASCAL_CLASSES[class_id] for class_id in split.novel] == NOVEL_PASCAL[fold]
    assert sorted(split.base + split.novel) == list(range(1, 21))
    assert len(split.base) == 15
    assert list(split.base) == sorted(split.base)


@pytest.mark.parametrize("fold", range(4))
def test_interleaved_coco_folds_are_residues(fold):
    split = coco20i(fold)
    assert all((class_id - 1) % 4 == fold for class_id in split.novel)
    assert all((class_id - 1) % 4 != fold for class_id in split.base)
    assert (len(split.base), len(split.novel)) == (60, 20)


@pytest.mark.parametrize(("fold", "first", "last"), [(0, 1, 20), (1, 21, 40), (2, 41, 60), (3, 61, 80)])
def test_contiguous_coco_folds_are_ranges(fold, first, last):
    split = coco20i(fold, layout="contiguous")
    assert split.novel == tuple(range(first, last + 1))
    assert set(split.base) == set(range(1, 81)) - set(split.novel)


def test_fold_zero_of_coco_by_name():
    names = [COCO_CLASSES[class_id] for class_id in coco20i(0).novel]
    assert names[:6] == ["person", "airplane", "boat", "parking meter", "dog", "elephant"]
    assert names[-2:] == ["refrigerator", "scissors"]


def test_names_at_known_ids():
    assert (len(PASCAL_CLASSES), len(COCO_CLASSES)) == (20, 80)
    assert len(set(COCO_CLASSES.values())) == 80
    assert {i: COCO_CLASSES[i] for i in (1, 10, 40, 58, 62, 63, 80)} == {
        1: "person",
        10: "traffic light",
        40: "bottle",
        58: "couch",
        62: "toilet",
        63: "tv",
        80: "toothbrush",
    }


@pytest.mark.parametrize("fold", [-1, 4, 999, "0", None, True, 1.0])
def test_unknown_folds_are_refused(fold):
    with pytest.raises(ValueError, match="fold must be one of 0, 1, 2, 3, got"):
        pascal5i(fold)
    with pytest.raises(ValueError, match="fold must be one of 0, 1, 2, 3, got"):
        coco20i(fold)


def test_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="layout must be one of 'interleaved', 'contiguous', got 'fwb'"):
        coco20i(0, layout="fwb")


def test_vocs_classes_are_twenty_of_cocos():
    names = {PASCAL_CLASSES[pascal]: COCO_CLASSES[coco] for pascal, coco in PASCAL_TO_COCO.items()}
    assert len(set(names.values())) == len(names) == 20
    assert {pascal: coco for pascal, coco in names.items() if pascal != coco} == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
