"""JPEGs are decoded to TensorFlow's pixels, bit for bit, and what is no plain JPEG is left to others."""

import numpy as np
import pytest
import tensorflow as tf

from gensupcon_jax.data.decoding import decode_color
from gensupcon_jax.data.jpeg import decode_jpeg
from tests.encoded import encode, picture

KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2, "quality": 90},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True, "quality": 40},
}


@pytest.mark.parametrize("size", [(61, 83), (64, 96), (7, 5)])
@pytest.mark.parametrize("kind", [*KINDS, "gray"])
def test_pixels_are_those_of_tensorflow(kind, size):
    image = picture(1, 0, size)
    data = encode(image.convert("L")) if kind == "gray" else encode(image, **KINDS[kind])
    for scale in (1, 2, 4, 8):
        expected = tf.io.decode_jpeg(data, channels=3, ratio=scale).numpy()
        np.testing.assert_array_equal(decode_jpeg(data, scale), expected)


def test_memory_is_reused_where_it_is_large_enough():
    data = encode(picture(1, 0, (20, 24)))
    expected = decode_jpeg(data)
    scratch = np.zeros(20 * 24 * 3 + 5, np.uint8)
    found = decode_jpeg(data, scratch=scratch)
    assert np.shares_memory(found, scratch)
    np.testing.assert_array_equal(found, expected)
    small = np.zeros(20 * 24 * 3 - 1, np.uint8)
    np.testing.assert_array_equal(decode_jpeg(data, scratch=small), expected)
    assert not small.any()


def test_what_is_no_plain_and_intact_jpeg_is_left_to_others():
    data = encode(picture(1, 0))
    others = {
        "png": encode(picture(1, 0), "PNG"),
        "cmyk": encode(picture(1, 0).convert("CMYK")),
        "cut": data[: len(data) // 2],
        "without its end": data[:-2],
        "empty": b"",
        "header only": data[:30],
        "text": b"no image at all",
    }
    assert {name: decode_jpeg(each) for name, each in others.items()} == dict.fromkeys(others)
    assert decode_jpeg(data + b"more") is not None  # as TensorFlow


def test_a_damaged_jpeg_has_the_reason_of_the_decoder():
    with pytest.raises(ValueError, match=r"(?i)truncated"):
        decode_color(encode(picture(1, 0))[:500])
