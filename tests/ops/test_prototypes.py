import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import _reference as reference
from _inputs import choice, label_masks, normal
from _strategies import seeds
from fewshotseg import assign_prototypes, background_regions, expand_prototypes

SHAPES = [(1, 1, 1), (1, 5, 3), (2, 1, 7), (3, 4, 4)]

# background_regions


@pytest.mark.parametrize("num_regions", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_regions_are_what_eq_5_leaves(shape, num_regions):
    labels, masks = choice(range(num_regions), *shape), label_masks(*shape, seed=1)
    regions = background_regions(labels, masks, num_regions)
    assert regions.dtype == torch.bool
    expected = reference.background_regions(labels.numpy(), masks.numpy(), num_regions)
    assert_close(regions, torch.from_numpy(expected))


def test_regions_by_hand():
    labels = torch.tensor([[[0, 0, 1], [1, 2, 2]]])
    masks = torch.tensor([[[0, 1, 0], [255, 1, 1]]])
    regions = background_regions(labels, masks, 4)
    assert regions.int().tolist() == [[[[1, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 0]], [[0] * 3] * 2, [[0] * 3] * 2]]


def test_another_void():
    labels, masks = torch.zeros(1, 1, 4, dtype=torch.long), torch.tensor([[[0, 1, 255, -1]]])
    assert background_regions(labels, masks, 1).tolist() == [[[[True, False, False, True]]]]
    assert background_regions(labels, masks, 1, ignore_index=-1).tolist() == [[[[True, False, True, False]]]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_whole_numbers_of_any_size(dtype):
    labels, masks = choice(range(3), 2, 4, 5), label_masks(2, 4, 5)
    expected = background_regions(labels, masks, 3)
    assert_close(background_regions(labels.to(dtype), masks.to(dtype), 3), expected)


@given(seed=seeds, num_regions=st.integers(1, 5), height=st.integers(1, 6), width=st.integers(1, 6))
def test_regions_are_disjoint_and_cover_the_background(seed, num_regions, height, width):
    labels = choice(range(num_regions), 2, height, width, seed=seed)
    masks = label_masks(2, height, width, seed=seed + 1)
    regions = background_regions(labels, masks, num_regions)
    assert_close(regions.sum(dim=1), (masks == 0).long())
    for k in range(num_regions):
        assert not (regions[:, k] & (labels != k)).any()


@pytest.mark.parametrize("value", [1, 255])
def test_without_background_every_region_is_empty(value):
    regions = background_regions(choice(range(3), 2, 4, 4), torch.full((2, 4, 4), value), 3)
    assert not regions.any()


LABELS = torch.zeros(2, 4, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("labels", "masks", "num_regions", "error", "name"),
    [
        (LABELS[0], LABELS, 2, ValueError, "labels"),
        (LABELS.tolist(), LABELS, 2, TypeError, "labels"),
        (LABELS.float(), LABELS, 2, TypeError, "labels"),
        (LABELS, LABELS[0], 2, ValueError, "masks"),
        (LABELS, LABELS[:, None], 2, ValueError, "masks"),
        (LABELS, LABELS.tolist(), 2, TypeError, "masks"),
        (LABELS, LABELS.float(), 2, TypeError, "masks"),
        (LABELS, LABELS[:1], 2, ValueError, "masks"),
        (LABELS, LABELS[:, :1], 2, ValueError, "masks"),
        (LABELS, LABELS[:, :, :1], 2, ValueError, "masks"),
        (LABELS, LABELS, 0, ValueError, "num_regions"),
        (LABELS, LABELS, 2.0, TypeError, "num_regions"),
    ],
)
def test_bad_regions_are_refused(labels, masks, num_regions, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        background_regions(labels, masks, num_regions)


# expand_prototypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "height", "width"), SHAPES)
def test_expansion_repeats_the_prototype(batch, height, width, dtype):
    prototypes = normal(batch, 3, dtype=dtype)
    expanded = expand_prototypes(prototypes, (height, width))
    expected = reference.expand_prototypes(reference.array(prototypes), (height, width))
    assert_close(expanded, torch.from_numpy(expected).to(dtype), rtol=0, atol=0)


def test_expansion_takes_no_memory():
    prototypes = normal(2, 3)
    assert expand_prototypes(prototypes, (50, 60)).untyped_storage().nbytes() == prototypes.untyped_storage().nbytes()


def test_expansion_gradients():
    prototypes = normal(2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: expand_prototypes(p, (2, 5)), (prototypes,))
    expand_prototypes(prototypes, (2, 5)).sum().backward()
    assert prototypes.grad is not None
    assert (prototypes.grad == 10).all()


@pytest.mark.parametrize(
    ("prototypes", "error"),
    [
        (torch.zeros(3), ValueError),
        (torch.zeros(2, 3, 4), ValueError),
        (torch.zeros(2, 3, 4, 5), ValueError),
        ([[1.0, 2.0]], TypeError),
    ],
)
def test_bad_expansion_is_refused(prototypes, error):
    with pytest.raises(error, match=r"\bprototypes\b.* must"):
        expand_prototypes(prototypes, (2, 2))


# assign_prototypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("num_prototypes", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_location_gets_its_regions_prototype(shape, num_prototypes, dtype):
    prototypes = normal(shape[0], num_prototypes, 3, dtype=dtype)
    labels = choice(range(num_prototypes), *shape)
    assigned = assign_prototypes(prototypes, labels)
    expected = reference.assign_prototypes(reference.array(prototypes), labels.numpy())
    assert_close(assigned, torch.from_numpy(expected).to(dtype), rtol=0, atol=0)


def test_assignment_by_hand():
    prototypes = torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [4.0, 40.0]]])
    assigned = assign_prototypes(prototypes, torch.tensor([[[0, 1]], [[1, 1]]]))
    assert assigned.tolist() == [[[[1, 2]], [[10, 20]]], [[[4, 4]], [[40, 40]]]]


def test_assignment_with_one_prototype_is_expansion():
    prototypes = normal(2, 3)
    assigned = assign_prototypes(prototypes[:, None], torch.zeros(2, 4, 5, dtype=torch.long))
    assert_close(assigned, expand_prototypes(prototypes, (4, 5)), rtol=0, atol=0)


def test_assignment_gradients():
    prototypes = normal(2, 3, 4, dtype=torch.float64).requires_grad_()
    labels = choice([0, 2], 2, 3, 5)
    assert torch.autograd.gradcheck(lambda p: assign_prototypes(p, labels), (prototypes,))
    assign_prototypes(prototypes, labels).sum().backward()
    assert prototypes.grad is not None
    for b in range(2):
        for k in range(3):
            assert (prototypes.grad[b, k] == (labels[b] == k).sum()).all()


PROTOTYPES = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("prototypes", "labels", "error", "name"),
    [
        (PROTOTYPES[0], LABELS, ValueError, "prototypes"),
        (PROTOTYPES.tolist(), LABELS, TypeError, "prototypes"),
        (PROTOTYPES, LABELS[0], ValueError, "labels"),
        (PROTOTYPES, LABELS[None], ValueError, "labels"),
        (PROTOTYPES, LABELS[:1], ValueError, "labels"),
        (PROTOTYPES, LABELS.tolist(), TypeError, "labels"),
        (PROTOTYPES, LABELS.float(), TypeError, "labels"),
        (PROTOTYPES, LABELS.bool(), TypeError, "labels"),
    ],
)
def test_bad_assignment_is_refused(prototypes, labels, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        assign_prototypes(prototypes, labels)
