"""Section 3: the test embeddings in two dimensions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from gensupcon_jax.report.data import ReportData, class_names
from gensupcon_jax.report.drawing import (
    INK,
    NAMED_CLASSES,
    OTHERS,
    class_color,
    class_mark,
    drawable_name,
    halo,
    new_figure,
    png,
)
from gensupcon_jax.report.values import short

SCATTER_POINTS = 2000  # t-SNE of more points takes too long


def scatter_section(data: ReportData) -> dict[str, Any] | str:
    """The picture and its legend, or why they are not shown."""
    embeddings, labels = data.test_embeddings, data.test_labels
    if embeddings is None or labels is None or len(embeddings) == 0:
        return "The run has no test embeddings with their classes."
    if not np.isfinite(embeddings).all():
        return "The test embeddings contain values that are not finite: the run has diverged."
    shown = drawn_classes(labels)
    kept = scatter_rows(labels, shown)
    if np.ptp(unit_rows(embeddings[kept]), axis=0).max() < 1e-6:
        if len(kept) == 1:
            return "There is only one test embedding."
        return "All test embeddings are equal: the encoder has collapsed."
    points, method = flat_view(embeddings[kept])
    names = class_names(data)
    # Where every class has its own color, section 5 uses the same one.
    places = {int(index): int(index) if len(names) <= NAMED_CLASSES else place for place, index in enumerate(shown)}
    return {
        "picture": _scatter_picture(points, labels[kept], places, names),
        "legend": [_legend_entry(names[index], place, labels[kept] == index) for index, place in places.items()],
        "method": method,
        "points": len(kept),
        "total": len(labels),
        "classes": len(np.unique(labels)),
        "long": len(shown) > 12,
    }


def _legend_entry(name: str, place: int, members: Bool[np.ndarray, " point"]) -> dict[str, Any]:
    mark = {"o": "●", "^": "▲"}[class_mark(place)]
    return {"name": short(name), "color": class_color(place), "mark": mark, "count": int(members.sum())}


def drawn_classes(labels: Integer[np.ndarray, " test"]) -> Integer[np.ndarray, " shown"]:
    """The classes with a color: all, or some evenly spaced ones where there are too many."""
    present = np.unique(labels)
    places = np.linspace(0, len(present) - 1, min(len(present), NAMED_CLASSES)).round().astype(int)
    return present[places]


def scatter_rows(
    labels: Integer[np.ndarray, " test"], shown: Integer[np.ndarray, " shown"]
) -> Int[np.ndarray, " point"]:
    """At most SCATTER_POINTS rows, drawn with a fixed seed; gray classes, if there are any, get half of them."""
    if len(labels) <= SCATTER_POINTS:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(0).permutation(len(labels))
    colored = shuffled[np.isin(labels[shuffled], shown)]
    if len(shown) < len(np.unique(labels)):
        first = colored[: SCATTER_POINTS // 2]
        shuffled = np.concatenate([first, shuffled[~np.isin(labels[shuffled], shown)]])
    return np.sort(shuffled[:SCATTER_POINTS])


def flat_view(embeddings: Float[np.ndarray, "point dim"]) -> tuple[Float[np.ndarray, "point 2"], str]:
    """The embeddings in 2-D, and the method: t-SNE, or PCA for fewer than 10 points."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # The encoder is trained on cosines; on unit rows the Euclidean distance gives the same order of pairs.
    units = unit_rows(embeddings)
    count, dim = units.shape
    if count < 10 or dim < 3:
        points = PCA(n_components=min(2, count, dim), random_state=0).fit_transform(units)
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), "PCA"
    # One thread: on a busy machine scikit-learn's threads wait for each other (360 points on 2 busy cores took 27 s with
    # two threads and 1.6 s with one).
    with threadpool_limits(1):
        if min(count, dim) > 50:
            units = PCA(n_components=50, random_state=0).fit_transform(units)
        perplexity, rounds = min(30.0, (count - 1) / 3), 1000 if count <= 1000 else 500
        model = TSNE(init="pca", perplexity=perplexity, max_iter=rounds, random_state=0)
        return model.fit_transform(units.astype(np.float32)), "t-SNE"


def unit_rows(rows: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Rows of length 1; a zero row stays zero."""
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _scatter_picture(
    points: Float[np.ndarray, "point 2"],
    labels: Integer[np.ndarray, " point"],
    places: dict[int, int],
    names: Sequence[str],
) -> str:
    """The points colored by class, each class named at its medoid: PNG as a data URI."""
    figure = new_figure(7.2, 6.2)
    axes = figure.add_subplot()
    axes.scatter(*points[~np.isin(labels, list(places))].T, s=8, color=OTHERS, linewidths=0)
    size = 30 if len(points) <= 1000 else 16
    clusters = {index: points[labels == index] for index in places if (labels == index).any()}
    for index, cluster in clusters.items():
        color, mark = class_color(places[index]), class_mark(places[index])
        axes.scatter(*cluster.T, s=size, color=color, marker=mark, linewidths=0.3, edgecolors="w")
    for index, cluster in clusters.items():
        label = axes.annotate(
            drawable_name(names[index], index), _medoid(cluster), ha="center", va="center", weight="bold", color=INK,
            fontsize=12 if len(places) <= 10 else 8.5, path_effects=halo(3.2), annotation_clip=False,
            xytext=(0, 0 if len(names[index]) <= 3 else 12), textcoords="offset points",
        )  # fmt: skip
        # Otherwise the layout shrinks the axes for a name beyond them, which moves the name again.
        label.set_in_layout(False)
    axes.margins(0.09)
    axes.set_axis_off()
    return png(figure)


def _medoid(points: Float[np.ndarray, "point 2"]) -> np.ndarray:
    """The point with the smallest sum of distances to the others; unlike the mean, it is never between two clusters."""
    return points[np.linalg.norm(points[:, None] - points[None], axis=-1).sum(1).argmin()]
