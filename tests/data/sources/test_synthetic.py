"""Procedural images: the same everywhere, exact masks and areas, every class, novel objects in the background."""

import colorsys
import hashlib
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from fewshotseg.data.sources._synthetic_looks import (
    CLUTTER,
    CONTOURS,
    TEXTURES,
    contour_radii,
    direction_index,
    look,
    rgb,
    unit_vector,
    value_noise,
)
from fewshotseg.data.sources._synthetic_scenes import Layer, arrange, paint
from fewshotseg.data.sources.synthetic import SyntheticSource


def equal(one, other):
    return torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask)


@pytest.mark.parametrize(("size", "shape"), [(32, (32, 32)), ((40, 96), (40, 96)), ([96, 40], (96, 40))])
def test_sample(size, shape):
    image, mask = SyntheticSource(3, size=size).load(2)
    assert type(image) is tv_tensors.Image
    assert type(mask) is tv_tensors.Mask
    assert image.shape == (3, *shape)
    assert mask.shape == shape
    assert image.dtype == torch.uint8
    assert mask.dtype == torch.int64
    assert image.float().std() > 10


def test_default_is_128_pixels_and_20_classes():
    source = SyntheticSource()
    assert len(source.ids) == 1000
    assert list(source.class_names) == list(range(1, 21))
    assert source.load(999).mask.shape == (128, 128)


def test_same_bits_in_any_order_of_access():
    one, other = SyntheticSource(6, size=48), SyntheticSource(6, size=48)
    samples = [one.load(index) for index in range(6)]
    assert len(other.class_areas) == 6
    for index in (5, 0, 3, 3, 1):
        assert equal(samples[index], other.load(index))


def test_settings_may_be_of_numpy():
    source = SyntheticSource(np.int64(4), num_classes=np.int32(3), size=np.array([40, 50]), seed=np.int64(2))
    assert equal(source.load(3), SyntheticSource(4, num_classes=3, size=(40, 50), seed=2).load(3))
    assert source.ids[3] == "synthetic-2-000003"


def test_image_does_not_depend_on_length():
    assert equal(SyntheticSource(4, size=48).load(3), SyntheticSource(4000, size=48).load(3))


# All arithmetic behind images and masks is exact, so these bits hold on every machine. Published numbers depend on
# them: a change of a digest is a change of results. All contours and textures are in them.
@pytest.mark.parametrize(
    ("seed", "length", "settings", "expected"),
    [
        (0, 20, {}, "c5766a6668d7173e"),
        (0, 70, {"size": 40}, "c057ae89639b4188"),
        (1, 120, {"num_classes": 120, "size": (50, 41)}, "102438e290f3c3ca"),
        (2**70, 4, {"num_classes": 1, "size": 32}, "fff7e32e5863a19e"),
        (3, 24, {"num_classes": 24, "size": (32, 40), "border": 1}, "212d959ab057d98e"),
        (7, 7, {"num_classes": 7, "size": (97, 201), "border": 3}, "44ad7883bf344e09"),
        (9, 2, {"num_classes": 12, "size": 473}, "2e6b3576f2d75b4c"),
    ],
    ids=str,
)
def test_recorded_images(seed, length, settings, expected):
    source = SyntheticSource(length, seed=seed, **settings)
    digest = hashlib.sha256()
    for index, areas in enumerate(source.class_areas):
        image, mask = source.load(index)
        digest.update(image.numpy().tobytes() + mask.numpy().tobytes() + repr(sorted(areas.items())).encode())
    assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize("seed", [1, 2**32, 2**70])
def test_seeds_differ(seed):
    assert not equal(SyntheticSource(1, size=48).load(0), SyntheticSource(1, size=48, seed=seed).load(0))


def test_indices_differ():
    source = SyntheticSource(12, num_classes=3, size=32)
    assert len({source.load(index).image.numpy().tobytes() for index in range(12)}) == 12


def test_random_state_of_the_caller_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is the point
    SyntheticSource(1, size=32).load(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002 - likewise


def test_pickled_source_makes_the_same_images():
    source = SyntheticSource(4, size=32, border=1)
    copy = pickle.loads(pickle.dumps(source))
    assert equal(copy.load(1), source.load(1))
    assert copy.class_areas == source.class_areas


def test_names_and_ids():
    every = SyntheticSource(12, num_classes=120, seed=7)
    assert len(set(every.class_names.values())) == 120
    assert every.class_names[1] == "striped star"
    assert SyntheticSource(num_classes=9).class_names == {key: every.class_names[key] for key in range(1, 10)}
    assert every.ids[11] == "synthetic-7-000011"
    assert len(set(every.ids)) == 12


def test_first_twenty_classes_use_every_contour_and_texture_and_distant_hues():
    contours, textures, _, _, hues = zip(*map(look, range(1, 21)), strict=True)
    assert (set(contours), set(textures)) == (set(CONTOURS), set(TEXTURES))
    hues = sorted(first for first, _ in hues)
    assert min(later - earlier for earlier, later in itertools.pairwise(hues)) > 0.02


@pytest.mark.parametrize("border", [0, 1, 3])
def test_areas_are_those_of_the_masks(border):
    source = SyntheticSource(25, num_classes=7, size=(50, 40), border=border)
    for index, areas in enumerate(source.class_areas):
        values, counts = source.load(index).mask.unique(return_counts=True)
        found = {v: n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v not in {0, 255}}
        assert areas == found
        assert set(areas) <= set(source.class_names)


@pytest.mark.parametrize(("num_classes", "most"), [(1, 1), (2, 2), (7, 4)])
def test_classes_take_turns_and_mix(num_classes, most):
    source = SyntheticSource(60, num_classes=num_classes, size=32)
    assert all(1 + index % num_classes in areas for index, areas in enumerate(source.class_areas))
    assert {len(areas) for areas in source.class_areas} == set(range(1, most + 1))


def test_objects_vary_and_none_is_tiny():
    areas = [areas[1] for areas in SyntheticSource(400, num_classes=4).class_areas if 1 in areas]
    assert min(areas) > 200
    assert max(areas) > 4 * min(areas)


def test_novel_objects_stand_in_images_of_base_classes():
    base, novel = {1, 2, 3, 4, 5, 6}, {7, 8}
    areas = SyntheticSource(200, num_classes=8, size=32).class_areas
    both = [held for held in areas if base & held.keys() and novel & held.keys()]
    assert 40 < len(both) < 160


def test_border_is_void_on_both_sides_of_every_boundary():
    bare = SyntheticSource(8, num_classes=4, size=(36, 44)).load(6).mask.numpy()
    width = 2
    expected = bare.copy()
    for row in range(36):
        for column in range(44):
            around = bare[max(row - width, 0) : row + width + 1, max(column - width, 0) : column + width + 1]
            if (around != bare[row, column]).any():
                expected[row, column] = 255
    mask = SyntheticSource(8, num_classes=4, size=(36, 44), border=width).load(6).mask
    assert (mask.numpy() == expected).all()
    assert {0, 255} < set(mask.unique().tolist())


def test_border_leaves_the_image_alone():
    assert torch.equal(SyntheticSource(1, size=40).load(0).image, SyntheticSource(1, size=40, border=2).load(0).image)


@pytest.mark.parametrize("index", [-1, 5, 100])
def test_index_out_of_range(index):
    with pytest.raises(IndexError, match=f"index must be from 0 to 4, got {index}"):
        SyntheticSource(5).load(index)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"length": 0}, ValueError, "length must be at least 1, got 0"),
        ({"length": 2.0}, TypeError, "length must be an integer, got float"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"num_classes": 121}, ValueError, "num_classes must be at most 120, got 121"),
        ({"size": 31}, ValueError, "height of size must be at least 32, got 31"),
        ({"size": (64, 16)}, ValueError, "width of size must be at least 32, got 16"),
        ({"size": (64, 64, 3)}, ValueError, "size must be one number or height and width"),
        ({"size": 64.0}, TypeError, "height of size must be an integer, got float"),
        ({"size": "big"}, TypeError, "size must be one number or height and width, got str"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": None}, TypeError, "seed must be an integer, got NoneType"),
        ({"border": -1}, ValueError, "border must be at least 0, got -1"),
    ],
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        SyntheticSource(**settings)


def layer(class_id=1, **changes):
    plain = Layer(
        class_id=class_id,
        contour="disc",
        texture="striped",
        centre=(0.5, 0.5),
        radius=0.2,
        turn=0.1,
        stretch=1.0,
        frequency=2.0,
        texture_turn=0.3,
        phase=(0.2, 0.7),
        colours=((200.0, 100.0, 50.0), (100.0, 200.0, 250.0)),
    )
    return plain._replace(**changes)


def label(*layers, size=(200, 300)):
    return arrange(layers, size)


def test_mask_of_a_disc_is_where_the_disc_is():
    labels, _ = label(layer(centre=(0.6, 0.4), radius=0.25))
    rows, columns = np.mgrid[:200, :300] + 0.5
    assert (labels == (np.hypot(columns - 120, rows - 80) <= 50)).mean() > 0.9995


@pytest.mark.parametrize("stretch", [0.8, 1.3])
@pytest.mark.parametrize("contour", [name for name in CONTOURS | CLUTTER if name != "crescent"])
def test_radius_and_stretch_set_the_area(contour, stretch):
    labels, _ = label(layer(contour=contour, stretch=stretch, centre=(0.75, 0.5)))
    hole = 0.55**2 if contour == "ring" else 0
    assert (labels == 1).sum() == pytest.approx(math.pi * 40**2 * (1 - hole), rel=0.02)


def test_crescent_is_the_disc_without_its_hole():
    disc, _ = label(layer(turn=0))
    crescent, _ = label(layer(contour="crescent", turn=0))
    rows, columns = np.mgrid[:200, :300] + 0.5
    hole = np.hypot(columns - (100 + 0.5 * 40), rows - 100) < 0.78 * 40
    assert (crescent == disc * ~hole).mean() > 0.9995


def test_paint_changes_just_the_pixels_of_the_mask():
    image = np.zeros((3, 200, 300), np.float32)
    labels, [(first, patch)] = label(layer(contour="star"))
    paint(first, patch, image)
    assert ((image[0] >= 50) >= (labels == 1)).all()  # half of the darker red
    assert ((image[0] > 0) > (labels == 1)).mean() < 0.02  # no more than the smooth edge
    inside = image[:, labels == 1]
    assert inside[0].max() == pytest.approx(200)
    assert inside[2].max() == pytest.approx(250)


@pytest.mark.parametrize(("radius", "kept"), [(0.14, True), (0.17, False)])
@pytest.mark.parametrize("class_id", [0, 2])
def test_layer_that_hides_more_than_three_fifths_is_left_out(class_id, radius, kept):
    labels, visible = label(layer(), layer(class_id, radius=radius))
    assert len(visible) == 1 + kept
    assert (labels == 1).sum() >= 0.4 * math.pi * 40**2 * 0.99
    assert (2 in labels) == (kept and class_id == 2)


def test_hidden_parts_add_up():
    halves = [layer(0, contour="bar", centre=(0.5, y), radius=0.13, turn=0) for y in (0.4, 0.5, 0.6)]
    labels, visible = label(layer(), *halves)
    assert 1 < len(visible) < 4
    assert (labels == 1).sum() >= 0.4 * math.pi * 40**2 * 0.99


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_mix_two_colours_in_full(texture):
    y, x = np.mgrid[-20:20:0.05, -20:20:0.05].astype(np.float32)
    share = TEXTURES[texture](x, y)
    assert share.dtype == np.float32
    assert share.min() == 0
    assert share.max() == 1
    assert 0.1 < share.mean() < 0.9


def test_contours_look_up_the_angle():
    x, y = np.random.default_rng(0).normal(size=(2, 1000))
    flower = 1 + 0.3 * np.cos(6 * np.arctan2(y, x))
    found = contour_radii("flower")[direction_index(x, y)]
    assert found * math.sqrt(1 + 0.3**2 / 2) == pytest.approx(flower, abs=0.01)


def test_centre_of_a_contour_has_a_direction():
    zero = np.zeros(1, np.float32)
    assert 0 <= direction_index(zero, zero).item() < 1024


@pytest.mark.parametrize("hue", [-0.05, 0, 0.1, 0.3, 0.5, 0.7, 0.95, 1.2])
def test_rgb(hue):
    expected = colorsys.hsv_to_rgb(hue % 1, 0.6, 0.8)
    assert rgb(hue, 0.6, 0.8) == pytest.approx([255 * channel for channel in expected])


def test_unit_vector():
    assert unit_vector(0.25) == (0, 1)
    assert unit_vector(0.625) == pytest.approx((-math.sqrt(0.5), -math.sqrt(0.5)), abs=1e-4)


def test_value_noise_is_smooth_and_repeats_after_64():
    x = np.linspace(-70, 70, 20001, dtype=np.float32)
    noise = value_noise(x, x * 0.3)
    assert noise.min() >= 0
    assert noise.max() <= 1
    assert noise.std() > 0.1
    assert np.abs(np.diff(noise)).max() < 0.02
    assert value_noise(x[:5], x[:5]) == pytest.approx(value_noise(x[:5] + 64, x[:5] - 64), abs=1e-3)
