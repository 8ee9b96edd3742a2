"""Encoded images to pixels: plain JPEG by libjpeg-turbo, PNG by TensorFlow, all others by Pillow."""

import os
import re

import numpy as np
from jaxtyping import UInt8

from gensupcon_jax.data.channels import to_gray
from gensupcon_jax.data.headers import read_header
from gensupcon_jax.data.image_formats import image_format_of
from gensupcon_jax.data.jpeg import decode_jpeg
from gensupcon_jax.data.pillow_decoding import damage_of_png, decode_with_pillow
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.text import one_line


def decode_upright(encoded: bytes, orientation: int, num_channels: int) -> UInt8[np.ndarray, "height width channel"]:
    """One whole image in upright orientation; ValueError, with the reason, where it cannot be decoded."""
    header = read_header(encoded)
    if header.problem is not None:
        raise ValueError(header.problem)
    pixels = decode_color(encoded)
    upright = (header.height, header.width)
    if pixels.shape[:2] != (upright if header.orientation < 5 else upright[::-1]):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ValueError(f"it decodes to {found} pixels, and its header says {header.width} x {header.height}")
    pixels = turned(pixels, orientation)
    return pixels if num_channels == 3 else to_gray(pixels)


def decode_color(
    encoded: bytes, scale: int = 1, scratch: UInt8[np.ndarray, "bytes"] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """One image in color, as stored; ValueError, with the decoder's reason, where it cannot be decoded.

    Of transparent pixels the color is taken, of animations the first image.  scale, scratch: as in `decode_jpeg`, for a JPEG.
    """
    pixels = decode_jpeg(encoded, scale, scratch)
    if pixels is not None:
        return pixels
    pixels = _decode_png(encoded) if image_format_of(encoded) == "PNG" else decode_with_pillow(encoded)
    return pixels if scale == 1 else _reduced(pixels, scale)


def _decode_png(encoded: bytes) -> np.ndarray:
    """By TensorFlow, which takes two thirds of Pillow's time."""
    import tensorflow as tf  # imported here, as it takes 4 s and other formats do not need it

    try:
        return tf.io.decode_png(encoded, channels=3).numpy()
    except tf.errors.OpError as error:
        raise ValueError(damage_of_png(encoded) or tensorflow_reason(error)) from error


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
