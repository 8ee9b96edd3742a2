"""Calibration of a classifier: how far its confidence is from its accuracy."""

import numpy as np
from jaxtyping import Float, Int

BINS = 15  # of Guo et al.


def expected_calibration_error(
    probabilities: Float[np.ndarray, "image class"], classes: Int[np.ndarray, "image"], bins: int = BINS
) -> float:
    """The expected calibration error, in percent: 0 where of the images with confidence p a share p is right.

    The confidence of an image is the probability of its most likely class. Images are put into bins of equal width,
    bin b of `bins` for (b - 1) / bins < confidence <= b / bins; the error is the mean over images of the difference of their
    bin, sum over b of n_b / n * |accuracy_b - mean confidence_b| (Guo et al., arXiv 1706.04599).

    >>> probabilities = np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    >>> round(expected_calibration_error(probabilities, np.array([0, 1])), 1)
    40.0
    """
    confidences = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == classes
    numbers = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(numbers, weights=right - confidences, minlength=bins)
    return 100.0 * float(np.abs(surplus).sum()) / len(classes)
