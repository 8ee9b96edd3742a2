"""The images of a split as the report shows them: on request, with the names of their files."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from gensupcon_jax.report.values import clean


class PicturedSplit(NamedTuple):
    """The labels of a split, and its images on request.

    classes: the label of each image.  images_fn: numbers [some] -> these images as the evaluation sees them, uint8
    [some, height, width, channel].  name_fn: number -> file of the image; None: it has none.
    """

    classes: Integer[np.ndarray, " image"]
    images_fn: Callable[[np.ndarray], np.ndarray]
    name_fn: Callable[[int], str] | None = None

    def name_of(self, number: int) -> str:
        """The file of this image; empty if it has none."""
        return clean(self.name_fn(int(number))) if self.name_fn else ""

    def title_of(self, number: int) -> str:
        """The file of this image, or its number."""
        return self.name_of(number) or f"image {number}"
