"""Float images in 0..1 and their gray levels 0..255; the types of floats that are taken."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

ALLOWED_FLOATS = "0..1"
_ROUNDING = 1e-3  # outside of 0..1, a quarter of a gray level: what arithmetic leaves, as in 1.0000001
_ONE_LEVEL = 1.01 / 255  # also as bfloat16 rounds it


def is_float(dtype: np.dtype) -> bool:
    """Whether these are floats of NumPy, or of `ml_dtypes`, such as bfloat16."""
    return bool(jnp.issubdtype(dtype, np.floating))


def gray_levels(images: np.ndarray) -> UInt8[np.ndarray, "..."] | None:
    """Floats in 0..1 as gray levels; None where they are not finite or lie outside by more than rounding."""
    images = in_numpys_floats(images)
    if not (np.isfinite(images).all() and images.min() >= -_ROUNDING and images.max() <= 1 + _ROUNDING):
        return None
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def in_numpys_floats(values: np.ndarray) -> np.ndarray:
    """The values as float32 where their type is one that NumPy does not know; else unchanged."""
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float32)


def are_divided_twice(images: np.ndarray) -> bool:
    """Whether images, scaled to 0..1, were scaled once more: none is brighter than one gray level, and some pixel is not 0.

    images: floats in 0..1, or uint8, where the second division leaves 0 and 1.
    """
    brightest = float(images.max())
    return 0 < brightest <= (1 if images.dtype == np.uint8 else _ONE_LEVEL)
