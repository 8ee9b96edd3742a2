"""Near-duplicates across splits: images whose features and pixels both agree."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax.report.nearest import Nearest, nearest_images
from gensupcon_jax.report.pictured import PicturedSplit
from gensupcon_jax.report.thumbnails import small_images

LEAST_COSINE = 0.99
LEAST_CORRELATION = 0.99  # two different digits of one class reach 0.989
MOST_DIFFERENCE = 8.0  # of 255, root mean square; two different digits have 16 or more, JPEG at quality 75 about 6
_FLAT = 1.0  # standard deviation of a picture without contrast
_SIDE = 32  # of the compared pixels
_ASKED_NEIGHBORS = 5
_MOST_CANDIDATES = 2000  # of one pair of splits, the most similar features first: each may have to be decoded


class NearDuplicate(NamedTuple):
    """Two images of different splits that agree; difference: of their pixels, 0..255, root mean square."""

    splits: tuple[str, str]
    images: tuple[int, int]
    cosine: float
    difference: float


def near_duplicates(
    splits: dict[str, PicturedSplit], features: dict[str, np.ndarray], among_train: dict[str, Nearest]
) -> list[NearDuplicate]:
    """The near-duplicates of every two splits, the most similar pixels first.

    Features of one class can be almost equal without being of one picture, so that pixels decide.
    """
    found = []
    for first, second in itertools.combinations(splits, 2):
        among = None if first == "train" else nearest_images(features[second], features[first], _ASKED_NEIGHBORS)
        found += _agreeing(splits, (second, first), among or among_train[second])
    return sorted(found, key=lambda pair: (pair.difference, pair.splits, pair.images))


def _agreeing(splits: dict[str, PicturedSplit], names: tuple[str, str], nearest: Nearest) -> list[NearDuplicate]:
    cosines = nearest.cosines[:, :_ASKED_NEIGHBORS]
    places, ranks = np.nonzero(cosines >= LEAST_COSINE)
    order = np.argsort(-cosines[places, ranks], kind="stable")[:_MOST_CANDIDATES]
    places, ranks = places[order], ranks[order]
    if not len(places):
        return []
    numbers = nearest.queries[places], nearest.stored[places, ranks]
    pixels = [_pixels(splits[name], of_split) for name, of_split in zip(names, numbers, strict=True)]
    differences, is_same = agreement(*pixels)
    return [
        NearDuplicate(
            names, (int(numbers[0][row]), int(numbers[1][row])), float(cosines[places[row], ranks[row]]), float(differences[row])
        )
        for row in np.flatnonzero(is_same)
    ]  # fmt: skip


def _pixels(split: PicturedSplit, numbers: np.ndarray) -> np.ndarray:
    unique, places = np.unique(numbers, return_inverse=True)
    return small_images(split.images_fn(unique), _SIDE)[places]


def agreement(
    first: UInt8[np.ndarray, "pair height width channel"], second: UInt8[np.ndarray, "pair height width channel"]
) -> tuple[Float[np.ndarray, " pair"], np.ndarray]:
    """The root mean square difference of the pixels of each pair, 0..255, and whether they show the same picture.

    They do if the difference is at most MOST_DIFFERENCE and the correlation at least LEAST_CORRELATION; pictures without
    contrast, whose correlation means nothing, must be equal to one value in 255.
    """
    rows = [images.reshape(len(images), -1).astype(np.float32) for images in (first, second)]
    differences = np.sqrt(np.square(rows[0] - rows[1]).mean(1))
    centered = [row - row.mean(1, keepdims=True) for row in rows]
    deviations = [np.sqrt(np.square(row).mean(1)) for row in centered]
    correlation = (centered[0] * centered[1]).mean(1) / np.maximum(deviations[0] * deviations[1], 1e-6)
    has_contrast = np.minimum(*deviations) >= _FLAT
    close = (differences <= MOST_DIFFERENCE) & (correlation >= LEAST_CORRELATION)
    return differences, np.where(has_contrast, close, differences <= 1.0)
