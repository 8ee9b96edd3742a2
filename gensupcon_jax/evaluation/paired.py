"""Paired comparison of two predictors on the same images, and of two methods over the same seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

SIGNIFICANT = 0.05  # p-values below it, and intervals of 1 - this
_NORMAL = 1.959964  # the two-sided 95 % quantile


class Paired(NamedTuple):
    """Two predictors on the same images: the exact McNemar test, and the difference of their accuracies.

    only_first, only_second: number of images that only this one classifies correctly.  p_value: of no difference, two-sided.
    difference: accuracy of the first minus that of the second, in points (-100..100).  low, high: its 95 % interval.
    """

    only_first: int
    only_second: int
    num_images: int
    p_value: float
    difference: float
    low: float
    high: float


def compare_on_images(first: Bool[np.ndarray, "image"], second: Bool[np.ndarray, "image"]) -> Paired:
    """Compare two predictors by which images each classifies correctly.

    The test is McNemar's in its exact form (Psychometrika 1947): under no difference, the images that only one of the two gets
    right are tosses of a coin. The interval is that of Agresti and Min (Statistics in Medicine 2005), which adds half an image
    to each of the four cells.

        compare_on_images(predictions_a == labels, predictions_b == labels).p_value
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    num = len(first)
    difference = (only_first - only_second + 0.0) / num
    # With half an image more in each cell.
    total = num + 2
    center, discordant = (only_first - only_second) / total, (only_first + only_second + 1) / total
    half = _NORMAL * math.sqrt(max(0.0, discordant - center**2) / total)
    low, high = max(-1.0, center - half), min(1.0, center + half)
    p_value = coin_p_value(only_first, only_second)
    return Paired(only_first, only_second, num, p_value, 100 * difference, 100 * low, 100 * high)


def coin_p_value(heads: int, tails: int) -> float:
    """The two-sided probability of tosses of a fair coin that are at least as uneven; 1 without tosses."""
    from scipy.stats import binomtest

    return float(binomtest(heads, heads + tails, 0.5).pvalue) if heads + tails else 1.0


class Spread(NamedTuple):
    """Mean and standard deviation (of the sample: n - 1; NaN for one value) of `count` values."""

    mean: float
    deviation: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of some values, at least one."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation, len(values))


class Interval(NamedTuple):
    """A difference of means with its 95 % interval and its two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def compare_over_seeds(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The paired t-interval of the differences first - second, one per seed; two or more.

    Where all differences are equal, the interval has no width and the p-value is 0 (1 if they are zero).
    """
    from scipy.stats import t

    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    mean, deviation, count = spread(differences.tolist())
    error = deviation / math.sqrt(count)
    half = float(t.ppf(1 - SIGNIFICANT / 2, count - 1)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return Interval(mean, mean - half, mean + half, p_value)


def adjusted_p_values(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests (Scandinavian Journal of Statistics 1979), in the given order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
