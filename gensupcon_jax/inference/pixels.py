"""Images as an encoder takes them: files, PIL images and arrays, center-cropped and resized as the evaluation does."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from gensupcon_jax.data.channels import to_gray
from gensupcon_jax.data.crop_batches import center_crop
from gensupcon_jax.data.input_pipeline import centered_images, damaged_images
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.data.unit_floats import ALLOWED_FLOATS, gray_levels, is_float
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow, require_tensorflow
from gensupcon_jax.inference.images import ImageFiles
from gensupcon_jax.text import counted, listed, one_line, visible

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
        which = "the image" if num_images == 1 else f"{num_color:,} of {num_images:,} images"
        verbs = ("is", "becomes") if num_color == 1 else ("are", "become")
        return f"{which} {verbs[0]} in color and {verbs[1]} gray (luma), as the encoder takes gray images"
    if num_channels == 3 and num_images and not num_color:
        which = "the image is gray and is" if num_images == 1 else f"all {num_images:,} images are gray and are"
        return f"{which} repeated in 3 channels, as the encoder takes color images"
    return None


def undecodable(damaged: Sequence[tuple[str, str]]) -> UserError:
    """The error for image files that cannot be decoded, each with the reason."""
    problems = listed([f"{name} ({problem})" for name, problem in damaged])
    return UserError(
        f"{counted(len(damaged), 'image')} cannot be decoded: {problems}; repair or remove what is damaged, or use "
        "`outputs(find_images(...))`, which leaves them out"
    )


def read_prepared(
    found: ImageFiles, image_shape: Shape, center_share: Number
) -> UInt8[np.ndarray, "size size channel"]:
    """The only image of `found`; UserError where it cannot be decoded."""
    if found.damaged:
        raise undecodable(found.damaged)
    require_tensorflow(f"{found.names[0]} is an image file")
    quiet_tensorflow()
    split = seen(found.split, image_shape, center_share)
    try:
        return centered_images(split, np.array([0]))[0]
    except UserError as error:
        raise undecodable([(found.names[0], why) for why in damaged_images(split, np.array([0])).values()]) from error


def prepared_batch(
    images: Any, image_shape: Shape, center_share: Number
) -> tuple[UInt8[np.ndarray, "image height width channel"], int]:
    """Arrays or PIL images as one array, and how many of them are gray; UserError for images of another kind.

    images: an array [image, height, width, channel] or [image, height, width], or a list of images of any sizes.
    """
    if isinstance(images, Image.Image):
        raise UserError("images is one PIL image; pass [image], or a list of images")
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
    if isinstance(images, np.ndarray) and images.shape[1:] == image_shape and images.dtype == np.uint8:
        return images, sum(map(_is_gray, images))
    pixels = np.stack([prepared(image, image_shape, center_share) for image in images])
    return pixels, sum(map(_is_gray, images))


def _is_gray(image: Any) -> bool:
    if isinstance(image, Image.Image):
        return image.mode in ("1", "L", "LA") or image.mode.startswith("I")
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
    if not all(image.size) or image.mode == "F":
        found = f"of {image.width} x {image.height} pixels" if image.mode != "F" else "with floats (mode F)"
        raise UserError(
            f"an image is a PIL image {found}; allowed: one of 1 x 1 or more pixels with whole numbers, or an array of floats "
            "in 0..1"
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            upper = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(upper[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # of a file that is opened, and decoded only now
        name = getattr(image, "filename", "") or f"of mode {image.mode}"
        raise UserError(
            f"the PIL image {visible(name)} cannot be decoded ({one_line(error)}); allowed: an intact image that Pillow converts "
            "to RGB"
        ) from error


def _array(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, for GPU tensors: it names the method to call
        raise UserError(
            f"{what} cannot be read as an array ({' '.join(str(error).split())}); allowed: {_ALLOWED}"
        ) from error
    if array.dtype.kind not in "uif" and not is_float(array.dtype):
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
    if not is_float(image.dtype):
        raise UserError(f"an image is {image.dtype}; allowed: uint8 in 0..255, or float in {ALLOWED_FLOATS}")
    found = gray_levels(image)
    if found is None:
        lowest, highest = float(image.min()), float(image.max())
        which = f"lies in {lowest:.4g}..{highest:.4g}"
        if not np.isfinite([lowest, highest]).all():
            which = "has values that are NaN or infinite"
        raise UserError(f"an image {which}; allowed for float images: {ALLOWED_FLOATS}")
    return found
