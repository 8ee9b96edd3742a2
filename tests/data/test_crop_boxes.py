"""Boxes of crops as torchvision draws them, and what is decoded for them."""

import math

import numpy as np

from gensupcon_jax.data import crop_boxes

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def torchvision_box(draws, height, width, scale=SCALE, ratio=RATIO):
    """RandomResizedCrop.get_params with given draws."""
    for attempt in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[attempt])
        low, high = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(low + (high - low) * draws[10 + attempt])
        box_width, box_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(draws[20] * (height - box_height + 1))
            return [top, int(draws[21] * (width - box_width + 1)), box_height, box_width]
    shape = width / height
    if shape < ratio[0]:
        box_width, box_height = width, round(width / ratio[0])
    elif shape > ratio[1]:
        box_width, box_height = round(height * ratio[1]), height
    else:
        box_width, box_height = width, height
    return [(height - box_height) // 2, (width - box_width) // 2, box_height, box_width]


def test_boxes_match_torchvision():
    sizes = np.array([[375, 500], [500, 375], [20, 900], [900, 20], [33, 32]] * 8, np.int32)
    draws = np.random.default_rng(0).random((len(sizes), 2, 22))
    boxes = crop_boxes.random_boxes(draws, sizes, scale=SCALE, ratio=RATIO)
    expected = [
        [torchvision_box(draw, *size) for draw in of_image] for of_image, size in zip(draws, sizes, strict=True)
    ]
    assert boxes.tolist() == expected


def test_an_image_of_one_pixel_has_a_box():
    boxes = crop_boxes.random_boxes(np.full((1, 2, 22), 0.3), np.array([[1, 1]]), scale=(0.08, 0.2), ratio=RATIO)
    assert boxes.tolist() == [[[0, 0, 1, 1]] * 2]


def test_draws_depend_on_seed_step_and_row_only():
    whole = crop_boxes.crop_draws(3, 7, slice(0, 12), 2, 12)
    parts = [crop_boxes.crop_draws(3, 7, slice(start, start + 4), 2, 12) for start in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.min() >= 0 and whole.max() < 1
    assert abs(whole.mean() - 0.5) < 0.05
    for other in (crop_boxes.crop_draws(4, 7, slice(0, 12), 2, 12), crop_boxes.crop_draws(3, 8, slice(0, 12), 2, 12)):
        assert not np.isin(whole, other).any()


def test_the_center_box_is_a_square_share_of_the_shorter_side():
    assert crop_boxes.center_boxes(np.array([[256, 341], [100, 40], [1, 1]]), 0.875).tolist() == [
        [[16, 58, 224, 224]],
        [[32, 2, 35, 35]],
        [[0, 0, 1, 1]],
    ]
