"""Which of two methods is better: differences paired over seeds and test images, with bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

_DRAWS = 4_000


class Difference(NamedTuple):
    """First minus second, its 95 % interval, and over how many seeds and images it was taken (0: of no images)."""

    value: float
    low: float
    high: float
    num_seeds: int
    num_images: int = 0

    def is_shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def difference_of_images(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Difference:
    """The difference of two accuracies in points, from booleans [image] of each seed.

    Seeds and test images are drawn again with replacement, the same images for every seed and both methods.
    """
    pairs = 100.0 * (np.stack(first).astype(float) - np.stack(second).astype(float))
    num_seeds, num_images = pairs.shape
    draws = np.random.default_rng(0)
    means = np.empty(_DRAWS)
    for number in range(_DRAWS):
        seeds = draws.integers(0, num_seeds, num_seeds)
        counts = np.bincount(draws.integers(0, num_images, num_images), minlength=num_images)
        means[number] = (pairs[seeds].mean(0) @ counts) / num_images
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(pairs.mean()), float(low), float(high), num_seeds, num_images)


def difference_of_numbers(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The mean difference of two numbers per seed, with Student's interval; a single seed has none, so nothing is shown.

    Three numbers drawn again would exclude 0 wherever all have one sign, which is so for a quarter of equal methods.
    """
    pairs = np.asarray(first, float) - np.asarray(second, float)
    mean, count = float(pairs.mean()), len(pairs)
    if count == 1:
        return Difference(mean, -np.inf, np.inf, count)
    half = float(student.ppf(0.975, count - 1) * pairs.std(ddof=1) / np.sqrt(count))
    return Difference(mean, mean - half, mean + half, count)


def in_words(first: str, second: str, by_budget: Sequence[tuple[float, Difference]], *, lower_is_better: bool) -> str:
    """One sentence on a pair of methods at all budgets, from which each `is_shown`: where which one is better, and by how much.

    by_budget: (epochs, first minus second).
    """
    found: dict[str, list[str]] = {}
    for budget, difference in by_budget:
        at = f"{budget:g} epochs"
        if not difference.is_shown():
            found.setdefault("not told apart from", []).append(at)
        else:
            word = "better than" if (difference.value < 0) == lower_is_better else "worse than"
            found.setdefault(word, []).append(f"{at} ({difference.value:+.2f})")
    parts = [f"{word} {second} at {_listed(places)}" for word, places in found.items()]
    return f"{first} is {', '.join(parts)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(first: str, second: str, measured: str, difference: Difference, *, lower_is_better: bool = False) -> str:
    """What a difference says, in words whose truth follows from the interval."""
    value, low, high = difference.value, difference.low, difference.high
    numbers = f"{value:+.2f} [{low:+.2f}, {high:+.2f}], {difference.num_seeds} seed{'s' * (difference.num_seeds > 1)}"
    if not difference.is_shown():
        return f"no difference is shown between {first} and {second} in {measured} ({numbers})"
    better, worse = (first, second) if (value < 0) == lower_is_better else (second, first)
    return f"{better} is better than {worse} in {measured} ({first} minus {second}: {numbers})"
