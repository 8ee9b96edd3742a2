"""JPEGs decoded by libjpeg-turbo without TensorFlow: the same pixels, at less cost, and without the GIL."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

_START = b"\xff\xd8"
_COLOR_SPACES = ("YCbCr", "RGB", "Gray")


def decode_jpeg(
    encoded: bytes, scale: int = 1, scratch: UInt8[np.ndarray, "bytes"] | None = None
) -> UInt8[np.ndarray, "height width 3"] | None:
    """The pixels of a JPEG in color or gray, as stored; None for another format, for CMYK, and for what is damaged or odd.

    Bit for bit what `tf.io.decode_jpeg(encoded, channels=3, ratio=scale)` gives.  scale: 1, 2, 4 or 8; height and width are
    divided by it and rounded up.  scratch: memory for the pixels where it is large enough; it is overwritten by the next image.
    """
    if not encoded.startswith(_START):
        return None
    import simplejpeg  # imported here, as images in memory do not need it

    try:
        height, width, color_space, _ = simplejpeg.decode_jpeg_header(encoded)
        if color_space not in _COLOR_SPACES:
            return None
        height, width = (-(-int(side) // scale) for side in (height, width))
        settings: dict[str, Any] = {} if scale == 1 else {"min_height": height, "min_width": width}
        fits = scratch is not None and scratch.size >= height * width * 3
        # The fast transform is TensorFlow's default.
        return simplejpeg.decode_jpeg(encoded, fastdct=True, buffer=scratch if fits else None, **settings)
    except (ValueError, KeyError):  # a warning is enough; KeyError: an unknown color space
        return None
