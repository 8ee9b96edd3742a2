"""What the bytes of an encoded image say: its format, the frame of a JPEG, metadata that follows the pixels of a PNG."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

FORMATS = ("JPEG", "PNG", "WebP", "BMP", "GIF")
# Of plain JPEGs: baseline, extended and progressive, all with Huffman codes.
PLAIN_PROCESSES = (0xC0, 0xC1, 0xC2)
NUM_FIRST_BYTES = 128  # enough for `image_format_of`, `known_as` and the color masks of a bitmap

_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_START_OF_SCAN, _JPEG_LS = 0xDA, 0xF7
_NUM_LAST_BYTES = 2**16
_PNG_METADATA = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # texts that may contain an orientation
_BOXES = {b"heic": "a HEIC file", b"heix": "a HEIC file", b"mif1": "a HEIC file", b"avif": "an AVIF file"}
_TEXTS = ((b"<svg", "an SVG drawing"), (b"<html", "a web page (HTML)"), (b"<!doctype html", "a web page (HTML)"))


class JpegFrame(NamedTuple):
    """The frame of a JPEG. process: its marker, which says how pixels are coded.  height: 0 where it follows the pixels."""

    process: int
    bits: int
    height: int
    width: int
    channels: int


def image_format_of(encoded: bytes) -> str | None:
    """The one of FORMATS that the first bytes are those of; None for anything else."""
    if encoded.startswith(b"RIFF"):
        return "WebP" if encoded[8:12] == b"WEBP" else None
    starts = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"GIF8": "GIF"}
    return next((name for start, name in starts.items() if encoded.startswith(start)), None)


def known_as(first_bytes: bytes) -> str | None:
    """What a file is that is not an image of these formats, in words; None where its first bytes do not say it."""
    text = first_bytes.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the image; git lfs pull fetches the image"
    if first_bytes.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return "a JPEG XL file"
    if first_bytes.startswith(b"II\xbc"):
        return "a JPEG XR file"
    if first_bytes[4:8] == b"ftyp":
        return _BOXES.get(first_bytes[8:12], "a video, or a file of its kind (MP4)")
    return next((name for start, name in _TEXTS if text.startswith(start)), None)


def jpeg_frame(file: Any) -> JpegFrame | None:
    """The frame of an open JPEG file, None where there is none before the pixels."""
    file.seek(2)
    while start := file.read(1):
        if start != b"\xff":
            continue
        while (marker := file.read(1)) == b"\xff":
            pass
        if not marker or marker[0] == _START_OF_SCAN:
            return None
        if marker[0] == 0 or marker[0] in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(file.read(2), "big")
        if marker[0] in _FRAMES:
            content = file.read(6)
            return JpegFrame(marker[0], *struct.unpack(">BHHB", content)) if len(content) == 6 else None
        file.seek(max(0, length - 2), 1)
    return None


def jpeg_problem(frame: JpegFrame | None) -> str:
    """Why a JPEG whose header Pillow refuses cannot be decoded."""
    if frame is None:
        return "a damaged JPEG file (no frame before the pixels)"
    if frame.process == _JPEG_LS:
        return "a JPEG-LS file"
    if frame.bits != 8:
        return f"a JPEG of {frame.bits} bits per channel; allowed: 8"
    if not frame.height or not frame.width:
        return "a JPEG whose height follows its pixels (a DNL marker), which is not supported"
    if frame.channels not in (1, 3, 4):
        return f"a JPEG of {frame.channels} channels; allowed: 1, 3 or 4"
    return "a damaged JPEG file (its header cannot be read)"


def has_late_metadata(file: Any) -> bool:
    """Whether metadata that may say the orientation stands in the last 64 KiB of an open PNG file.

    Chunks are found by their names and checksums: to walk over all chunks of a file is to read it, or many requests.
    """
    file.seek(0, io.SEEK_END)
    file.seek(max(0, file.tell() - _NUM_LAST_BYTES))
    end = file.read()
    return any(kind == b"eXIf" or content.startswith(_PNG_METADATA) for kind, content in _metadata_chunks(end))


def _metadata_chunks(part: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the intact chunks of EXIF and of texts in part of a PNG."""
    for kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
        start = part.find(kind)
        while start >= 0:
            content = part[start + 4 : start + 4 + int.from_bytes(part[max(0, start - 4) : start], "big")]
            checksum = part[start + 4 + len(content) : start + 8 + len(content)]
            if checksum == zlib.crc32(kind + content).to_bytes(4, "big"):
                yield kind, content
            start = part.find(kind, start + 4)
