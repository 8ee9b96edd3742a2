"""Headers: upright size, orientation, format, and undecodable images."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gensupcon_jax.data.decoding import decode_upright
from gensupcon_jax.data.headers import read_header
from tests.encoded import encode, picture

IMAGE = picture(1, 0, (30, 40))
SIXTEEN_BIT = Image.fromarray((np.arange(1200, dtype=np.uint16) * 50).reshape(30, 40))

DECODABLE = {
    "jpeg": encode(IMAGE),
    "progressive": encode(IMAGE, progressive=True),
    "cmyk": encode(IMAGE.convert("CMYK")),
    "gray jpeg": encode(IMAGE.convert("L")),
    "png": encode(IMAGE, "PNG"),
    "palette png": encode(IMAGE.convert("P"), "PNG"),
    "transparent png": encode(IMAGE.convert("RGBA"), "PNG"),
    "gray and transparent png": encode(IMAGE.convert("LA"), "PNG"),
    "1-bit png": encode(IMAGE.convert("1"), "PNG"),
    "16-bit png": encode(SIXTEEN_BIT, "PNG"),
    "webp": encode(IMAGE, "WEBP", lossless=True),
    "transparent webp": encode(IMAGE.convert("RGBA"), "WEBP"),
    "bmp": encode(IMAGE, "BMP"),
    "gray bmp": encode(IMAGE.convert("L"), "BMP"),
    "gif": encode(IMAGE, "GIF"),
    "animated gif": encode(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(90)]),
    "one pixel": encode(IMAGE.crop((0, 0, 1, 1))),
}
UNDECODABLE = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello, I am not an image", "not a known image format"),
    "tiff": (encode(IMAGE, "TIFF"), "a TIFF file; allowed: JPEG, PNG, WebP, BMP, GIF"),
    "palette bmp": (encode(IMAGE.convert("P"), "BMP"), "a BMP with a palette"),
    "1-bit bmp": (encode(IMAGE.convert("1"), "BMP"), "a BMP with a palette"),
}


@pytest.mark.parametrize("kind", DECODABLE)
def test_the_header_agrees_with_the_decoded_image(kind):
    header = read_header(DECODABLE[kind])
    assert header.problem is None
    pixels = decode_upright(DECODABLE[kind], header.orientation, 3)
    assert pixels.shape == (header.height, header.width, 3)
    if kind not in ("16-bit png", "cmyk"):  # PIL clips 16 bits, and TensorFlow converts CMYK differently
        expected = np.asarray(Image.open(io.BytesIO(DECODABLE[kind])).convert("RGB"), int)
        assert np.abs(pixels - expected).mean() < 2


def test_16_bits_become_8():
    expected = (np.arange(1200) * 50 // 256).reshape(30, 40)
    np.testing.assert_array_equal(decode_upright(DECODABLE["16-bit png"], 1, 3)[..., 0], expected)


def test_gray_images_are_recognized():
    gray = {kind for kind, data in DECODABLE.items() if read_header(data).is_gray}
    assert gray == {"gray jpeg", "gray and transparent png", "1-bit png", "16-bit png", "gray bmp"}


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_an_undecodable_image_has_a_problem(kind):
    data, problem = UNDECODABLE[kind]
    assert problem in read_header(data).problem


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(IMAGE, kind, exif=exif)
    header = read_header(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"), int)
    assert (header.height, header.width, header.orientation) == (*expected.shape[:2], orientation)
    assert np.abs(decode_upright(data, header.orientation, 3) - expected).mean() < 2  # turned wrongly it is above 40


def test_damaged_exif_is_ignored():
    data = bytearray(encode(IMAGE, exif=b"Exif\x00\x00" + b"\xff" * 12))
    assert read_header(bytes(data)).orientation == 1
