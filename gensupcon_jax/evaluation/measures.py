"""Measures of frozen features other than k-NN and the probe: the table of the names in `evaluate.measures`.

A measure is a function of the features and classes of one split. Its value appears in the metrics of every evaluation (on the
validation split), in the results (on the test split) and in the report:

    from gensupcon_jax.evaluation.measures import MEASURES

    MEASURES["feature_norm"] = lambda features: float(np.linalg.norm(features.values, axis=1).mean())
    config.evaluate.measures = ("feature_norm",)
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from gensupcon_jax.evaluation.features import Features

_TILE = 1024  # queries at a time: the cosines of a large split would not fit in memory


def recall_at_1(features: Features) -> float:
    """Share of images, in percent, whose nearest other image of the split is of the same class (image retrieval's R@1)."""
    return _recall(features, 1)


def recall_at_10(features: Features) -> float:
    """Share of images, in percent, that have an image of their class among their 10 nearest others (image retrieval's R@10)."""
    return _recall(features, 10)


def mean_average_precision(features: Features) -> float:
    """Mean over images of the average precision of the other images, ranked by cosine, in percent (retrieval's mAP).

    Images that are the only one of their class are left out; 0 if that leaves none.
    """
    precisions = [_average_precision(ranked) for rows in _ranked_matches(features) for ranked in rows if ranked.any()]
    return 100.0 * float(np.mean(precisions)) if precisions else 0.0


MEASURES: dict[str, Callable[[Features], float]] = {
    "recall_at_1": recall_at_1,
    "recall_at_10": recall_at_10,
    "mean_average_precision": mean_average_precision,
}


def measured(names: Sequence[str], features: Features) -> dict[str, float]:
    """The value of each of these measures for one split's features."""
    return {name: float(MEASURES[name](features)) for name in names}


def _recall(features: Features, most: int) -> float:
    """Share of images, in percent, with an image of their class among the `most` nearest others."""
    found = [rows[:, :most].any(axis=1) for rows in _ranked_matches(features)]
    return 100.0 * float(np.mean(np.concatenate(found)))


def _ranked_matches(features: Features) -> Iterator[Bool[np.ndarray, "query other"]]:
    """For each image, whether each other image is of its class, the most similar first; in tiles of queries.

    With several labels per image: whether it has a label in common with it; where labels are numbers: whether its number lies in
    the same bin.
    """
    unit = features.values / np.maximum(np.linalg.norm(features.values, axis=1, keepdims=True), 1e-12)
    for start in range(0, len(unit), _TILE):
        queries = np.arange(start, min(start + _TILE, len(unit)))
        cosines = unit[queries] @ unit.T
        cosines[np.arange(len(queries)), queries] = -np.inf  # an image is not its own neighbor
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
        if features.targets is None or features.targets.ndim == 1:
            yield features.classes[order] == features.classes[queries, None]
        else:
            yield np.take_along_axis(features.rows[queries] @ features.rows.T > 0, order, axis=1)


def _average_precision(ranked: Bool[np.ndarray, "other"]) -> float:
    places = np.flatnonzero(ranked) + 1
    return float(np.mean(np.arange(1, len(places) + 1) / places))
