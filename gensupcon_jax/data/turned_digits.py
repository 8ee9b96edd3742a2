"""Handwritten digits turned by a random angle, whose label is the angle: a small data set of numbers."""

import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax.data.cuts import SPLIT_SEED

_MOST_DEGREES = 45.0


def turned_digits(
    images: UInt8[np.ndarray, "image height width 1"],
) -> tuple[UInt8[np.ndarray, "image large_height large_width"], Float[np.ndarray, "image"]]:
    """Each image at twice its size, turned counterclockwise, and the angle: -45 to 45 degrees, always the same ones."""
    from scipy import ndimage

    shares = np.random.Philox(key=[SPLIT_SEED, 0]).random_raw(len(images)) / 2**64
    angles = np.round(_MOST_DEGREES * (2.0 * shares - 1.0), 2)
    turned = []
    for image, angle in zip(images[..., 0].astype(np.float64), angles, strict=True):
        large = np.asarray(ndimage.zoom(image, 2, order=1))
        turned.append(np.asarray(ndimage.rotate(large, float(angle), reshape=False, order=1)))
    return np.clip(np.round(np.stack(turned)), 0, 255).astype(np.uint8), angles
