"""How often each class is drawn in an epoch, and the order of an epoch in which some classes are drawn more often."""

import numpy as np
from jaxtyping import Float, Int, Int64, Shaped

# The number of draws of a class with n images is in proportion to n to this power.
_POWERS = {"uniform": 1.0, "sqrt": 0.5, "balanced": 0.0}


def drawn_shares(counts: Shaped[np.ndarray, "class"], sampling: str) -> Float[np.ndarray, "class"]:
    """The share of each class in what training sees, from its number or share of images; a class without images has 0.

    sampling: "uniform": every image alike; "balanced": every class alike; "sqrt": between them, by the root of the number of
    images.

    >>> drawn_shares(np.array([90, 10]), "sqrt").tolist()
    [0.75, 0.25]
    """
    sizes = np.where(counts > 0, np.where(counts > 0, counts, 1.0) ** _POWERS[sampling], 0.0)
    return sizes / max(sizes.sum(), 1e-12)


def sampled_order(
    seed: int, epoch: int, classes: Int[np.ndarray, "example"], sampling: str
) -> Int64[np.ndarray, "example"]:
    """As many images as there are, in random order, a function of seed and epoch: each class exactly by its share.

    classes: the class of each image; -1: none, such an image is drawn once. Shares of images are rounded by the largest
    remainder. No image of a class comes an (n + 1)-th time before all have come n times; the rest is drawn at random. The same
    on every host.
    """
    # Images without a label, as a class of their own behind the others.
    counts = np.bincount(classes[classes >= 0])
    draws = _draws(counts, sampling)
    if (classes < 0).any():
        counts, draws = (np.append(each, (classes < 0).sum()) for each in (counts, draws))
        classes = np.where(classes < 0, len(counts) - 1, classes)
    passes = -(-draws // np.maximum(counts, 1))[classes]  # that an image may need, rounded up
    candidates = np.repeat(np.arange(len(classes)), passes)
    number = np.arange(len(candidates)) - np.repeat(np.cumsum(passes) - passes, passes)
    random_bits = np.random.Philox(key=[seed, epoch]).random_raw(len(candidates) + len(classes))
    by_class = np.lexsort((random_bits[: len(candidates)], number, classes[candidates]))
    class_of = classes[candidates[by_class]]
    rank = np.arange(len(by_class)) - np.searchsorted(class_of, class_of)
    drawn = candidates[by_class[rank < draws[class_of]]]
    return drawn[np.argsort(random_bits[len(candidates) :], kind="stable")]


def _draws(counts: Int[np.ndarray, "class"], sampling: str) -> Int64[np.ndarray, "class"]:
    """The number of draws of each class in an epoch; they add up to the number of images."""
    exact = drawn_shares(counts, sampling) * counts.sum()
    draws = np.floor(exact).astype(np.int64)
    largest = np.argsort(draws - exact, kind="stable")[: counts.sum() - draws.sum()]
    draws[largest] += 1
    return draws
