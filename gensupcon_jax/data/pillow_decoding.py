"""Images decoded by Pillow: all but PNG and plain JPEG, and what it finds damaged in a PNG."""

import io
import struct
import warnings
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gensupcon_jax.data.masked_bitmaps import decode_masked, masked_bitmap
from gensupcon_jax.text import one_line

# What Pillow raises for damaged files, beside subclasses of these.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)


def decode_with_pillow(encoded: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """An image of any format in stored orientation, the first one of an animation; ValueError where it cannot be decoded.

    Transparency is dropped: each pixel has the color that is stored under it.
    """
    try:
        return np.array(open_image(io.BytesIO(encoded)).convert("RGB"))
    except (*PILLOW_ERRORS, Image.DecompressionBombError) as error:
        header = masked_bitmap(encoded)
        if header is None:
            raise ValueError(one_line(error) or type(error).__name__) from error
        return decode_masked(encoded, header)


def open_image(file: Any) -> Image.Image:
    """The image in an open file, of which only the header is read; without Pillow's warning that it is large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but it can be decoded
        return Image.open(file)


def damage_of_png(encoded: bytes) -> str | None:
    """What Pillow finds wrong with a PNG by its checksums and its end, None where it finds nothing."""
    try:
        open_image(io.BytesIO(encoded)).verify()
    except (*PILLOW_ERRORS, Image.DecompressionBombError) as error:
        return one_line(error) or type(error).__name__
    return None
