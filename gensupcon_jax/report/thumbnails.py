"""Small pictures: images made smaller, and as data URIs; many of them as one sheet."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from gensupcon_jax.report.pictured import PicturedSplit

PICTURE_PIXELS = 96  # the longer side of a picture of the report, which has many
_KEPT_EXACTLY = 48  # smaller ones are stored without loss


def pictures_of(split: PicturedSplit, numbers: Sequence[int]) -> dict[int, str]:
    """Data URIs of these images of a split, each read once."""
    unique = np.unique(np.asarray(numbers, np.int64))
    images = split.images_fn(unique) if len(unique) else []
    return {int(number): picture_uri(image, PICTURE_PIXELS) for number, image in zip(unique, images, strict=True)}


def picture_uri(image: UInt8[np.ndarray, "height width channel"], most_pixels: int = 128) -> str:
    """One image as a data URI: PNG, without loss, for tiny ones, else JPEG; gray unless it has three channels."""
    from PIL import Image

    picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    picture.thumbnail((most_pixels, most_pixels))
    stream = io.BytesIO()
    if max(picture.size) <= _KEPT_EXACTLY:
        picture.save(stream, "PNG")
        return as_uri(stream.getvalue(), "png")
    picture.save(stream, "JPEG", quality=85)
    return as_uri(stream.getvalue(), "jpeg")


def as_uri(content: bytes, kind: str) -> str:
    """A finished picture as a data URI; kind: "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def small_images(
    images: UInt8[np.ndarray, "image height width channel"], side: int
) -> UInt8[np.ndarray, "image small_height small_width channel"]:
    """Averages over square blocks, so that the longer side is at most `side`."""
    count, height, width, channels = images.shape
    block = math.ceil(max(height, width) / side)
    if block == 1 or min(height, width) < block:
        return images
    rows, columns = height // block, width // block
    cut = images[:, : rows * block, : columns * block]
    blocks = cut.reshape(count, rows, block, columns, block, channels)
    return blocks.mean((2, 4)).round().astype(np.uint8)


def sheet_uri(images: UInt8[np.ndarray, "image height width channel"], side: int) -> tuple[str, int, int]:
    """All images on one picture, row by row: its data URI, images per row, and the side of a tile in pixels."""
    from PIL import Image

    tiles = small_images(images, side)
    tiles = tiles if tiles.shape[-1] == 3 else tiles[..., :1]
    count, height, width, channels = tiles.shape
    tile, columns = max(height, width), math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, tile, tile, channels), np.uint8)
    sheet[:count, :height, :width] = tiles
    pixels = (
        sheet.reshape(rows, columns, tile, tile, channels).swapaxes(1, 2).reshape(rows * tile, columns * tile, channels)
    )
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    stream = io.BytesIO()
    # A tile of several JPEG blocks keeps the colors of its neighbors out.
    kind = "jpeg" if tile % 16 == 0 and tile > 16 else "png"
    picture.save(stream, kind.upper(), **({"quality": 80} if kind == "jpeg" else {}))
    return as_uri(stream.getvalue(), kind), columns, tile
