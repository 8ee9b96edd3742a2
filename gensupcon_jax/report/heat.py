"""Matrices as pictures of one color that is more or less opaque, so that they fit a light and a dark page."""

import io

import numpy as np
from jaxtyping import Float

from gensupcon_jax.report.thumbnails import as_uri

_COLOR = (47, 127, 214)  # a blue that stands out from white and from black


def heat_uri(matrix: Float[np.ndarray, "row column"], low: float, high: float) -> str:
    """The matrix as a PNG data URI: transparent at `low` and below, opaque at `high` and above."""
    from PIL import Image

    shares = np.clip((matrix - low) / (high - low), 0, 1)
    pixels = np.empty((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = _COLOR
    pixels[..., 3] = np.round(255 * shares)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return as_uri(stream.getvalue(), "png")


def fitted_range(values: Float[np.ndarray, " value"]) -> tuple[float, float]:
    """The range that holds all but the outermost hundredth of the values; wider than zero.

    >>> fitted_range(np.linspace(0, 1, 201))
    (0.005, 0.995)
    """
    low, high = (float(end) for end in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)
