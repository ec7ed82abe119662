import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors

from fewshotseg._imagenet import IMAGENET_MEAN, IMAGENET_STD
from fewshotseg.data.geometry import Blur, FitSquare, ForegroundCrop, RandomScale
from fewshotseg.data.transforms import (
    hsnet_eval,
    padded_eval,
    pfenet_eval,
    pfenet_train,
    scnet_train,
)
from fewshotseg.ops import fitted_size, restore_size

MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]


def sample(height, width, seed=0):
    """A random image, and a mask with a rectangle of foreground, a column of void and background."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.int64)
    mask[height // 4 : height // 2 + 1, width // 3 : 2 * width // 3 + 1] = 1
    mask[:, 0] = 255
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


def painted(mask):
    """An image that is white where the mask is 1 and black elsewhere."""
    return tv_tensors.Image((mask == 1).to(torch.uint8).expand(3, -1, -1) * 255)


def seeded(transform, image, mask, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(image, mask)


def still(**settings):
    """PFENet's augmentation with everything random switched off, but for what is named."""
    return pfenet_train(**{"scale": None, "rotate_p": 0.0, "blur_p": 0.0, "flip_p": 0.0, **settings})


def naive_bilinear(image, height, width):
    """Pixel centres at half, no antialiasing, edges repeated: OpenCV's default. (C, h, w) -> (C, H, W)."""
    old_height, old_width = image.shape[1:]
    result = np.empty((image.shape[0], height, width))
    for y in range(height):
        for x in range(width):
            at_y = min(max((y + 0.5) * old_height / height - 0.5, 0), old_height - 1)
            at_x = min(max((x + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            y0, x0 = int(at_y), int(at_x)
            y1, x1 = min(y0 + 1, old_height - 1), min(x0 + 1, old_width - 1)
            dy, dx = at_y - y0, at_x - x0
            above = image[:, y0, x0] * (1 - dx) + image[:, y0, x1] * dx
            below = image[:, y1, x0] * (1 - dx) + image[:, y1, x1] * dx
            result[:, y, x] = above * (1 - dy) + below * dy
    return result


def naive_nearest(mask, height, width):
    """The pixel that floor(position * old / new) names: OpenCV's nearest."""
    rows = [math.floor(y * mask.shape[0] / height) for y in range(height)]
    columns = [math.floor(x * mask.shape[1] / width) for x in range(width)]
    return mask[np.ix_(rows, columns)]


def naive_fitted_size(height, width, size):
    """As the original computes it, one side after the other."""
    if height >= width:
        ratio = size * 1.0 / height
        new_height, new_width = size, int(width * ratio)
    else:
        ratio = size * 1.0 / width
        new_height, new_width = int(height * ratio), size
    return new_height - new_height % 8, new_width - new_width % 8


# Sizes and the way back


@pytest.mark.parametrize(
    ("original", "size", "expected"),
    [
        ((375, 500), 473, (352, 472)),
        ((500, 375), 473, (472, 352)),
        ((500, 500), 473, (472, 472)),
        ((333, 500), 473, (312, 472)),
        ((427, 640), 641, (424, 640)),
        ((640, 480), 641, (640, 480)),
        ((100, 80), 480, (480, 384)),
        ((500, 4), 473, (472, 8)),
    ],
)
def test_fitted_sizes_are_floored_to_multiples_of_eight(original, size, expected):
    assert fitted_size(original, size, multiple=8) == expected


def test_fitted_sizes_equal_the_original_computation():
    for size in (473, 641):
        for height in range(100, 641, 3):
            for width in (100, 240, 333, 375, height, 430, 500, 640):
                assert fitted_size((height, width), size, multiple=8) == naive_fitted_size(height, width, size)


def test_square_images_stay_square():
    for side in range(1, 700):
        assert fitted_size((side, side), 480) == (480, 480)


def test_restoring_a_ramp_gives_the_ramp():
    original, inner = (30, 40), (25, 33)
    rows, columns = torch.linspace(0, 1, 25)[:, None], torch.linspace(2, 5, 33)[None]
    square = torch.full((1, 1, 41, 41), 99.0)
    square[..., :25, :33] = rows + columns
    expected = torch.linspace(0, 1, 30)[:, None] + torch.linspace(2, 5, 40)[None]
    torch.testing.assert_close(restore_size(square, original, inner=inner)[0, 0], expected)


@pytest.mark.parametrize("original", [(30, 40), (40, 30), (65, 65), (100, 7)])
def test_restoring_as_pfenet_does_resizes_the_whole_square(original):
    logits = torch.randn(2, 2, 65, 65, generator=torch.Generator().manual_seed(0))
    longest = max(original)
    whole = F.interpolate(logits, (longest, longest), mode="bilinear", align_corners=True)
    assert torch.equal(restore_size(logits, original), whole[:, :, : original[0], : original[1]])


def test_fitting_and_restoring_meet():
    _, mask = sample(60, 90)
    fitted = padded_eval(181)(painted(mask), mask)[1]
    inner = fitted_size((60, 90), 181)
    restored = restore_size((fitted == 1).float()[None, None], (60, 90), inner=inner)[0, 0] > 0.5
    assert (restored == (mask == 1)).float().mean() > 0.98


def test_restoring_refuses_other_maps():
    with pytest.raises(ValueError, match=r"maps must be square, got shape \(1, 2, 8, 9\)"):
        restore_size(torch.rand(1, 2, 8, 9), (4, 4))
    with pytest.raises(ValueError, match="maps must have shape"):
        restore_size(torch.rand(2, 8, 8), (4, 4))
    with pytest.raises(TypeError, match="maps must be a floating-point tensor"):
        restore_size(torch.ones(1, 2, 8, 8, dtype=torch.long), (4, 4))


# Evaluation


@pytest.mark.parametrize(("height", "width"), [(37, 53), (53, 37), (20, 20), (11, 90)])
def test_pfenet_eval_equals_a_naive_resize_on_a_black_square(height, width):
    image, mask = sample(height, width)
    new_height, new_width = naive_fitted_size(height, width, 41)
    new_height, new_width = max(new_height, 8), max(new_width, 8)
    canvas, labels = np.zeros((3, 41, 41)), np.full((41, 41), 255)
    canvas[:, :new_height, :new_width] = naive_bilinear(image.numpy() / 255, new_height, new_width)
    labels[:new_height, :new_width] = naive_nearest(mask.numpy(), new_height, new_width)
    fitted_image, fitted_mask = pfenet_eval(41)(image, mask)
    expected = (torch.from_numpy(canvas) - MEAN) / STD
    torch.testing.assert_close(fitted_image.as_subclass(torch.Tensor), expected.float(), atol=1e-4, rtol=0)
    assert fitted_mask.tolist() == labels.tolist()


def test_padded_eval_fills_the_longer_side_and_pads_with_zeros():
    image, mask = sample(30, 40)
    fitted_image, fitted_mask = padded_eval(20)(image, mask)
    assert (fitted_image[:, 15:] == 0).all()
    assert (fitted_mask[15:] == 255).all()
    assert torch.equal(fitted_mask[:15], mask[::2, ::2])
    means = image.float().mean(dim=(1, 2)) / 255
    torch.testing.assert_close((fitted_image[:, :15] * STD + MEAN).mean(dim=(1, 2)), means, atol=0.01, rtol=0)


def test_hsnet_eval_stretches_to_a_square():
    image, mask = sample(30, 40)
    fitted_image, fitted_mask = hsnet_eval(60)(image, mask)
    assert fitted_image.shape == (3, 60, 60)
    assert fitted_mask.tolist() == naive_nearest(mask.numpy(), 60, 60).tolist()
    expected = (torch.from_numpy(naive_bilinear(image.numpy() / 255, 60, 60)) - MEAN) / STD
    torch.testing.assert_close(fitted_image.as_subclass(torch.Tensor), expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("preset", [pfenet_eval, padded_eval, hsnet_eval])
def test_evaluation_draws_nothing(preset):
    before = torch.get_rng_state()
    preset(33)(*sample(30, 40))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("preset", [pfenet_eval, padded_eval, hsnet_eval, pfenet_train, scnet_train])
def test_mean_and_std_are_settings(preset):
    image = tv_tensors.Image(torch.full((3, 40, 40), 255, dtype=torch.uint8))
    settings = {"rotate_p": 0.0} if preset in (pfenet_train, scnet_train) else {}
    transform = preset(32, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, **settings)
    result = transform(image, tv_tensors.Mask(torch.ones(40, 40, dtype=torch.int64)))[0]
    torch.testing.assert_close(result.as_subclass(torch.Tensor), torch.ones(3, 32, 32))


# Training


@given(
    height=st.integers(8, 70),
    width=st.integers(8, 70),
    size=st.integers(1, 60),
    seed=st.integers(0, 1000),
    preset=st.sampled_from([pfenet_train, scnet_train]),
)
def test_training_presets_give_what_a_model_takes(height, width, size, seed, preset):
    image, mask = seeded(preset(size), *sample(height, width), seed=seed)
    assert image.shape == (3, size, size)
    assert image.dtype == torch.float32
    assert image.isfinite().all()
    assert mask.shape == (size, size)
    assert mask.dtype == torch.int64
    assert set(mask.unique().tolist()) <= {0, 1, 255}


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_move_together(seed):
    mask = tv_tensors.Mask(torch.zeros(80, 100, dtype=torch.int64))
    mask[20:50, 30:70] = 1
    image, moved = seeded(pfenet_train(size=90, blur_p=0.0, rotate_p=1.0), painted(mask), mask, seed=seed)
    white = (image * STD + MEAN)[0] > 0.5
    inside = moved != 255
    assert (moved == 1).sum() > 800
    assert (white == (moved == 1))[inside].float().mean() > 0.98


def test_with_everything_off_only_the_normalisation_is_left():
    image, mask = sample(32, 32)
    result, kept = still(size=32)(image, mask)
    torch.testing.assert_close(result.as_subclass(torch.Tensor), (image / 255 - MEAN) / STD)
    assert torch.equal(kept, mask)


def test_mirroring_is_left_to_right():
    image, mask = sample(32, 32)
    result, mirrored = still(size=32, flip_p=1.0)(image, mask)
    torch.testing.assert_close(result.as_subclass(torch.Tensor), (image.flip(2) / 255 - MEAN) / STD)
    assert torch.equal(mirrored, mask.flip(1))


def test_rotation_uncovers_mean_colour_and_void():
    image = tv_tensors.Image(torch.full((3, 64, 64), 255, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.ones(64, 64, dtype=torch.int64))
    uncovered = []
    for seed in range(20):
        result, rotated = seeded(still(size=64, rotate_p=1.0, degrees=10.0), image, mask, seed=seed)
        assert set(rotated.unique().tolist()) <= {1, 255}
        assert (rotated == 255).float().mean() < 0.1
        assert rotated[32, 32] == 1
        # Colours may mix in the pixel beside the image.
        beyond = F.max_pool2d((rotated == 1).float()[None], 3, stride=1, padding=1)[0] == 0
        uncovered.append(result[:, beyond].flatten())
    assert torch.cat(uncovered).numel() > 1000
    assert torch.cat(uncovered).abs().max() < 1e-6


def test_rotation_is_by_up_to_the_given_angle_both_ways():
    mask = tv_tensors.Mask(torch.zeros(101, 101, dtype=torch.int64))
    mask[50, 90] = 1
    mask = tv_tensors.Mask((F.max_pool2d((mask == 1).float()[None], 3, stride=1, padding=1)[0]).long())
    angles = []
    for seed in range(60):
        rotated = seeded(still(size=101, rotate_p=1.0, degrees=10.0), painted(mask), mask, seed=seed)[1]
        y, x = (rotated == 1).nonzero().float().mean(dim=0).tolist()
        angles.append(math.degrees(math.atan2(y - 50, x - 50)))
    assert -10.9 < min(angles) < -7
    assert 7 < max(angles) < 10.9


def test_blur_is_a_gaussian_of_five_pixels():
    result, kept = still(size=20, blur_p=1.0)(*sample(20, 20))
    image = sample(20, 20)[0].numpy() / 255
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.1**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    blurred = sum(kernel[y, x] * padded[:, y : y + 20, x : x + 20] for y in range(5) for x in range(5))
    expected = ((torch.from_numpy(blurred) - MEAN) / STD).float()
    torch.testing.assert_close(result.as_subclass(torch.Tensor), expected, atol=1e-5, rtol=0)
    assert torch.equal(kept, sample(20, 20)[1])


def test_probabilities_are_met():
    image, mask = sample(16, 16)
    plain = still(size=16)(image, mask)[0]
    for chance in ("rotate_p", "blur_p", "flip_p"):
        transform = still(size=16, **{chance: 0.5})
        changed = sum(not torch.equal(seeded(transform, image, mask, seed=seed)[0], plain) for seed in range(200))
        assert 65 < changed < 135, chance


def test_scaling_draws_one_factor_of_the_range_for_both_sides():
    image, mask = sample(100, 200)
    heights = []
    for seed in range(100):
        scaled_image, scaled_mask = seeded(RandomScale((0.9, 1.1)), image, mask, seed=seed)
        height, width = scaled_mask.shape
        assert scaled_image.shape == (3, height, width)
        assert abs(width - 2 * height) <= 1
        heights.append(height)
    assert 90 <= min(heights) < 93
    assert 107 < max(heights) <= 110


@pytest.mark.parametrize(("factor", "height", "width"), [(0.9, 27, 36), (1.1, 33, 44), (0.5, 15, 20)])
def test_scaling_equals_a_naive_resize(factor, height, width):
    image, mask = sample(30, 40)
    scaled_image, scaled_mask = RandomScale((factor, factor))(tv_tensors.Image(image / 255), mask)
    expected = torch.from_numpy(naive_bilinear(image.numpy() / 255, height, width)).float()
    torch.testing.assert_close(scaled_image.as_subclass(torch.Tensor), expected, atol=1e-5, rtol=0)
    assert scaled_mask.tolist() == naive_nearest(mask.numpy(), height, width).tolist()


def test_scnet_neither_scales_nor_blurs():
    kinds = [type(each).__name__ for each in scnet_train(degrees=5.0).transforms]
    assert "RandomScale" not in kinds
    image, mask = sample(32, 32)
    crops = {
        tuple(seeded(scnet_train(32, rotate_p=0.0), image, mask, seed=seed)[0].flatten().tolist()) for seed in range(30)
    }
    assert len(crops) == 2  # as it is, and mirrored


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 3), (1, 900), (900, 2)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize("preset", [pfenet_eval, padded_eval, hsnet_eval, pfenet_train, scnet_train])
def test_images_of_any_size_give_what_a_model_takes(preset, size, dtype):
    chances = {"rotate_p": 1.0, "flip_p": 1.0} if preset in (pfenet_train, scnet_train) else {}
    chances |= {"blur_p": 1.0} if preset is pfenet_train else {}
    image, mask = tv_tensors.Image(torch.ones(3, *size).to(dtype)), tv_tensors.Mask(torch.ones(size).long())
    moved, moved_mask = preset(33, **chances)(image, mask)
    assert moved.shape == (3, 33, 33)
    assert moved.dtype == torch.float32
    assert moved.isfinite().all()
    assert moved_mask.shape == (33, 33)
    assert set(moved_mask.flatten().tolist()) <= {1, 255}


def test_only_images_too_small_for_the_kernel_are_not_blurred():
    for side, changed in ((2, False), (3, True)):
        image, mask = sample(side, side)
        image = tv_tensors.Image(image.float())
        blurred, same = Blur(5, 1.1)(image, mask)
        assert torch.equal(blurred, image) is not changed
        assert torch.equal(same, mask)


def test_one_colour_may_stand_for_all_channels():
    image, mask = sample(4, 8)
    assert (FitSquare(8, color=(7,))(image, mask)[0][:, 4:] == 7).all()
    assert (ForegroundCrop(12, color=(7,))(image, mask)[0][:, 0] == 7).all()


def test_every_number_shows_when_printed():
    text = str(pfenet_train(size=473))
    for number in ("0.9, 1.1", "-10.0, 10.0", "473", "keep=0.85", "max_redraws=31", "0.485", "p=0.5", "1.1"):
        assert number in text, number
    assert "multiple=8" in str(pfenet_eval())


# The crop


def crop(mask, size, seed=0, **settings):
    mask = tv_tensors.Mask(torch.as_tensor(mask))
    image = tv_tensors.Image(torch.arange(mask.numel(), dtype=torch.float32).reshape(1, *mask.shape))
    return seeded(ForegroundCrop(size, color=(-1.0,), **settings), image, mask, seed=seed)


def test_a_small_image_is_padded_around_with_the_odd_pixel_below_and_right():
    image, mask = crop(torch.ones(5, 4, dtype=torch.int64), 9)
    assert (mask == 1).nonzero().amin(dim=0).tolist() == [2, 2]
    assert (mask == 1).nonzero().amax(dim=0).tolist() == [6, 5]
    assert torch.equal(image[0, 2:7, 2:6], torch.arange(20.0).reshape(5, 4))
    assert (image[0][mask == 255] == -1).all()
    assert (mask == 255).sum() == 81 - 20


def test_only_the_short_side_is_padded():
    image, mask = crop(torch.ones(3, 20, dtype=torch.int64), 8)
    assert mask.shape == (8, 8)
    assert (mask[2:5] == 1).all()
    assert (mask[:2] == 255).all()
    assert (mask[5:] == 255).all()
    first = int(image[0, 2, 0])
    assert image[0, 3].tolist() == [float(20 + first + step) for step in range(8)]


def test_every_place_is_drawn():
    corners = [crop(torch.zeros(6, 5, dtype=torch.int64), 4, seed=seed)[0][0, 0, 0].item() for seed in range(100)]
    assert set(corners) == {0.0, 1.0, 5.0, 6.0, 10.0, 11.0}


def test_crops_keep_the_foreground_where_they_can():
    mask = torch.zeros(60, 60, dtype=torch.int64)
    mask[8:28, 8:28] = 1
    mask[40:, 40:] = 255
    for seed in range(30):
        assert crop(mask, 40, seed=seed)[1].eq(1).sum() >= 0.85 * 400
    lost = [crop(mask, 40, seed=seed, max_redraws=0)[1].eq(1).sum() < 0.85 * 400 for seed in range(30)]
    assert 10 < sum(lost) < 30


def random_numbers_used(mask, **settings):
    """How many places were drawn, from the state that random numbers were left in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ForegroundCrop(4, color=(0.0,), **settings)(
            tv_tensors.Image(torch.zeros(1, *mask.shape)), tv_tensors.Mask(mask)
        )
        after = torch.get_rng_state()
        torch.manual_seed(0)
        for count in range(100):
            if torch.equal(torch.get_rng_state(), after):
                return count
            torch.randint(5, ())
            torch.randint(5, ())
    raise AssertionError("more than 100 places")


def test_at_most_31_redraws_and_none_without_foreground():
    everywhere = torch.ones(8, 8, dtype=torch.int64)
    assert random_numbers_used(everywhere) == 32
    assert random_numbers_used(everywhere, max_redraws=4) == 5
    assert random_numbers_used(everywhere, keep=0.25) == 1
    assert random_numbers_used(everywhere, keep=0.2501) == 32
    assert random_numbers_used(torch.zeros(8, 8, dtype=torch.int64)) == 1
    assert random_numbers_used(torch.full((8, 8), 255)) == 1


def test_an_impossible_crop_is_still_a_crop():
    image, mask = crop(torch.ones(20, 20, dtype=torch.int64), 4)
    assert mask.tolist() == [[1] * 4] * 4
    assert image.shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ForegroundCrop(0, color=(0,)), "size must be at least 1, got 0"),
        (lambda: ForegroundCrop(4, color=(0,), keep=1.5), "keep must be from 0 to 1, got 1.5"),
        (lambda: ForegroundCrop(4, color=(0,), max_redraws=-1), "max_redraws must be at least 0, got -1"),
        (lambda: RandomScale((1.1, 0.9)), r"the smaller first, got \(1.1, 0.9\)"),
        (lambda: RandomScale((0.0, 0.9)), "every number of scale must be from 0.01 to 10, got 0.0"),
        (lambda: FitSquare(4, color=(0,), multiple=8), "size must be at least 8, got 4"),
        (lambda: FitSquare(4, color=(0,), multiple=0), "multiple must be at least 1, got 0"),
        (lambda: hsnet_eval(0), "size must be at least 1, got 0"),
        (lambda: pfenet_train(0), "size must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
