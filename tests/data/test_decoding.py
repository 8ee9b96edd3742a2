"""Crops on the host: boxes as in torchvision; each image is decoded once, upright, whole or in part."""

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageOps

from gensupcon_jax.data import decoding
from gensupcon_jax.data.headers import join_headers, read_header
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from tests.encoded import encode, picture

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def split_of(images, **settings):
    headers, problems = join_headers(map(read_header, images))
    assert problems == [None] * len(images)
    return EncodedSplit(
        sources_fn=lambda numbers: [images[number] for number in numbers],
        where_fn=lambda number: f"image {number}",
        are_paths=False,
        numbers=np.arange(len(images)),
        classes=np.zeros(len(images), np.int32),
        headers=headers,
        num_classes=2,
        **settings,
    )


def crops_of(split, boxes):
    plan = decoding.plan_crops(split.headers, boxes, split.image_size)
    batches = [(np.arange(split.num_images), plan)]
    ((_, crops),) = decoding.crop_batches(split, batches, batch_size=split.num_images, num_views=boxes.shape[1])
    return plan, crops


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
    boxes = decoding.random_boxes(draws, sizes, scale=SCALE, ratio=RATIO)
    expected = [
        [torchvision_box(draw, *size) for draw in of_image] for of_image, size in zip(draws, sizes, strict=True)
    ]
    assert boxes.tolist() == expected


def test_an_image_of_one_pixel_has_a_box():
    boxes = decoding.random_boxes(np.full((1, 2, 22), 0.3), np.array([[1, 1]]), scale=(0.08, 0.2), ratio=RATIO)
    assert boxes.tolist() == [[[0, 0, 1, 1]] * 2]


def test_draws_depend_on_seed_step_and_row_only():
    whole = decoding.crop_draws(3, 7, slice(0, 12), 2, 12)
    parts = [decoding.crop_draws(3, 7, slice(start, start + 4), 2, 12) for start in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.min() >= 0 and whole.max() < 1
    assert abs(whole.mean() - 0.5) < 0.05
    for other in (decoding.crop_draws(4, 7, slice(0, 12), 2, 12), decoding.crop_draws(3, 8, slice(0, 12), 2, 12)):
        assert not np.isin(whole, other).any()


def test_the_center_box_is_a_square_share_of_the_shorter_side():
    assert decoding.center_boxes(np.array([[256, 341], [100, 40], [1, 1]]), 0.875).tolist() == [
        [[16, 58, 224, 224]],
        [[32, 2, 35, 35]],
        [[0, 0, 1, 1]],
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_cut_from_the_upright_image(kind, orientation):
    blocks = np.random.default_rng(0).integers(0, 255, (10, 16, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    boxes = np.array([[[10, 20, 60, 30], [0, 0, 50, 40], [31, 3, 40, 40]]])
    _, crops = crops_of(split_of([data], image_size=40), boxes)
    for crop, (top, left, height, width) in zip(crops[0], boxes[0], strict=True):
        expected = Image.fromarray(upright[top : top + height, left : left + width]).resize((40, 40), Image.BILINEAR)
        assert np.abs(crop.astype(int) - np.asarray(expected)).mean() < 4  # turned wrongly it is above 40
    np.testing.assert_allclose(crops[0, 2].astype(int), upright[31:71, 3:43], atol=12)  # of its own size: the pixels


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_with_transparency_has_the_colors_of_its_pixels(lossless):
    image = picture(0, 1).convert("RGBA")
    image.putalpha(Image.fromarray(np.arange(480, dtype=np.uint32).astype(np.uint8).reshape(20, 24)))
    data = encode(image, "WEBP", lossless=lossless, exact=True)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    _, crops = crops_of(split_of([data], image_size=20), np.array([[[0, 2, 20, 20]]]))
    for found, wanted in ((crops[0, 0], expected[:, 2:22]), (decoding.decode_upright(data, 1, 3), expected)):
        np.testing.assert_allclose(found.astype(int), wanted, atol=0 if lossless else 3)


def test_rows_below_the_boxes_are_not_decoded_and_change_nothing():
    data = encode(picture(0, 0, (96, 128)), quality=95)
    split = split_of([data, data], image_size=24)
    boxes = np.array([[[5, 3, 40, 40], [20, 60, 30, 44]], [[5, 3, 40, 40], [56, 60, 40, 44]]])
    plan, crops = crops_of(split, boxes)
    assert plan.rows.tolist() == [[50, 128], [96, 128]]
    np.testing.assert_array_equal(crops[0, 0], crops[1, 0])


def test_large_jpegs_are_decoded_at_a_smaller_scale():
    smooth = picture(2, 0, (40, 50)).resize((1000, 800), Image.BICUBIC)
    images = [encode(smooth, quality=95), encode(smooth, "PNG")]
    boxes = np.tile(np.array([[[8, 16, 640, 640], [160, 32, 480, 960]]]), (2, 1, 1))
    plan, crops = crops_of(split_of(images, image_size=60), boxes)
    assert plan.kinds.tolist() == [3, 4]  # an eighth: 480 / 8 is 60; PNG has no scales
    assert plan.boxes[0].tolist() == [[1, 2, 80, 80], [20, 4, 60, 120]]
    assert np.abs(crops[0].astype(int) - crops[1]).mean() < 4


def test_strong_downscaling_averages_pixels():
    checks = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (60, 60)))
    _, crops = crops_of(
        split_of([encode(checks, "PNG")], image_size=16, num_channels=1), np.array([[[0, 0, 120, 120]]])
    )
    assert crops.shape == (1, 1, 16, 16, 1)
    assert np.abs(crops.astype(int) - 127).max() <= 8  # without it: black and white


def test_an_image_that_breaks_while_training_is_named():
    sound, broken = encode(picture(0, 0)), encode(picture(0, 1, (60, 60)))[:900]
    split = split_of([sound, sound, broken, sound], image_size=8)
    with pytest.raises(UserError, match=r"^image 2 cannot be decoded \(.*\); repair or remove it, .*skip_damaged=True"):
        crops_of(split, np.tile(np.array([[[0, 0, 8, 8]]]), (4, 1, 1)))


def test_a_missing_file_is_named(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        path.write_bytes(encode(picture(0, 0), "PNG"))
    headers, _ = join_headers(read_header(path.read_bytes()) for path in paths)
    split = EncodedSplit(
        sources_fn=lambda numbers: [str(paths[number]).encode() for number in numbers],
        where_fn=lambda number: str(paths[number]),
        are_paths=True,
        numbers=np.arange(2),
        classes=np.zeros(2, np.int32),
        headers=headers,
        num_classes=2,
        image_size=8,
    )
    paths[1].unlink()
    with pytest.raises(UserError, match=r"1.png cannot be decoded \(.*No such file"):
        crops_of(split, np.tile(np.array([[[0, 0, 8, 8]]]), (2, 1, 1)))
