"""Random views of images, on the device: transforms of one image, vmapped over a batch."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key, UInt8

from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.errors import UserError
from gensupcon_jax.gray import TORCHVISION_GRAY
from gensupcon_jax.views.policies import MAX_MAGNITUDE, auto_augment, rand_augment

Array = jax.Array | np.ndarray
Number = float | int

# A transform changes one image at random: (key, image [height, width, channel] in 0..1) -> image in 0..1.
Transform = Callable[[jax.Array, jax.Array], jax.Array]

# The channels of an image, each [height, width].
Planes = tuple[jax.Array, ...]

POLICIES = names_of("augment.policy")
AUTO_POLICIES = names_of("augment.auto_policy")

BRIGHTNESS, CONTRAST, SATURATION = 0, 1, 2

_CROP_ATTEMPTS = 10  # as torchvision
_BLUR_IMAGE_SIZE = 224  # the width of the blur is in pixels of an image of this size (MoCo v2)
_LARGEST_SMALL_IMAGE = 64  # larger images use the ImageNet policy of AutoAugment (ours)


class ColorChange(NamedTuple):
    """One change of colors.

    factors [3]: of BRIGHTNESS, CONTRAST and SATURATION; 1 means no change. order [operation]: the operations to apply, in
    order. hue_shift: in turns of the color circle; None: no hue. hue_place: number of operations before the hue.
    """

    factors: Array
    order: Array
    hue_shift: Array | None
    hue_place: Array


def build_augment_fn(
    *,
    image_size: int,
    mean: Float[Array, "channel"],
    std: Float[Array, "channel"],
    dataset_name: str = "",
    num_views: int,
    policy: str,
    crop_scale: Sequence[Number],
    crop_ratio: Sequence[Number],
    flip_probability: Number,
    jitter_probability: Number,
    brightness: Number,
    contrast: Number,
    saturation: Number,
    hue: Number,
    gray_probability: Number,
    blur_probability: Number,
    blur_sigma: Sequence[Number],
    auto_policy: str,
    rand_num_operations: int,
    rand_magnitude: Number,
    cutout_size: Number | None,
) -> Callable[[jax.Array, Array], jax.Array]:
    """augment_fn(keys [batch], images uint8 [batch, height, width, channel]) -> normalized views, by one of POLICIES.

    keys: one typed key per image, see `per_image_keys`. Views are [batch, view, image_size, image_size, channel] float32,
    drawn independently. mean, std [channel] on the scale 0..1; dataset_name is for `auto_policy="auto"`; the other
    arguments are the config's `augment` fields. Probability or strength 0 disables a transform. Images [batch, view,
    image_size, image_size, channel] are views that the host has cropped: they are not cropped again. Raises UserError for
    wrong settings.
    """
    _check_number("num_views", num_views, 1)
    _check_choice("policy", policy, POLICIES)
    _check_interval("crop_scale", crop_scale, 1)
    _check_interval("crop_ratio", crop_ratio)
    _check_number("flip_probability", flip_probability, 0, 1)
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    colors = _color_transforms(strengths, jitter_probability, gray_probability, blur_probability, blur_sigma)
    _check_choice("auto_policy", auto_policy, AUTO_POLICIES)
    _check_number("rand_num_operations", rand_num_operations, 0)
    _check_number("rand_magnitude", rand_magnitude, 0, MAX_MAGNITUDE)
    cutout_size = (0.5 if policy == "cutout" else 0) if cutout_size is None else cutout_size
    _check_number("cutout_size", cutout_size, 0, 1)

    crop = functools.partial(random_resized_crop, size=image_size, scale=crop_scale, ratio=crop_ratio)
    auto_table = choose_auto_policy(auto_policy, dataset_name, image_size)
    rand = functools.partial(rand_augment, num_operations=rand_num_operations, magnitude=rand_magnitude)
    flip = _sometimes(random_flip, flip_probability)
    transforms = {
        "simclr": [crop, *flip, *colors],
        "auto": [crop, *flip, functools.partial(auto_augment, policy=auto_table)],
        "rand": [crop, *flip, rand],
        "cutout": [crop, *flip],
        "none": [functools.partial(whole_image, size=image_size)],
    }[policy]
    transforms += [functools.partial(random_cutout, size=cutout_size, fill=mean)] if cutout_size else []

    def augment_fn(
        keys: Key[jax.Array, "batch"],
        images: UInt8[Array, "batch height width channel"] | UInt8[Array, "batch view size size channel"],
    ) -> Float[jax.Array, "batch view size size channel"]:
        if images.ndim == 5:
            return normalize(change_views(keys, images, transforms=transforms[1:]), mean, std)
        return normalize(make_views(keys, images, transforms=transforms, num_views=num_views), mean, std)

    return augment_fn


def _color_transforms(
    strengths: dict[str, Number],
    jitter_probability: Number,
    gray_probability: Number,
    blur_probability: Number,
    blur_sigma: Sequence[Number],
) -> list[Transform]:
    """Color jitter, gray and blur, without those that are disabled; UserError for wrong settings."""
    probabilities = {"jitter": jitter_probability, "gray": gray_probability, "blur": blur_probability}
    for name, value in probabilities.items():
        _check_number(f"{name}_probability", value, 0, 1)
    for name, value in strengths.items():
        _check_number(name, value, 0, 0.5 if name == "hue" else math.inf)
    _check_interval("blur_sigma", blur_sigma)
    jitter = functools.partial(color_jitter, **strengths, probability=jitter_probability)
    return [
        *([jitter] if jitter_probability and any(strengths.values()) else []),
        *_sometimes(random_gray, gray_probability),
        *_sometimes(functools.partial(random_blur, sigma=blur_sigma), blur_probability),
    ]


def choose_auto_policy(auto_policy: str, dataset_name: str, image_size: int) -> str:
    """The name of the AutoAugment table: auto_policy itself, or for "auto" the one for the data set.

    SVHN's for a data set of that name, else ImageNet's for images above 64 pixels, else CIFAR-10's.
    """
    if auto_policy != "auto":
        return auto_policy
    if "svhn" in dataset_name.lower():
        return "svhn"
    return "imagenet" if image_size > _LARGEST_SMALL_IMAGE else "cifar10"


def per_image_keys(
    key: jax.Array, first_index: int | Int[Array, ""], num_images: int
) -> Key[jax.Array, "{num_images}"]:
    """One key per image, which depends only on the index of the image in the global batch.

    key: the same on every device, of kind threefry (jax's default: `rbg` draws other numbers under vmap).
    first_index: index of the first local image in the global batch.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first_index + jnp.arange(num_images))


def make_views(
    keys: Key[jax.Array, "batch"],
    images: UInt8[Array, "batch height width channel"] | Float[Array, "batch height width channel"],
    *,
    transforms: Sequence[Transform],
    num_views: int,
) -> Float[jax.Array, "batch {num_views} out_height out_width channel"]:
    """Independent views of each image, in 0..1, float32; the randomness of an image depends only on its key."""

    def views_of_one(key: jax.Array, image: jax.Array) -> jax.Array:
        keys = jax.random.split(key, (num_views, len(transforms)))
        return jax.vmap(functools.partial(_apply_in_turn, transforms), in_axes=(0, None))(keys, image)

    return jax.vmap(views_of_one)(keys, _unit_range(images))


def change_views(
    keys: Key[jax.Array, "batch"],
    views: UInt8[Array, "batch view size size channel"],
    *,
    transforms: Sequence[Transform],
) -> Float[jax.Array, "batch view size size channel"]:
    """Independent changes of given views, in 0..1, float32; the randomness of an image depends only on its key."""
    if not transforms:
        return _unit_range(views)

    def change_one(key: jax.Array, views_of_one: jax.Array) -> jax.Array:
        keys = jax.random.split(key, (views_of_one.shape[0], len(transforms)))
        return jax.vmap(functools.partial(_apply_in_turn, transforms))(keys, views_of_one)

    return _unit_range(jax.vmap(change_one)(keys, jnp.asarray(views)))


def normalize(
    images: UInt8[Array, "*batch height width channel"] | Float[Array, "*batch height width channel"],
    mean: Float[Array, "channel"],
    std: Float[Array, "channel"],
) -> Float[jax.Array, "*batch height width channel"]:
    """(images - mean) / std, float32 (torchvision).

    images: uint8 in 0..255, which are divided by 255 first, or floats in 0..1. mean, std [channel] on the scale 0..1.
    """
    return (_unit_range(images) - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


# Crop


def random_resized_crop(
    key: jax.Array,
    image: Float[Array, "height width channel"],
    *,
    size: int,
    scale: Sequence[Number],
    ratio: Sequence[Number],
) -> Float[jax.Array, "{size} {size} channel"]:
    """A random box of the image, resized to size x size (torchvision's RandomResizedCrop).

    scale: smallest and largest share of the area; ratio: smallest and largest width / height of the box.
    """
    height, width, _ = image.shape
    return crop_and_resize(image, random_box(key, height, width, scale=scale, ratio=ratio), size=size)


def random_box(
    key: jax.Array, height: int, width: int, *, scale: Sequence[Number], ratio: Sequence[Number]
) -> Int[jax.Array, "top_left_height_width=4"]:
    """(top, left, height, width) of a crop, whole pixels inside height x width (torchvision).

    The share of the area is uniform in scale, log(width / height) uniform in log(ratio). torchvision draws up to 10 boxes
    until one fits: here 10 boxes are drawn at once and the first that fits is used, else torchvision's fallback, the
    largest centered box with an allowed ratio.
    """
    draws = _uniform(key, 2 * _CROP_ATTEMPTS + 2)
    area_draws, ratio_draws = draws[:-2].reshape(2, _CROP_ATTEMPTS)
    areas = height * width * _between(area_draws, *scale)
    ratios = jnp.exp(_between(ratio_draws, *(math.log(bound) for bound in ratio)))
    sizes = jnp.round(jnp.sqrt(jnp.stack([areas / ratios, areas * ratios], axis=1))).astype(jnp.int32)
    whole = jnp.array([height, width])
    fits = ((sizes > 0) & (sizes <= whole)).all(axis=1)
    fallback = jnp.array(_fallback_size(height, width, ratio))
    box_size = jnp.where(fits.any(), sizes[jnp.argmax(fits)], fallback)
    space = whole - box_size
    corner = jnp.where(fits.any(), jnp.floor(draws[-2:] * (space + 1)).astype(jnp.int32), space // 2)
    return jnp.concatenate([corner, box_size])


def crop_and_resize(
    image: Float[Array, "height width channel"], box: Int[Array, "top_left_height_width=4"], *, size: int
) -> Float[jax.Array, "{size} {size} channel"]:
    """The box (top, left, height, width) of the image, resized bilinearly to size x size (jax.image).

    Two small matmuls with traced box sizes, without a gather. Antialiased when shrinking, as in PIL and torchvision. The
    whole image at its own size is unchanged. At the border of the box, the bilinear kernel also reads pixels just outside
    the box, as PIL's resize(box=...) does; torchvision crops first and repeats the border pixels instead.
    """
    zoom = size / box[2:].astype(jnp.float32)
    shape = (size, size, image.shape[-1])
    return jax.image.scale_and_translate(image, shape, (0, 1), zoom, -zoom * box[:2], "linear", antialias=True)


def whole_image(
    _key: jax.Array, image: Float[Array, "height width channel"], *, size: int
) -> Float[jax.Array, "{size} {size} channel"]:
    """The whole image, resized to size x size if necessary."""
    height, width, _ = image.shape
    if (height, width) == (size, size):
        return jnp.asarray(image)
    return crop_and_resize(image, jnp.array([0, 0, height, width]), size=size)


def resize(images: Array, size: int, center_share: Number = 1.0) -> jax.Array:
    """Images [image, height, width, channel] resized to size x size; uint8 stays uint8.

    center_share: below 1, of each image the centered square whose side is this share of the shorter side is resized.
    """
    if center_share == 1 and images.shape[1:3] == (size, size):
        return jnp.asarray(images)
    box = jnp.array([0, 0, *images.shape[1:3]])
    if center_share != 1:
        side = max(1, round(center_share * min(images.shape[1:3])))
        box = jnp.array([*((length - side) // 2 for length in images.shape[1:3]), side, side])
    resized = jax.vmap(functools.partial(crop_and_resize, box=box, size=size))(_unit_range(images))
    return jnp.round(resized * 255).astype(jnp.uint8) if images.dtype == jnp.uint8 else resized


# Flip, color, gray, blur, cutout


def random_flip(
    key: jax.Array,
    image: UInt8[Array, "height width channel"] | Float[Array, "height width channel"],
    *,
    probability: Number,
) -> UInt8[jax.Array, "height width channel"] | Float[jax.Array, "height width channel"]:
    """The image, flipped left to right with this probability (dm_pix)."""
    flipped: Any = dm_pix.random_flip_left_right(key, jnp.asarray(image), probability=float(probability))
    return flipped


def color_jitter(
    key: jax.Array,
    image: Float[Array, "height width channel"],
    *,
    brightness: Number,
    contrast: Number,
    saturation: Number,
    hue: Number,
    probability: Number = 1.0,
) -> Float[jax.Array, "height width channel"]:
    """Brightness, contrast, saturation and hue changed at random, in random order (torchvision's ColorJitter).

    The arguments are those of `random_color_change`. With 1 - probability the image is unchanged. Saturation and hue apply
    only to images of three channels.
    """
    change_fn = functools.partial(random_color_change, key, brightness=brightness, contrast=contrast)
    if image.shape[-1] == 3:
        applied, change = change_fn(saturation=saturation, hue=hue, probability=probability)
    else:
        applied, change = change_fn(saturation=0, hue=0, probability=probability)
    return jnp.where(applied, adjust_colors(image, change), image)


def random_color_change(
    key: jax.Array,
    *,
    brightness: Number,
    contrast: Number,
    saturation: Number,
    hue: Number,
    probability: Number = 1.0,
) -> tuple[Bool[jax.Array, ""], ColorChange]:
    """Whether to change the colors of an image, and how (torchvision's ColorJitter inside RandomApply).

    brightness, contrast, saturation: factors are uniform in max(0, 1 - this) .. 1 + this. hue: the shift is uniform in
    -this .. this, in turns of the color circle. All orders are equally likely. Strength 0 disables an operation.
    """
    strengths = np.array([brightness, contrast, saturation], np.float32)
    used = np.flatnonzero(strengths)
    draws = _uniform(key, 9)
    change = ColorChange(
        factors=_between(draws[0:3], np.maximum(0, 1 - strengths), 1 + strengths),
        order=jnp.asarray(used, jnp.int32)[jnp.argsort(draws[3 : 3 + len(used)])],
        hue_shift=_between(draws[6], -hue, hue) if hue else None,
        hue_place=jnp.floor(draws[7] * (len(used) + 1)).astype(jnp.int32),
    )
    return draws[8] < probability, change


def adjust_colors(
    image: Float[Array, "height width channel"], change: ColorChange
) -> Float[jax.Array, "height width channel"]:
    """The image with its brightness, contrast, saturation and hue changed according to `change`, in 0..1 (torchvision)."""
    # Under vmap a switch computes all its branches: 4 slots of 4 operations would be 16 of them, 4 of them the expensive
    # hue. Instead the three blends run once before the hue and once after it, with factor 1 (no change) where they do
    # not apply: 6 cheap blends and a single hue give every order.
    factors, places = change.factors[change.order], jnp.arange(change.order.shape[0])
    contrast_place = jnp.sum(jnp.where(change.order == CONTRAST, places, 0))
    # One array per channel: with the channels as the innermost axis, the blends take 3 times as long on a CPU.
    planes = jnp.unstack(jnp.asarray(image), axis=-1)

    def changed(factors, hue_shift, contrast_gray):
        blend = functools.partial(_blend_in_turn, operations=jnp.asarray(change.order), contrast_gray=contrast_gray)
        if change.hue_shift is None:
            return blend(planes, factors)
        is_before = places < change.hue_place
        turned = blend(planes, jnp.where(is_before, factors, 1.0))
        return blend(_turn_hue(turned, hue_shift), jnp.where(is_before, 1.0, factors))

    # Contrast needs the mean gray of the image just before it. It is computed once, of an image that is never written:
    # in every slot it would split the blends into six passes over memory, on a TPU most of the time of the augmentation.
    come_first = places < contrast_place
    hue_first = (
        None if change.hue_shift is None else jnp.where(contrast_place >= change.hue_place, change.hue_shift, 0.0)
    )
    earlier = changed(jnp.where(come_first, factors, 1.0), hue_first, 0.0)
    return jnp.stack(changed(factors, change.hue_shift, _gray(earlier).mean()), axis=-1)


def random_gray(
    key: jax.Array, image: Float[Array, "height width channel"], *, probability: Number
) -> Float[jax.Array, "height width channel"]:
    """The image, converted to gray with this probability (torchvision's RandomGrayscale); only for three channels."""
    image = jnp.asarray(image)
    if image.shape[-1] != 3:
        return image
    gray = _gray(jnp.unstack(image, axis=-1))[..., None]
    return jnp.where(jax.random.bernoulli(key, float(probability)), gray, image)


def random_blur(
    key: jax.Array, image: Float[Array, "height width channel"], *, sigma: Sequence[Number], probability: Number
) -> Float[jax.Array, "height width channel"]:
    """The image, blurred with this probability, with a width uniform in sigma (SimCLR, MoCo v2).

    sigma: smallest and largest width, in pixels of an image of height 224; it scales with the image.
    """
    scale = image.shape[0] / _BLUR_IMAGE_SIZE
    draws = _uniform(key, 2)
    radius = max(1, math.ceil(3 * sigma[1] * scale))  # where the widest kernel has fallen to 1 % of its peak
    blurred = gaussian_blur(image, scale * _between(draws[0], *sigma), radius=radius)
    return jnp.where(draws[1] < probability, blurred, image)


def gaussian_blur(
    image: Float[Array, "height width channel"], sigma: Float[Array, ""] | Number, *, radius: int
) -> Float[jax.Array, "height width channel"]:
    """The image convolved with a Gaussian of 2 radius + 1 pixels, reflected at the border (torchvision's gaussian_blur).

    A product with a band matrix per axis, so that every pixel is read and written once per axis. Sums of shifted images
    move many times as many bytes; dm_pix.gaussian_blur pads with black, and becomes a grouped convolution when vmapped with
    one kernel per image.
    """
    image = jnp.asarray(image)
    rows, columns = (_band_matrix(sigma, radius, size) for size in image.shape[:2])
    return jnp.einsum("yh,xw,hwc->yxc", rows, columns, image, precision=jax.lax.Precision.HIGHEST)


def _band_matrix(sigma: Float[Array, ""] | Number, radius: int, size: int) -> Float[jax.Array, "{size} {size}"]:
    """Weight of pixel j in the blurred pixel i of a line that is reflected at its ends. Rows sum to 1."""
    if size == 1:
        return jnp.ones((1, 1))
    own, given = np.arange(size)[:, None], np.arange(size)
    period, matrix = 2 * (size - 1), jnp.zeros((size, size))
    # Pixel j is at j, its mirror image at -j, and both repeat every period; at the ends the two coincide.
    for shift in range(-(radius // period) - 1, radius // period + 2):
        for place, is_there in ((given, given >= 0), (-given, (given > 0) & (given < size - 1))):
            distance = own - place - shift * period
            near = is_there & (np.abs(distance) <= radius)
            if near.any():
                matrix += jnp.where(near, jnp.exp(-0.5 * (distance / sigma) ** 2), 0.0)
    return matrix / matrix.sum(axis=1, keepdims=True)


def random_cutout(
    key: jax.Array, image: Float[Array, "height width channel"], *, size: Number, fill: Float[Array, "channel"]
) -> Float[jax.Array, "height width channel"]:
    """The image with a square filled with the color `fill` (Cutout, arXiv 1708.04552).

    size: side of the square as a share of the image's shorter side. Its center is any pixel of the image, so that part
    of the square may be outside.
    """
    height, width, _ = image.shape
    side = round(size * min(height, width))
    middle = jnp.floor(_uniform(key, 2) * jnp.array([height, width]))
    top, left = middle - side // 2
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    is_hidden = (top <= rows) & (rows < top + side) & (left <= columns) & (columns < left + side)
    return jnp.where(is_hidden[..., None], fill, image)


# Parts


def _sometimes(transform: Callable, probability: Number) -> list[Transform]:
    """The transform with its probability, or nothing if that is 0."""
    return [functools.partial(transform, probability=probability)] if probability else []


def _apply_in_turn(transforms: Sequence[Transform], keys: jax.Array, image: jax.Array) -> jax.Array:
    for transform, key in zip(transforms, keys, strict=True):
        # A flip only moves pixels: uint8 has a quarter of the bytes.
        moves_only = getattr(transform, "func", transform) is random_flip
        image = transform(key, image if moves_only else _unit_range(image))
    return image


def _unit_range(images: Array) -> jax.Array:
    """Uint8 in 0..255 -> float32 in 0..1; floats must be in 0..1 already."""
    images = jnp.asarray(images)
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)


def _between(draw: jax.Array, low: Any, high: Any) -> jax.Array:
    """A draw from 0..1, scaled to low..high."""
    return low + (high - low) * draw


def _fallback_size(height: int, width: int, ratio: Sequence[Number]) -> tuple[int, int]:
    """Height and width of the largest box in height x width whose width / height is in ratio (torchvision)."""
    if width / height < ratio[0]:
        return min(height, max(1, round(width / ratio[0]))), width
    if width / height > ratio[1]:
        return height, min(width, max(1, round(height * ratio[1])))
    return height, width


def _uniform(key: jax.Array, num: int) -> Float[jax.Array, "{num}"]:
    """Uniform numbers in 0..1 from a single draw: under vmap each call of jax.random takes about 1 s to compile."""
    power_of_two = 1 << (num - 1).bit_length()  # 16 numbers compile 3 times as fast as 9 on a CPU
    return jax.random.uniform(key, (power_of_two,))[:num]


def _blend_in_turn(
    planes: Planes, factors: jax.Array, operations: jax.Array, contrast_gray: jax.Array | float
) -> Planes:
    for slot in range(operations.shape[0]):
        planes = _blend(planes, factors[slot], operations[slot], contrast_gray)
    return planes


def _blend(planes: Planes, factor: jax.Array, operation: jax.Array, contrast_gray: jax.Array | float) -> Planes:
    """One of brightness, contrast and saturation: a blend with black, the mean gray or the gray of the pixel (torchvision).

    dm_pix differs: it adds brightness, uses the mean of each channel for contrast, and changes saturation in HSV.
    """
    other = jnp.where(operation == BRIGHTNESS, 0.0, jnp.where(operation == CONTRAST, contrast_gray, _gray(planes)))
    return tuple(jnp.clip(factor * plane + (1 - factor) * other, 0.0, 1.0) for plane in planes)


def _turn_hue(planes: Planes, shift: jax.Array) -> Planes:
    """Red, green and blue with the hue shifted by `shift` turns of the color circle, in 0..1 (torchvision).

    The arithmetic of dm_pix.adjust_hue on separate channels: stacking them would split the operations before and after the
    hue into passes over memory on a TPU.
    """
    red, green, blue = planes
    largest = jnp.maximum(jnp.maximum(red, green), blue)
    smallest = jnp.minimum(jnp.minimum(red, green), blue)
    extent = largest - smallest
    scale = 1 / (6 * jnp.where(extent > 0, extent, 1.0))
    hue = jnp.where(largest == green, scale * (blue - red) + 2 / 6, scale * (red - green) + 4 / 6)
    hue = jnp.where(largest == red, scale * (green - blue), hue)
    sixths = (jnp.where(extent > 0, hue, 0.0) + shift) % 1.0 * 6
    shares = jnp.abs(sixths - 3) - 1, 2 - jnp.abs(sixths - 2), 2 - jnp.abs(sixths - 4)
    return tuple(jnp.clip(smallest + extent * jnp.clip(share, 0.0, 1.0), 0.0, 1.0) for share in shares)


def _gray(planes: Planes) -> Float[jax.Array, "height width"]:
    """Luma of three channels; the mean of any other number of channels.

    dm_pix.rgb_to_grayscale is a matmul, which does not fuse (the jitter took 3 times as long on a CPU) and rounds to
    bfloat16 on a TPU.
    """
    weights = TORCHVISION_GRAY if len(planes) == 3 else [1 / len(planes)] * len(planes)
    gray: Any = sum(weight * plane for weight, plane in zip(weights, planes, strict=True))
    return gray


# Settings


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"augment.{name} is {value!r}; allowed: {', '.join(choices)}")


def _check_number(name: str, value: Number, low: Number, high: Number = math.inf) -> None:
    if not low <= value <= high:
        allowed = f"a number from {low:g}" + ("" if high == math.inf else f" to {high:g}")
        raise UserError(f"augment.{name} is {value!r}; allowed: {allowed}")


def _check_interval(name: str, pair: Sequence[Number], high: Number = math.inf) -> None:
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= high:
        allowed = "two numbers above 0, the smaller first" + ("" if high == math.inf else f", up to {high:g}")
        raise UserError(f"augment.{name} is {tuple(pair)!r}; allowed: {allowed}")
