"""Encoded images to pixels: JPEG by libjpeg-turbo, what that does not read and other formats by TensorFlow."""

import os
import re
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gensupcon_jax.data.channels import to_gray
from gensupcon_jax.data.jpeg import decode_jpeg
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.text import one_line


def decode_upright(encoded: bytes, orientation: int, num_channels: int) -> UInt8[np.ndarray, "height width channel"]:
    """One whole image in upright orientation; ValueError, with the decoder's reason, where it cannot be decoded."""
    pixels = turned(decode_color(encoded), orientation)
    return pixels if num_channels == 3 else to_gray(pixels)


def decode_color(
    encoded: bytes, scale: int = 1, scratch: UInt8[np.ndarray, "bytes"] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """One image in color, as stored; ValueError, with the decoder's reason, where it cannot be decoded.

    scale, scratch: as in `decode_jpeg`, for a JPEG.
    """
    pixels = decode_jpeg(encoded, scale, scratch)
    if pixels is not None:
        return pixels
    pixels = _decode_any(encoded)
    return pixels if scale == 1 else _reduced(pixels, scale)


def _decode_any(encoded: bytes) -> np.ndarray:
    import tensorflow as tf  # imported here, as it takes 4 s and most JPEGs do not need it

    try:
        return _in_color(tf, encoded).numpy()
    except tf.errors.OpError as error:
        raise ValueError(tensorflow_reason(error)) from error


def _reduced(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Height and width divided by `scale` and rounded up, as a JPEG decoded at that scale has them."""
    import cv2

    height, width = (-(-side // scale) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def read_encoded(split: EncodedSplit, index: int) -> bytes:
    """The encoded bytes of one image; OSError where they cannot be read."""
    (source,) = split.sources(np.array([index]))
    return read_image_file(source) if split.are_paths else source


def read_image_file(path: bytes) -> bytes:
    """The bytes of a file of this machine or an object store."""
    name = os.fsdecode(path)
    if "://" not in name:
        with open(name, "rb") as file:  # noqa: PTH123 (a `Path` would take as long as a crop)
            return file.read()
    from etils import epath

    return epath.Path(name).read_bytes()


def _in_color(tf: Any, encoded):
    """The graph that decodes an image of any format to [height, width, 3] uint8; of transparent pixels the color is taken."""
    return tf.cond(
        tf.strings.substr(encoded, 8, 4) == b"WEBP",
        lambda: tf.io.decode_webp(encoded, channels=0)[0, :, :, :3],  # `decode_image` refuses WebP with transparency
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def turned(images: np.ndarray, orientation: int) -> np.ndarray:
    """Images [..., height, width, channel] in stored orientation, turned upright according to EXIF."""
    if orientation >= 5:
        images = images.swapaxes(-3, -2)
    if orientation in (3, 4, 7, 8):
        images = images[..., ::-1, :, :]
    if orientation in (2, 3, 6, 7):
        images = images[..., ::-1, :]
    return images if orientation == 1 else np.ascontiguousarray(images)


def tensorflow_reason(error: Exception) -> str:
    """TensorFlow's message in one line, without the name of the graph node."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", one_line(getattr(error, "message", error))).strip()[:200]
