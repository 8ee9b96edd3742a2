"""Bitmaps (BMP) of 16 or 32 bits per pixel whose color masks Pillow does not know."""

import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

_HEADER = struct.Struct("<IIiiHHI20xIII")  # from byte 10: first pixel, header size, size, planes, bits, kind, masks
_NUM_FIRST_BYTES = 10 + _HEADER.size
_BITFIELDS, _WITH_ALPHA_MASK = 3, 6


class MaskedBitmap(NamedTuple):
    """The header of a bitmap with color masks. start: first byte of the pixels.  masks: of red, green and blue."""

    height: int
    width: int
    start: int
    bits: int
    from_top: bool
    masks: tuple[int, int, int]


def masked_bitmap(encoded: bytes) -> MaskedBitmap | None:
    """The header of a bitmap with color masks, None for any other; its first 66 bytes are enough."""
    if not encoded.startswith(b"BM") or len(encoded) < _NUM_FIRST_BYTES:
        return None
    start, header_size, width, height, _, bits, kind, *masks = _HEADER.unpack_from(encoded, 10)
    is_masked = header_size >= 40 and kind in (_BITFIELDS, _WITH_ALPHA_MASK) and bits in (16, 32)
    if not is_masked or width < 1 or height == 0 or not all(_is_run(mask, bits) for mask in masks):
        return None
    return MaskedBitmap(abs(height), width, start, bits, height < 0, (masks[0], masks[1], masks[2]))


def decode_masked(encoded: bytes, header: MaskedBitmap) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a bitmap with color masks; ValueError where they are not all there."""
    row_bytes = (header.width * header.bits // 8 + 3) // 4 * 4
    missing = header.start + row_bytes * header.height - len(encoded)
    if missing > 0:
        raise ValueError(f"the file is truncated: {missing} bytes are missing")
    rows = np.frombuffer(encoded, np.uint8, row_bytes * header.height, header.start).reshape(header.height, row_bytes)
    words = rows.view(f"<u{header.bits // 8}")[:, : header.width].astype(np.int64)
    channels = []
    for mask in header.masks:
        lowest = mask & -mask
        channels.append(np.round((words & mask) // lowest * (255 / (mask // lowest))))
    pixels = np.stack(channels, -1).astype(np.uint8)
    return pixels if header.from_top else np.ascontiguousarray(pixels[::-1])


def _is_run(mask: int, bits: int) -> bool:
    """Whether the bits of a mask lie side by side within a pixel."""
    run = mask // (mask & -mask) if mask else 0
    return 0 < mask < 2**bits and run & (run + 1) == 0
