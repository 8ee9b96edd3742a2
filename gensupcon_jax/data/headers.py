"""Headers of encoded images: size, orientation, and whether TensorFlow can decode the image."""

import io
import struct
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gensupcon_jax.data.splits import Headers
from gensupcon_jax.text import one_line

_JPEG = ("JPEG", "MPO")  # MPO: several JPEGs in one file, as some phones write; the first is the image
FORMATS = (*_JPEG, "PNG", "WEBP", "BMP", "GIF")
_ORIENTATION_TAG = 274
_BMP_BITS = (24, 32)


class Header(NamedTuple):
    """The header of one image; `problem`: why it cannot be decoded, None where it seems intact."""

    height: int = 0
    width: int = 0
    orientation: int = 1
    is_jpeg: bool = False
    is_gray: bool = False
    problem: str | None = None


def read_header(encoded: bytes | Any) -> Header:
    """The header of an encoded image, given as bytes or as an open file; only its beginning is read."""
    file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    if not file.read(1):
        return Header(problem="the file is empty")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but it can be decoded
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        return Header(problem=one_line(error))
    except (OSError, SyntaxError, ValueError) as error:  # raised by PIL for broken headers
        reason = str(error) if not isinstance(error, Image.UnidentifiedImageError) else ""
        return Header(problem=f"not a known image format ({reason or 'its first bytes match none'})")
    if image.format not in FORMATS:
        return Header(problem=f"a {image.format} file; allowed: JPEG, PNG, WebP, BMP, GIF")
    if image.format == "BMP" and _bmp_bits(file) not in _BMP_BITS and not _is_gray_ramp(image):
        return Header(
            problem="a BMP with a palette, which TensorFlow decodes wrongly; allowed: 24 or 32 bits per pixel"
        )
    orientation = _orientation(image)
    width, height = image.size if orientation < 5 else image.size[::-1]
    is_gray = image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
    return Header(height, width, orientation, image.format in _JPEG, is_gray)


def join_headers(headers: Iterable) -> tuple[Headers, list[str | None]]:
    """Many `Header`s as arrays, and their problems."""
    rows = list(headers)
    sizes = np.array([(row.height, row.width) for row in rows], np.int32).reshape(-1, 2)
    orientations = np.array([row.orientation for row in rows], np.int8)
    jpeg, gray = (np.array([getattr(row, name) for row in rows], bool) for name in ("is_jpeg", "is_gray"))
    return Headers(sizes, orientations, jpeg, gray), [row.problem for row in rows]


def _orientation(image: Image.Image) -> int:
    data = image.info.get("exif")
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        value = exif.get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, struct.error):
        return 1  # damaged EXIF is ignored; the pixels may be intact
    return value if value in range(1, 9) else 1


def _bmp_bits(file: Any) -> int:
    file.seek(28)
    bits = int.from_bytes(file.read(2), "little")
    file.seek(0)
    return bits


def _is_gray_ramp(image: Image.Image) -> bool:
    """Whether a palette of 8 bits per pixel maps each index to the same gray value: PIL reports mode `L` for that."""
    return image.mode == "L"
