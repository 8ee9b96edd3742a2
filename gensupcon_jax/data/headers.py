"""Headers of encoded images: size, orientation, format, and whether the image can be decoded."""

import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gensupcon_jax.data.image_formats import (
    FORMATS,
    NUM_FIRST_BYTES,
    PLAIN_PROCESSES,
    has_late_metadata,
    image_format_of,
    jpeg_frame,
    jpeg_problem,
    known_as,
)
from gensupcon_jax.data.masked_bitmaps import masked_bitmap
from gensupcon_jax.data.pillow_decoding import PILLOW_ERRORS, open_image
from gensupcon_jax.data.splits import Headers
from gensupcon_jax.text import one_line

# Part of the key of kept headers: another number where the same bytes give another header.
HEADERS_VERSION = 2
_NAMES = {"MPO": "JPEG", "WEBP": "WebP"}  # MPO: several JPEGs in one file, as some phones write; the first is the image
_ALLOWED = f"allowed: {', '.join(FORMATS)}"
_ORIENTATION_TAG = 274


class Header(NamedTuple):
    """The header of one image, upright; `problem`: why it cannot be decoded, None where it seems intact.

    format: one of FORMATS.  is_plain_jpeg: whether it is a JPEG of 8 bits, gray or RGB, with Huffman codes.
    """

    height: int = 0
    width: int = 0
    orientation: int = 1
    format: str = FORMATS[0]
    is_plain_jpeg: bool = False
    is_gray: bool = False
    problem: str | None = None


def read_header(encoded: bytes | Any) -> Header:
    """The header of an encoded image, given as bytes or as an open file; the pixels are not decoded."""
    file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    first_bytes = file.read(NUM_FIRST_BYTES)
    if not first_bytes:
        return Header(problem="the file is empty")
    file.seek(0)
    try:
        image = open_image(file)
    except Image.DecompressionBombError as error:
        return Header(problem=one_line(error))
    except PILLOW_ERRORS as error:
        return _unopened(file, first_bytes, error)
    found = _NAMES.get(str(image.format), str(image.format))
    if found not in FORMATS:
        return Header(problem=f"{'an' if found[0] in 'AEIO' else 'a'} {found} file; {_ALLOWED}")
    is_plain_jpeg = False
    if found == "JPEG":
        frame = jpeg_frame(file)
        is_plain_jpeg = frame is not None and frame.process in PLAIN_PROCESSES and frame.channels < 4
    orientation = _orientation(image, file)
    width, height = image.size if orientation < 5 else image.size[::-1]
    is_gray = image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
    return Header(height, width, orientation, found, is_plain_jpeg, is_gray)


def _unopened(file: Any, first_bytes: bytes, error: Exception) -> Header:
    """The header of an image that Pillow does not open: of a bitmap with rare color masks, else with the reason."""
    found = image_format_of(first_bytes)
    if found == "JPEG":
        return Header(problem=f"{jpeg_problem(jpeg_frame(file))}; {_ALLOWED}")
    if found == "BMP":
        file.seek(0)
        bitmap = masked_bitmap(file.read(NUM_FIRST_BYTES))
        if bitmap is not None:
            return Header(bitmap.height, bitmap.width, format="BMP")
    reason = one_line(error) if not isinstance(error, Image.UnidentifiedImageError) else ""
    if found is not None:
        return Header(problem=f"a damaged {found} file ({reason or 'its header cannot be read'})")
    kind = known_as(first_bytes)
    if kind is not None:
        return Header(problem=f"{kind}; {_ALLOWED}")
    return Header(problem=f"not a known image format ({reason or 'its first bytes match none'})")


def join_headers(headers: Iterable) -> tuple[Headers, list[str | None]]:
    """Many `Header`s as arrays, and their problems."""
    rows = list(headers)
    sizes = np.array([(row.height, row.width) for row in rows], np.int32).reshape(-1, 2)
    orientations = np.array([row.orientation for row in rows], np.int8)
    formats = np.array([FORMATS.index(row.format) for row in rows], np.int8)
    plain, gray = (np.array([getattr(row, name) for row in rows], bool) for name in ("is_plain_jpeg", "is_gray"))
    return Headers(sizes, orientations, formats, plain, gray), [row.problem for row in rows]


def _orientation(image: Image.Image, file: Any) -> int:
    """The EXIF orientation, or that of XMP where EXIF has none; 1 where neither says it."""
    try:
        # PngImageFile's own `getexif` decodes the image, to find what follows its pixels.
        is_early = image.format == "PNG" and not has_late_metadata(file)
        exif = Image.Image.getexif(image) if is_early else image.getexif()
        value = exif.get(_ORIENTATION_TAG, 1)
    except PILLOW_ERRORS:
        return 1  # damaged EXIF is ignored; the pixels may be intact
    return value if value in range(1, 9) else 1
