"""Suspicious labels: images whose neighbors by features agree on a label that is not theirs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from gensupcon_jax.report.nearest import Nearest
from gensupcon_jax.report.pictured import PicturedSplit

LEAST_SHARE = 0.6
_FEWEST_NEIGHBORS = 3


class SuspiciousLabel(NamedTuple):
    """An image whose label its neighbors contradict.

    image: its number in the split.  neighbors_label: the most frequent among its neighbors.  share: of the neighbors, with
    this label.  cosine: mean of the neighbors.  neighbors: numbers of training images, the nearest first.
    """

    split: str
    image: int
    label: int
    neighbors_label: int
    share: float
    cosine: float
    neighbors: Int[np.ndarray, " neighbor"]


def suspicious_labels(splits: dict[str, PicturedSplit], among_train: dict[str, Nearest]) -> list[SuspiciousLabel]:
    """The suspicious labels of all splits, the clearest first: by share, then by similarity of the neighbors.

    among_train: of each split, the nearest training images; of training images, the nearest others.
    An image of a class with few training images asks fewer neighbors, as it cannot have many of its own class.
    """
    found = []
    stored = splits["train"].classes
    for name, nearest in among_train.items():
        if not nearest.stored.shape[1]:
            continue
        labels = splits[name].classes[nearest.queries]
        kept = _neighbors_to_ask(stored[nearest.among], labels, nearest.stored.shape[1], is_itself=name == "train")
        winners, shares = most_frequent(stored[nearest.stored], kept)
        for place in np.flatnonzero((winners != labels) & (shares >= LEAST_SHARE - 1e-9)):
            neighbors = nearest.stored[place, : kept[place]]
            found.append(
                SuspiciousLabel(
                    name, int(nearest.queries[place]), int(labels[place]), int(winners[place]), float(shares[place]),
                    float(nearest.cosines[place, : kept[place]].mean()), neighbors,
                )
            )  # fmt: skip
    return sorted(found, key=lambda each: (-each.share, -each.cosine))


def most_frequent(
    labels: Integer[np.ndarray, "image neighbor"], kept: Int[np.ndarray, " image"]
) -> tuple[Integer[np.ndarray, " image"], np.ndarray]:
    """The most frequent label among the first `kept` neighbors, that of the nearer one in a tie, and its share (0..1)."""
    asked = np.arange(labels.shape[1]) < kept[:, None]
    counts = ((labels[:, :, None] == labels[:, None]) & asked[:, None]).sum(2) * asked
    first = counts.argmax(1)[:, None]
    return np.take_along_axis(labels, first, 1)[:, 0], np.take_along_axis(counts, first, 1)[:, 0] / kept


def _neighbors_to_ask(
    stored: Integer[np.ndarray, " stored"], labels: Integer[np.ndarray, " image"], most: int, *, is_itself: bool
) -> Int[np.ndarray, " image"]:
    counts = np.bincount(stored, minlength=int(labels.max()) + 1)[labels] - is_itself
    return np.clip(counts, min(_FEWEST_NEIGHBORS, most), most)
