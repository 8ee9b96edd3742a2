"""The part of an image that an evaluation sees: the centered square of a share of its shorter side."""

import numpy as np
from jaxtyping import Int

USUAL_SHARE = 0.875  # 224 of 256 pixels
WHOLE = 1.0


def center_share_of(
    given: float | int | None, sizes: Int[np.ndarray, "image height_width=2"], image_size: int
) -> float:
    """The share of `dataset.center_share`; None: 1 where all images are squares of the network's input, else 0.875.

    sizes: of the upright images, in pixels.

    >>> center_share_of(None, np.array([[32, 32], [32, 32]]), 32), center_share_of(None, np.array([[375, 500]]), 224)
    (1.0, 0.875)
    """
    if given is not None:
        return float(given)
    return WHOLE if bool((sizes == image_size).all()) else USUAL_SHARE
