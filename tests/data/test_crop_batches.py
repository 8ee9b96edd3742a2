"""Crops on the host: each image is decoded once, upright, in threads; what breaks while training is named."""

import dataclasses
import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageOps

from gensupcon_jax.data import crop_boxes, decoding
from gensupcon_jax.data.crop_batches import crop_batches, damage_of_crops
from gensupcon_jax.data.headers import join_headers, read_header
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from tests.data.test_headers import DECODABLE
from tests.encoded import encode, picture


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
    plan = crop_boxes.plan_crops(split.headers, boxes, split.image_size)
    batches = [(np.arange(split.num_images), plan)]
    ((_, crops),) = crop_batches(split, batches)
    return plan, crops


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


def test_large_jpegs_are_decoded_at_a_smaller_scale():
    smooth = picture(2, 0, (40, 50)).resize((1000, 800), Image.BICUBIC)
    images = [encode(smooth, quality=95), encode(smooth, "PNG")]
    boxes = np.tile(np.array([[[8, 16, 640, 640], [160, 32, 480, 960]]]), (2, 1, 1))
    plan, crops = crops_of(split_of(images, image_size=60), boxes)
    assert plan.scales.tolist() == [8, 1]  # 480 / 8 is 60; PNG has no scales
    assert plan.sizes.tolist() == [[100, 125], [800, 1000]]
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


def files_of(tmp_path, num=3):
    """(paths, split) of image files of 20 x 24 pixels."""
    paths = [tmp_path / f"{number}.jpg" for number in range(num)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(picture(0, number)))
    return paths, files_split(paths)


def files_split(paths):
    """A split of these files with the headers that they have now."""
    return dataclasses.replace(
        split_of([path.read_bytes() for path in paths], image_size=8),
        sources_fn=lambda numbers: [str(paths[number]).encode() for number in numbers],
        where_fn=lambda number: str(paths[number]),
        are_paths=True,
    )


BOXES = np.tile(np.array([[[0, 0, 8, 8]]]), (3, 1, 1))


CHANGES = {
    "smaller": ("JPEG", (120, 96), "JPEG", (48, 60)),
    "larger": ("JPEG", (60, 48), "JPEG", (120, 96)),
    "larger, decoded at a smaller scale": ("JPEG", (60, 48), "JPEG", (160, 150)),
    "PNG": ("JPEG", (60, 48), "PNG", (60, 48)),
    "JPEG": ("PNG", (60, 48), "JPEG", (60, 48)),
    "smaller PNG": ("PNG", (60, 48), "PNG", (30, 48)),
    "smaller WebP": ("WEBP", (60, 48), "WEBP", (60, 47)),
    "GIF": ("WEBP", (60, 48), "GIF", (60, 48)),
    "of few pixels": ("JPEG", (60, 48), "JPEG", (2, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_that_is_replaced_while_training_is_named(tmp_path, change):
    kind, (height, width), other_kind, (other_height, other_width) = CHANGES[change]
    paths = [tmp_path / f"{number}.img" for number in range(3)]
    for path in paths:
        path.write_bytes(encode(picture(0, 0, (height, width)), kind))
    split = files_split(paths)
    paths[1].write_bytes(encode(picture(0, 1, (other_height, other_width)), other_kind))
    was = f"a {kind.replace('WEBP', 'WebP')} of {width} x {height}"
    now = f"a {other_kind.replace('WEBP', 'WebP')} of {other_width} x {other_height}"
    reason = f"it was {was} pixels when its header was read, and is now {now}"
    side = 40 if "scale" in change else 14
    boxes = np.tile(np.array([[[0, 0, side, side]]]), (3, 1, 1))
    with pytest.raises(UserError, match=rf"1\.img cannot be decoded \({reason}\); restore it, or start a new run$"):
        crops_of(split, boxes)
    assert damage_of_crops(split, np.arange(3), crop_boxes.plan_crops(split.headers, boxes, 8)) == {1: reason}


@pytest.mark.parametrize("kind", ["animated webp", "gif of a small frame", "cmyk without Adobe's marker", "565 bmp"])
def test_crops_of_odd_images_are_those_of_their_pixels(kind):
    pixels = decoding.decode_upright(DECODABLE[kind], 1, 3)
    boxes = np.array([[[3, 5, 20, 20], [1, 9, 20, 20]]])
    _, crops = crops_of(split_of([DECODABLE[kind]], image_size=20), boxes)
    for crop, (top, left, height, width) in zip(crops[0], boxes[0], strict=True):
        np.testing.assert_array_equal(crop, pixels[top : top + height, left : left + width])


def test_a_missing_file_is_named(tmp_path):
    paths, split = files_of(tmp_path)
    paths[1].unlink()
    with pytest.raises(
        UserError, match=r"1\.jpg cannot be decoded \(No such file or directory\); restore it, or start a new run$"
    ):
        crops_of(split, BOXES)


def test_all_damaged_images_of_a_batch_are_counted(tmp_path):
    paths, split = files_of(tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:400])
    paths[2].unlink()
    with pytest.raises(UserError, match=r"0\.jpg cannot be decoded \(.*\) and 1 more in its batch; repair or remove"):
        crops_of(split, BOXES)
    damaged = damage_of_crops(split, np.arange(3), crop_boxes.plan_crops(split.headers, BOXES, 8))
    assert list(damaged) == [0, 2]
    assert damaged[2] == "No such file or directory"


def test_a_record_that_cannot_be_read_is_named():
    images = [encode(picture(0, number)) for number in range(3)]

    def read(numbers):
        if 1 in numbers:
            raise RuntimeError("checksum of the record is wrong")
        return [images[number] for number in numbers]

    split = dataclasses.replace(split_of(images, image_size=8, num_threads=1), sources_fn=read)
    with pytest.raises(UserError, match=r"^image 1 cannot be decoded \(checksum of the record is wrong\); repair"):
        crops_of(split, BOXES)


def test_a_cmyk_jpeg_has_its_colors():
    smooth = picture(2, 0, (20, 25)).resize((200, 160), Image.BICUBIC)
    images = [encode(smooth.convert("CMYK"), quality=95), encode(smooth, quality=95)]
    plan, crops = crops_of(split_of(images, image_size=40), np.tile(np.array([[[8, 16, 100, 120]]]), (2, 1, 1)))
    assert plan.scales.tolist() == [1, 2]  # Pillow decodes the one of CMYK whole
    assert np.abs(crops[0].astype(int) - crops[1]).mean() < 4


def test_neither_threads_nor_batches_change_the_crops_or_their_order():
    images = [encode(picture(number, number, (40 + number, 60))) for number in range(10)]
    boxes = np.tile(np.array([[[1, 2, 30, 40], [8, 0, 24, 24]]]), (10, 1, 1))

    def crops_with(num_threads, batch_size):
        split = split_of(images, image_size=16, num_threads=num_threads)
        plan = crop_boxes.plan_crops(split.headers, boxes, 16)
        numbers = [np.arange(start, min(start + batch_size, 10)) for start in range(0, 10, batch_size)]
        parts = list(crop_batches(split, ((some, crop_boxes.CropPlan(*(f[some] for f in plan))) for some in numbers)))
        assert np.concatenate([indices for indices, _ in parts]).tolist() == list(range(10))
        return np.concatenate([crops for _, crops in parts])

    whole = crops_with(1, 10)
    assert len({crop.tobytes() for crop in whole[:, 0]}) == 10
    for threads, batch_size in ((3, 10), (2, 3), (5, 1)):
        np.testing.assert_array_equal(crops_with(threads, batch_size), whole)


def test_the_threads_end_where_the_batches_are_left():
    images = [encode(picture(0, 0))] * 3
    split = split_of(images, image_size=8, num_threads=2)
    plan = crop_boxes.plan_crops(split.headers, BOXES, 8)
    batches = crop_batches(split, ((np.arange(3), plan) for _ in range(100)))
    next(batches)
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_an_error_of_the_plan_is_raised_as_it_is():
    def batches():
        raise UserError("no such image")
        yield

    with pytest.raises(UserError, match=r"^no such image$"):
        next(crop_batches(split_of([encode(picture(0, 0))]), batches()))
