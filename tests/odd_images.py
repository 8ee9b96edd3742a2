"""Encoded images of unusual kinds, written byte by byte where Pillow does not write them."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.encoded import encode

ORIENTATION = 274


def transparent(image):
    """The image with transparency that grows from left to right: nothing at the left, everything at the right."""
    alpha = np.linspace(0, 255, image.width).astype(np.uint8)
    with_alpha = image.convert("RGBA")
    with_alpha.putalpha(Image.fromarray(np.tile(alpha, (image.height, 1))))
    return with_alpha


def exif(orientation):
    """EXIF that says only this orientation."""
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def xmp(orientation):
    """XMP that says only this orientation, as photo editors write it."""
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def png_with_late_chunk(image, kind, content):
    """A PNG with one more chunk after its pixels."""
    data, end = encode(image, "PNG"), 12
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:-end] + chunk + data[-end:]


def without_adobe_marker(data):
    """A JPEG without its segment APP14."""
    start = data.index(b"\xff\xee")
    (length,) = struct.unpack(">H", data[start + 2 : start + 4])
    return data[:start] + data[start + 2 + length :]


def with_frame(data, *, process=0xC0, bits=8, height=None):
    """A baseline JPEG whose frame says another process, another number of bits or another height."""
    start = data.index(b"\xff\xc0")
    height = data[start + 5 : start + 7] if height is None else struct.pack(">H", height)
    return (
        data[:start] + bytes([0xFF, process]) + data[start + 2 : start + 4] + bytes([bits]) + height + data[start + 7 :]
    )


def bitmap(pixels, *, bits=32, masks=(0xFF0000, 0xFF00, 0xFF, 0), header_size=108, from_top=False):
    """A BMP of 16 or 32 bits per pixel with these masks of red, green, blue and alpha; pixels: [height, width, 3]."""
    height, width = pixels.shape[:2]
    words = np.full((height, width), masks[3], np.uint32)
    for channel, mask in enumerate(masks[:3]):
        lowest = mask & -mask
        words |= (np.round(pixels[..., channel] / 255 * (mask // lowest)) * lowest).astype(np.uint32)
    words = words if from_top else words[::-1]
    rows = b"".join((row := line.astype(f"<u{bits // 8}").tobytes()) + bytes(-len(row) % 4) for line in words)
    signed_height = -height if from_top else height
    header = struct.pack("<IiiHHIIiiII", header_size, width, signed_height, 1, bits, 3, len(rows), 2835, 2835, 0, 0)
    header = (header + struct.pack("<IIII", *masks))[: max(header_size, 52)].ljust(header_size, b"\0")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + rows


def os2_bitmap(pixels):
    """A BMP of 24 bits per pixel with the header of OS/2, which has 12 bytes."""
    height, width = pixels.shape[:2]
    rows = b"".join((row := line[:, ::-1].tobytes()) + bytes(-len(row) % 4) for line in pixels[::-1])
    return b"BM" + struct.pack("<IHHIIHHHH", 26 + len(rows), 0, 0, 26, 12, width, height, 1, 24) + rows


def run_length_bitmap(gray):
    """A BMP of 8 bits per pixel, compressed by run lengths; gray: [height, width]."""
    height, width = gray.shape
    lines = (b"".join(bytes([1, value]) for value in line) + b"\0\0" for line in gray[::-1].tolist())
    rows = b"".join(lines) + b"\0\1"
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + header + palette + rows


def gif_on_canvas(image, size, corner):
    """A GIF whose only frame is smaller than its canvas; size: (width, height) of the canvas; corner: (left, top)."""
    data = encode(image, "GIF")
    frame = data.index(b"\x2c" + struct.pack("<HHHH", 0, 0, *image.size))
    placed = b"\x2c" + struct.pack("<HHHH", *corner, *image.size)
    return data[:6] + struct.pack("<HH", *size) + data[10:frame] + placed + data[frame + 9 :]
