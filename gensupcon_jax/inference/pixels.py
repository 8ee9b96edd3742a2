"""Images as an encoder takes them: files, PIL images and arrays, center-cropped and resized as the evaluation does."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from gensupcon_jax.data.decoding import center_crop, to_gray
from gensupcon_jax.data.input_pipeline import centered_images
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow, require_tensorflow
from gensupcon_jax.inference.images import ImageFiles

Number = float | int
Shape = tuple[int, int, int]

_ALLOWED = "[height, width], or [height, width, channel] with 1 or 3 channels, uint8, or float in 0..1"


def seen(split: EncodedSplit, image_shape: Shape, center_share: Number) -> EncodedSplit:
    """Image files with the size, channels and center crop of an encoder."""
    return dataclasses.replace(split, image_size=image_shape[0], num_channels=image_shape[2], center_share=center_share)


def channels_note(num_gray: int, num_images: int, num_channels: int) -> str | None:
    """A sentence where the images have other channels than the encoder, None where they fit."""
    num_color = num_images - num_gray
    if num_channels == 1 and num_color:
        return (
            f"{num_color} of {num_images} images are in color and become gray (luma), as the encoder takes gray images"
        )
    if num_channels == 3 and not num_color:
        return f"all {num_images} images are gray and are repeated in 3 channels, as the encoder takes color images"
    return None


def read_prepared(
    found: ImageFiles, image_shape: Shape, center_share: Number
) -> UInt8[np.ndarray, "size size channel"]:
    """The only image of `found`; UserError where it cannot be decoded."""
    if found.damaged:
        name, problem = found.damaged[0]
        raise UserError(f"{name} cannot be decoded ({problem}); allowed: an intact JPEG, PNG, WebP, BMP or GIF file")
    require_tensorflow(f"{found.names[0]} is an image file")
    quiet_tensorflow()
    return centered_images(seen(found.split, image_shape, center_share), np.array([0]))[0]


def prepared_batch(
    images: Any, image_shape: Shape, center_share: Number
) -> tuple[UInt8[np.ndarray, "image height width channel"], int]:
    """Arrays or PIL images as one array, and how many of them are gray; UserError for images of another kind.

    images: an array [image, height, width, channel] or [image, height, width], or a list of images of any sizes.
    """
    if not isinstance(images, Sequence):
        images = _array(images, "images")
        if images.ndim == 3 and images.shape[2] in (1, 3):
            raise UserError(
                f"images have shape {images.shape}, that of one image; pass images[None], or a list of images"
            )
        if images.ndim not in (3, 4):
            raise UserError(f"images have shape {images.shape}; allowed: [image, height, width, channel]")
    if len(images) == 0:
        raise UserError("0 images were given; allowed: 1 or more")
    num_gray = sum(map(_is_gray, images))
    if isinstance(images, np.ndarray) and images.shape[1:] == image_shape and images.dtype == np.uint8:
        return images, num_gray
    return np.stack([prepared(image, image_shape, center_share) for image in images]), num_gray


def _is_gray(image: Any) -> bool:
    if isinstance(image, Image.Image):
        return image.mode[0] in "1LI"
    shape = np.shape(image)
    return len(shape) == 2 or shape[2:] == (1,)


def prepared(image: Any, image_shape: Shape, center_share: Number) -> UInt8[np.ndarray, "height width channel"]:
    """An array or a PIL image with this shape; an array that has this size already is not cropped.

    Gray images are repeated for an encoder of color images; color images become gray (luma) for one of gray images.
    """
    if isinstance(image, Image.Image):
        return center_crop(_from_pil(image), center_share, image_shape[0], image_shape[2])
    array = _as_uint8(_array(image, "an image"))
    if array.shape[:2] != image_shape[:2]:
        found = " x ".join(map(str, array.shape[:2]))
        require_tensorflow(f"an image is {found}, and the encoder takes {image_shape[0]} x {image_shape[1]}")
        color = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array
        return center_crop(color, center_share, image_shape[0], image_shape[2])
    if array.shape[2] == image_shape[2]:
        return array
    return np.repeat(array, 3, axis=2) if image_shape[2] == 3 else to_gray(array)


def _from_pil(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Upright color pixels; of 16 bits per pixel the upper 8, as TensorFlow reads them."""
    require_tensorflow("an image is a PIL image")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        upper = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(upper[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _array(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, for GPU tensors: it names the method to call
        raise UserError(
            f"{what} cannot be read as an array ({' '.join(str(error).split())}); allowed: {_ALLOWED}"
        ) from error
    if array.dtype.kind not in "uif":
        raise UserError(
            f"{what} is {type(values).__name__} of {array.dtype}; allowed: {_ALLOWED}, PIL images, or paths"
        )
    return array


def _as_uint8(image: np.ndarray) -> UInt8[np.ndarray, "height width channel"]:
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise UserError(f"an image has shape {image.shape}; allowed: {_ALLOWED}")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise UserError(f"an image is {image.dtype}; allowed: uint8 in 0..255, or float in 0..1")
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise UserError(f"an image lies in {image.min():.4g}..{image.max():.4g}; allowed for float images: 0..1")
    return np.round(image * 255).astype(np.uint8)
