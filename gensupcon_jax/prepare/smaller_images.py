"""Smaller copies of encoded images: a given shorter side, as JPEG."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gensupcon_jax.data.channels import to_gray
from gensupcon_jax.data.decoding import decode_color, turned

_JPEG_SCALES = (8, 4, 2)


class Smaller(NamedTuple):
    """The shorter side of the copies in pixels, and their JPEG quality, 1..100."""

    short_side: int
    quality: int = 90


def smaller_image(encoded: bytes, size: tuple[int, int], orientation: int, is_gray: bool, smaller: Smaller) -> bytes:
    """The image as an upright JPEG with this shorter side; the same bytes where it is not larger than that.

    size: height and width of the upright image.  Pixels are averaged over areas; a JPEG that is at least twice as large is
    decoded at a smaller scale first.  Color is stored at half the resolution (4:2:0), as photographs usually are.
    Raises ValueError where the image cannot be decoded.
    """
    if min(size) <= smaller.short_side:
        return encoded
    import simplejpeg

    scale = next((scale for scale in _JPEG_SCALES if min(size) >= scale * smaller.short_side), 1)
    pixels = resized(turned(decode_color(encoded, scale), orientation), smaller.short_side)
    if is_gray:
        return simplejpeg.encode_jpeg(to_gray(pixels), smaller.quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), smaller.quality, "RGB", "420")


def resized(
    pixels: UInt8[np.ndarray, "height width 3"], short_side: int
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """The image with this shorter side and the same aspect ratio; each pixel is the average of an area."""
    import cv2

    shorter = min(pixels.shape[:2])
    height, width = (max(round(side * short_side / shorter), 1) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
