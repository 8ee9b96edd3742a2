"""AutoAugment and RandAugment: the random choice of operations and strengths, and PIL's operations in jax."""

import enum
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gensupcon_jax.gray import PIL_GRAY

Array = jax.Array | np.ndarray
Number = float | int


class Operation(enum.IntEnum):
    """Operations on an image; RandAugment draws from all except INVERT (arXiv 1909.13719)."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    AUTO_CONTRAST = 6
    EQUALIZE = 7
    SOLARIZE = 8
    POSTERIZE = 9
    CONTRAST = 10
    COLOR = 11
    BRIGHTNESS = 12
    SHARPNESS = 13
    INVERT = 14


ENHANCEMENTS = (Operation.CONTRAST, Operation.COLOR, Operation.BRIGHTNESS, Operation.SHARPNESS)

MAX_MAGNITUDE = 30  # of RandAugment

_MAX_LEVEL = 9  # of the tables below
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 150 / 331  # of the side
_MAX_DEGREES = 30
_MAX_ENHANCEMENT = 0.9  # factors 0.1 to 1.9
_MAX_BITS_LOST = 4
_FILL = 128 / 255  # outside of the image

# Each row is a sub-policy: two successive operations as (operation, probability, level 0..9). AUTO_CONTRAST, EQUALIZE
# and INVERT ignore the level. From the appendix of arXiv 1805.09501.
AUTO_TABLES = {
    "cifar10": (
        ((Operation.INVERT, 0.1, 7), (Operation.CONTRAST, 0.2, 6)),
        ((Operation.ROTATE, 0.7, 2), (Operation.TRANSLATE_X, 0.3, 9)),
        ((Operation.SHARPNESS, 0.8, 1), (Operation.SHARPNESS, 0.9, 3)),
        ((Operation.SHEAR_Y, 0.5, 8), (Operation.TRANSLATE_Y, 0.7, 9)),
        ((Operation.AUTO_CONTRAST, 0.5, 8), (Operation.EQUALIZE, 0.9, 2)),
        ((Operation.SHEAR_Y, 0.2, 7), (Operation.POSTERIZE, 0.3, 7)),
        ((Operation.COLOR, 0.4, 3), (Operation.BRIGHTNESS, 0.6, 7)),
        ((Operation.SHARPNESS, 0.3, 9), (Operation.BRIGHTNESS, 0.7, 9)),
        ((Operation.EQUALIZE, 0.6, 5), (Operation.EQUALIZE, 0.5, 1)),
        ((Operation.CONTRAST, 0.6, 7), (Operation.SHARPNESS, 0.6, 5)),
        ((Operation.COLOR, 0.7, 7), (Operation.TRANSLATE_X, 0.5, 8)),
        ((Operation.EQUALIZE, 0.3, 7), (Operation.AUTO_CONTRAST, 0.4, 8)),
        ((Operation.TRANSLATE_Y, 0.4, 3), (Operation.SHARPNESS, 0.2, 6)),
        ((Operation.BRIGHTNESS, 0.9, 6), (Operation.COLOR, 0.2, 8)),
        ((Operation.SOLARIZE, 0.5, 2), (Operation.INVERT, 0.0, 3)),
        ((Operation.EQUALIZE, 0.2, 0), (Operation.AUTO_CONTRAST, 0.6, 0)),
        ((Operation.EQUALIZE, 0.2, 8), (Operation.EQUALIZE, 0.6, 4)),
        ((Operation.COLOR, 0.9, 9), (Operation.EQUALIZE, 0.6, 6)),
        ((Operation.AUTO_CONTRAST, 0.8, 4), (Operation.SOLARIZE, 0.2, 8)),
        ((Operation.BRIGHTNESS, 0.1, 3), (Operation.COLOR, 0.7, 0)),
        ((Operation.SOLARIZE, 0.4, 5), (Operation.AUTO_CONTRAST, 0.9, 3)),
        ((Operation.TRANSLATE_Y, 0.9, 9), (Operation.TRANSLATE_Y, 0.7, 9)),
        ((Operation.AUTO_CONTRAST, 0.9, 2), (Operation.SOLARIZE, 0.8, 3)),
        ((Operation.EQUALIZE, 0.8, 8), (Operation.INVERT, 0.1, 3)),
        ((Operation.TRANSLATE_Y, 0.7, 9), (Operation.AUTO_CONTRAST, 0.9, 1)),
    ),
    "svhn": (
        ((Operation.SHEAR_X, 0.9, 4), (Operation.INVERT, 0.2, 3)),
        ((Operation.SHEAR_Y, 0.9, 8), (Operation.INVERT, 0.7, 5)),
        ((Operation.EQUALIZE, 0.6, 5), (Operation.SOLARIZE, 0.6, 6)),
        ((Operation.INVERT, 0.9, 3), (Operation.EQUALIZE, 0.6, 3)),
        ((Operation.EQUALIZE, 0.6, 1), (Operation.ROTATE, 0.9, 3)),
        ((Operation.SHEAR_X, 0.9, 4), (Operation.AUTO_CONTRAST, 0.8, 3)),
        ((Operation.SHEAR_Y, 0.9, 8), (Operation.INVERT, 0.4, 5)),
        ((Operation.SHEAR_Y, 0.9, 5), (Operation.SOLARIZE, 0.2, 6)),
        ((Operation.INVERT, 0.9, 6), (Operation.AUTO_CONTRAST, 0.8, 1)),
        ((Operation.EQUALIZE, 0.6, 3), (Operation.ROTATE, 0.9, 3)),
        ((Operation.SHEAR_X, 0.9, 4), (Operation.SOLARIZE, 0.3, 3)),
        ((Operation.SHEAR_Y, 0.8, 8), (Operation.INVERT, 0.7, 4)),
        ((Operation.EQUALIZE, 0.9, 5), (Operation.TRANSLATE_Y, 0.6, 6)),
        ((Operation.INVERT, 0.9, 4), (Operation.EQUALIZE, 0.6, 7)),
        ((Operation.CONTRAST, 0.3, 3), (Operation.ROTATE, 0.8, 4)),
        ((Operation.INVERT, 0.8, 5), (Operation.TRANSLATE_Y, 0.0, 2)),
        ((Operation.SHEAR_Y, 0.7, 6), (Operation.SOLARIZE, 0.4, 8)),
        ((Operation.INVERT, 0.6, 4), (Operation.ROTATE, 0.8, 4)),
        ((Operation.SHEAR_Y, 0.3, 7), (Operation.TRANSLATE_X, 0.9, 3)),
        ((Operation.SHEAR_X, 0.1, 6), (Operation.INVERT, 0.6, 5)),
        ((Operation.SOLARIZE, 0.7, 2), (Operation.TRANSLATE_Y, 0.6, 7)),
        ((Operation.SHEAR_Y, 0.8, 4), (Operation.INVERT, 0.8, 8)),
        ((Operation.SHEAR_X, 0.7, 9), (Operation.TRANSLATE_Y, 0.8, 3)),
        ((Operation.SHEAR_Y, 0.8, 5), (Operation.AUTO_CONTRAST, 0.7, 3)),
        ((Operation.SHEAR_X, 0.7, 2), (Operation.INVERT, 0.1, 5)),
    ),
    "imagenet": (
        ((Operation.POSTERIZE, 0.4, 8), (Operation.ROTATE, 0.6, 9)),
        ((Operation.SOLARIZE, 0.6, 5), (Operation.AUTO_CONTRAST, 0.6, 5)),
        ((Operation.EQUALIZE, 0.8, 8), (Operation.EQUALIZE, 0.6, 3)),
        ((Operation.POSTERIZE, 0.6, 7), (Operation.POSTERIZE, 0.6, 6)),
        ((Operation.EQUALIZE, 0.4, 7), (Operation.SOLARIZE, 0.2, 4)),
        ((Operation.EQUALIZE, 0.4, 4), (Operation.ROTATE, 0.8, 8)),
        ((Operation.SOLARIZE, 0.6, 3), (Operation.EQUALIZE, 0.6, 7)),
        ((Operation.POSTERIZE, 0.8, 5), (Operation.EQUALIZE, 1.0, 2)),
        ((Operation.ROTATE, 0.2, 3), (Operation.SOLARIZE, 0.6, 8)),
        ((Operation.EQUALIZE, 0.6, 8), (Operation.POSTERIZE, 0.4, 6)),
        ((Operation.ROTATE, 0.8, 8), (Operation.COLOR, 0.4, 0)),
        ((Operation.ROTATE, 0.4, 9), (Operation.EQUALIZE, 0.6, 2)),
        ((Operation.EQUALIZE, 0.0, 7), (Operation.EQUALIZE, 0.8, 8)),
        ((Operation.INVERT, 0.6, 4), (Operation.EQUALIZE, 1.0, 8)),
        ((Operation.COLOR, 0.6, 4), (Operation.CONTRAST, 1.0, 8)),
        ((Operation.ROTATE, 0.8, 8), (Operation.COLOR, 1.0, 2)),
        ((Operation.COLOR, 0.8, 8), (Operation.SOLARIZE, 0.8, 7)),
        ((Operation.SHARPNESS, 0.4, 7), (Operation.INVERT, 0.6, 8)),
        ((Operation.SHEAR_X, 0.6, 5), (Operation.EQUALIZE, 1.0, 9)),
        ((Operation.COLOR, 0.4, 0), (Operation.EQUALIZE, 0.6, 3)),
        ((Operation.EQUALIZE, 0.4, 7), (Operation.SOLARIZE, 0.2, 4)),
        ((Operation.SOLARIZE, 0.6, 5), (Operation.AUTO_CONTRAST, 0.6, 5)),
        ((Operation.INVERT, 0.6, 4), (Operation.EQUALIZE, 1.0, 8)),
        ((Operation.COLOR, 0.6, 4), (Operation.CONTRAST, 1.0, 8)),
        ((Operation.EQUALIZE, 0.8, 8), (Operation.EQUALIZE, 0.6, 3)),
    ),
}


# Draws


def auto_augment(
    key: jax.Array, image: Float[Array, "height width channel"], *, policy: str
) -> Float[jax.Array, "height width channel"]:
    """The image, in 0..1, changed by a random sub-policy of AUTO_TABLES[policy] (AutoAugment, arXiv 1805.09501)."""
    return apply_in_turn(image, *draw_auto(key, policy))


def rand_augment(
    key: jax.Array, image: Float[Array, "height width channel"], *, num_operations: int, magnitude: Number
) -> Float[jax.Array, "height width channel"]:
    """The image, in 0..1, changed by random operations of one magnitude 0..30 (RandAugment, arXiv 1909.13719)."""
    return apply_in_turn(image, *draw_rand(key, num_operations, magnitude))


def draw_auto(key: jax.Array, policy: str) -> tuple[Int[jax.Array, "step=2"], Float[jax.Array, "step=2"]]:
    """The operations of a random sub-policy and their strengths -1..1, see `apply_operation` (arXiv 1805.09501).

    Shears, translations and rotations have a random sign. Factors of enhancements rise with the level from 0.1 to 1.9, as
    in the paper; torchvision draws a sign for them too.
    """
    table = jnp.array(AUTO_TABLES[policy], jnp.float32)
    draws = jax.random.uniform(key, (8,))
    operations, probabilities, levels = table[jnp.floor(draws[0] * len(table)).astype(jnp.int32)].T
    operations = jnp.where(draws[1:3] < probabilities, operations, Operation.IDENTITY).astype(jnp.int32)
    strengths = levels / _MAX_LEVEL
    is_enhancement = jnp.isin(operations, jnp.array(ENHANCEMENTS))
    return operations, jnp.where(is_enhancement, 2 * strengths - 1, _random_sign(draws[3:5]) * strengths)


def draw_rand(
    key: jax.Array, num_operations: int, magnitude: Number
) -> tuple[Int[jax.Array, "{num_operations}"], Float[jax.Array, "{num_operations}"]]:
    """Uniformly random operations and their strengths -1..1, see `apply_operation` (torchvision).

    The sign is random, also for enhancements, so that at magnitude 0 only AUTO_CONTRAST and EQUALIZE change the image.
    """
    draws = jax.random.uniform(key, (2, num_operations))
    operations = jnp.floor(draws[0] * Operation.INVERT).astype(jnp.int32)
    return operations, _random_sign(draws[1]) * (magnitude / MAX_MAGNITUDE)


def apply_in_turn(
    image: Float[Array, "height width channel"], operations: Int[Array, "step"], strengths: Float[Array, "step"]
) -> Float[jax.Array, "height width channel"]:
    """The image after successive operations, see `apply_operation`."""

    def step(image: jax.Array, change: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return apply_operation(image, *change), None

    return jax.lax.scan(step, jnp.asarray(image), (jnp.asarray(operations), jnp.asarray(strengths)))[0]


# Operations


def apply_operation(
    image: Float[Array, "height width channel"], operation: Int[Array, ""] | int, strength: Float[Array, ""] | Number
) -> Float[jax.Array, "height width channel"]:
    """One Operation on an image in 0..1, as PIL applies it to integer levels 0..255 (PIL, torchvision).

    strength -1..1: relative to 0.3 for shears, 150/331 of the side for translations (whole pixels), 30 degrees for ROTATE;
    factors of enhancements are 1 + 0.9 x strength. SOLARIZE inverts levels from 256 x (1 - |strength|) up, POSTERIZE drops
    4 x |strength| bits. COLOR does not change images of one channel.
    """
    # Under vmap a switch computes all its branches. Instead each of the three kinds of operation runs once, and two of
    # them change nothing: one histogram, one blend, one lookup of pixels for all 15 operations. The lookup is last:
    # before _enhance the compiler would repeat it for every neighbor that _enhance reads (1.5 times as long).
    planes = jnp.moveaxis(jnp.asarray(image), -1, 0)
    planes = _change_tones(planes, operation, abs(strength))
    planes = _enhance(planes, operation, 1 + _MAX_ENHANCEMENT * strength)
    planes = _move(planes, operation, strength)
    return jnp.moveaxis(planes, 0, -1)


def _change_tones(planes: Float[jax.Array, "channel height width"], operation, strength) -> jax.Array:
    """Auto-contrast, equalize, solarize, posterize or invert (PIL's ImageOps)."""
    levels = jnp.round(planes * 255).astype(jnp.int32)
    threshold = jnp.ceil(256 * (1 - strength))
    bits_lost = jnp.round(_MAX_BITS_LOST * strength).astype(jnp.int32)
    changes = {
        Operation.AUTO_CONTRAST: jax.vmap(_auto_contrast)(levels) / 255,
        Operation.EQUALIZE: jax.vmap(_equalize)(levels) / 255,
        Operation.SOLARIZE: dm_pix.solarize(planes, (threshold - 0.5) / 255),
        Operation.POSTERIZE: (levels >> bits_lost << bits_lost) / 255,
        Operation.INVERT: 1 - planes,
    }
    return jnp.select([jnp.equal(operation, candidate) for candidate in changes], list(changes.values()), planes)


def _auto_contrast(levels: Int[jax.Array, "height width"]) -> Int[jax.Array, "height width"]:
    """Stretch the levels to 0..255; an image of a single level is unchanged."""
    low, high = levels.min(), levels.max()
    return jnp.where(high > low, (levels - low) * 255 // jnp.maximum(high - low, 1), levels)


def _equalize(levels: Int[jax.Array, "height width"]) -> Int[jax.Array, "height width"]:
    """Equalize the histogram with a lookup table of levels."""
    histogram = jnp.bincount(levels.reshape(-1), length=256)
    step = (levels.size - histogram[levels.max()]) // 255
    table = (step // 2 + jnp.cumsum(histogram) - histogram) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(table, 255)[levels], levels)


def _enhance(planes: Float[jax.Array, "channel height width"], operation, factor) -> jax.Array:
    """Contrast, color, brightness or sharpness: a blend with a degenerate image (PIL's ImageEnhance)."""
    gray = _gray(planes)
    degenerate = {
        Operation.CONTRAST: jnp.full_like(planes, gray.mean()),
        Operation.COLOR: jnp.broadcast_to(gray, planes.shape),
        Operation.BRIGHTNESS: jnp.zeros_like(planes),
        Operation.SHARPNESS: _smooth(planes),
    }
    other = jnp.select([jnp.equal(operation, candidate) for candidate in degenerate], list(degenerate.values()), planes)
    return jnp.clip(other + factor * (planes - other), 0.0, 1.0)  # exactly the planes for other operations


def _smooth(planes: Float[jax.Array, "channel height width"]) -> Float[jax.Array, "channel height width"]:
    """Average of each pixel, with weight 5, and its 8 neighbors; border pixels are unchanged (PIL's SMOOTH)."""
    _, height, width = planes.shape
    if min(height, width) < 3:
        return planes
    windows = [
        planes[:, row : height - 2 + row, column : width - 2 + column] for row in range(3) for column in range(3)
    ]
    inner = planes[:, 1:-1, 1:-1]
    return planes.at[:, 1:-1, 1:-1].set((sum(windows) + 4 * inner) / 13)


def _move(planes: Float[jax.Array, "channel height width"], operation, strength) -> jax.Array:
    """Shear, translate or rotate with nearest-neighbor lookup, gray outside (PIL's Image.transform and Image.rotate)."""
    _, height, width = planes.shape

    def share_of(candidate: Operation) -> jax.Array:
        return jnp.where(operation == candidate, strength, 0.0)

    angle = jnp.radians(_MAX_DEGREES * share_of(Operation.ROTATE))
    x, y = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    from_center_x, from_center_y = x - width / 2, y - height / 2
    source_x = (
        (jnp.cos(angle) * from_center_x - jnp.sin(angle) * from_center_y + width / 2)
        + _MAX_SHEAR * share_of(Operation.SHEAR_X) * y
        + jnp.trunc(_MAX_TRANSLATION * width * share_of(Operation.TRANSLATE_X))
    )
    source_y = (
        (jnp.sin(angle) * from_center_x + jnp.cos(angle) * from_center_y + height / 2)
        + _MAX_SHEAR * share_of(Operation.SHEAR_Y) * x
        + jnp.trunc(_MAX_TRANSLATION * height * share_of(Operation.TRANSLATE_Y))
    )
    is_inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    column, row = (jnp.floor(source).astype(jnp.int32) for source in (source_x, source_y))
    places = jnp.where(is_inside, row * width + column, 0)
    return jnp.where(is_inside, planes.reshape(-1, height * width)[:, places], _FILL)


def _gray(planes: Float[jax.Array, "channel height width"]) -> Float[jax.Array, "height width"]:
    """Luma of three channels; the mean of any other number of channels."""
    weights = PIL_GRAY if len(planes) == 3 else [1 / len(planes)] * len(planes)
    gray: Any = sum(weight * plane for weight, plane in zip(weights, planes, strict=True))
    return gray


def _random_sign(draws: jax.Array) -> jax.Array:
    return jnp.where(draws < 0.5, -1.0, 1.0)
