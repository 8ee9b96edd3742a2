"""Smaller copies of single images: size, orientation, channels, and what stays as it is."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gensupcon_jax.data.headers import read_header
from gensupcon_jax.prepare.smaller_images import Smaller, resized, smaller_image
from tests.encoded import encode, picture


def smaller(data, short_side, quality=90):
    header = read_header(data)
    size = (header.height, header.width)
    return smaller_image(data, size, header.orientation, header.is_gray, Smaller(short_side, quality))


def smooth(height, width):
    return picture(2, 0, (12, 15)).resize((width, height), Image.BICUBIC)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((60, 80), 48, (48, 64)), ((80, 60), 48, (64, 48)), ((375, 500), 256, (256, 341)), ((50, 50), 20, (20, 20)),
     ((40, 900), 30, (30, 675)), ((500, 400), 50, (63, 50))],
)  # fmt: skip
def test_the_shorter_side_is_as_asked_and_the_aspect_ratio_is_kept(size, short_side, expected):
    for kind in ("JPEG", "PNG"):
        found = Image.open(io.BytesIO(smaller(encode(smooth(*size), kind), short_side)))
        assert (found.format, found.mode, found.size[::-1]) == ("JPEG", "RGB", expected)


@pytest.mark.parametrize("size", [(48, 64), (47, 90), (20, 20)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_that_is_not_larger_keeps_its_bytes(size, kind):
    data = encode(smooth(*size), kind)
    assert smaller(data, 48) == data


def test_pixels_are_averages_of_areas():
    image = picture(1, 3, (60, 90))
    pixels = np.asarray(image)
    np.testing.assert_array_equal(
        resized(pixels, 20), np.round(pixels.reshape(20, 3, 30, 3, 3).mean((1, 3)) + 1e-6).astype(np.uint8)
    )
    expected = np.asarray(smooth(200, 250).reduce(2))
    found = np.asarray(Image.open(io.BytesIO(smaller(encode(smooth(200, 250), quality=95), 100))))
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_becomes_upright(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(smooth(90, 120), quality=95, exif=exif)
    copy = smaller(data, 45)
    assert read_header(copy).orientation == 1
    found = Image.open(io.BytesIO(copy))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).reduce(2)
    assert found.size == expected.size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).mean() < 8  # turned wrongly it is above 20


def test_a_gray_image_stays_gray():
    data = encode(smooth(60, 80).convert("L"), "PNG")
    found = Image.open(io.BytesIO(smaller(data, 30)))
    assert (found.mode, found.size) == ("L", (40, 30))
    assert np.abs(np.asarray(found).astype(int) - np.asarray(smooth(60, 80).convert("L").reduce(2))).mean() < 2


def test_the_quality_is_that_of_the_jpeg():
    data = encode(picture(0, 0, (80, 80)))
    low, default, high = (len(smaller(data, 64, quality)) for quality in (30, 90, 100))
    assert low < default < high
    tables = Image.open(io.BytesIO(smaller(data, 64))).quantization
    assert tables == Image.open(io.BytesIO(encode(picture(0, 0), quality=90))).quantization


def test_an_image_that_cannot_be_decoded_is_an_error():
    data = encode(smooth(60, 80))
    with pytest.raises(ValueError, match="Truncated"):
        smaller_image(data[:500], (60, 80), 1, False, Smaller(30))
