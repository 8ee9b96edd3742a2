"""Labels that are a number, such as an age or a dose, as distributions over bins of its range."""

import itertools
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from gensupcon_jax.errors import UserError

_DEFAULT_WIDTH = 1 / 20  # of the range


class ValueBins(NamedTuple):
    """Equal bins from low to high, and the width of a label in them: a standard deviation in the unit of the values.

    Each value becomes the normal distribution around it, cut off at the ends of the range: label distribution learning (arXiv
    1611.01731). The cosine of two such labels is near exp(-(a - b)^2 / (4 width^2)): 0.78 at a distance of one width, 0.37 at
    two.

    >>> bins = ValueBins(low=0.0, high=4.0, num_bins=4, width=1.0)
    >>> bins.labels(np.array([2.0])).astype(float).round(2).tolist()
    [[0.14, 0.36, 0.36, 0.14]]
    """

    low: float
    high: float
    num_bins: int
    width: float

    @property
    def edges(self) -> Float[np.ndarray, "edge"]:
        """The ends of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, self.num_bins + 1)

    @property
    def centers(self) -> Float[np.ndarray, "bin"]:
        """The middle of each bin."""
        edges = self.edges
        return (edges[:-1] + edges[1:]) / 2

    @property
    def names(self) -> tuple[str, ...]:
        """The range of each bin, in words."""
        edges = [f"{edge:.6g}" for edge in self.edges]
        return tuple(f"{start} to {end}" for start, end in itertools.pairwise(edges))

    def labels(self, values: Float[np.ndarray, "example"]) -> Float[np.ndarray, "example bin"]:
        """The distribution of each value over the bins, float32; rows sum to 1.  values: low to high, else a UserError."""
        self.check(values, "the values")
        # Shares of the normal distribution between edges: its density at the centers would vanish where the width is small.
        below = scipy.special.ndtr((self.edges[None] - values[:, None].astype(np.float64)) / self.width)
        shares = np.diff(below, axis=1)
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)

    def expected(self, distributions: Float[np.ndarray, "example bin"]) -> Float[np.ndarray, "example"]:
        """The mean of each distribution over the bins, in the unit of the values."""
        return distributions.astype(np.float64) @ self.centers

    def check(self, values: Float[np.ndarray, "example"], where: str) -> None:
        """UserError for values that no bin covers."""
        outside = ~((values >= self.low) & (values <= self.high))  # also NaN
        if outside.any():
            first = int(np.argmax(outside))
            raise UserError(
                f"{where} lie outside the bins in {int(outside.sum())} of {len(values)} images, first {values[first]:g} in row "
                f"{first}; allowed: {self.low:g} to {self.high:g}; change dataset.value_range"
            )


def bins_for(
    values: Float[np.ndarray, "example"],
    *,
    num_bins: int,
    width: float | int | None = None,
    value_range: tuple[float | int, float | int] | None = None,
) -> ValueBins:
    """The bins for these values.

    width None: a twentieth of the range.  value_range None: from the smallest to the largest value.
    Raises UserError where all values are equal, and where bins are wider than twice the width, which would hide it.
    """
    low, high = (float(end) for end in (value_range or (values.min(), values.max())))
    if not low < high:
        raise UserError(f"all {len(values)} values are {low:g}; allowed: different values")
    found = ValueBins(low, high, num_bins, float(width or _DEFAULT_WIDTH * (high - low)))
    size = (high - low) / num_bins
    if size > 2 * found.width:
        fewest = int(np.ceil((high - low) / (2 * found.width)))
        raise UserError(
            f"dataset.num_bins is {num_bins}, so a bin is {size:g} wide, more than twice dataset.value_width {found.width:g}: "
            f"values in one bin would all be alike; allowed: {fewest} or more bins, or a larger width"
        )
    return found
