"""The map: the test embeddings in two dimensions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from gensupcon_jax.report.colors import NAMED_CLASSES, class_shape, class_style
from gensupcon_jax.report.data import ReportData, class_names, label_things
from gensupcon_jax.report.nearest import unit_rows
from gensupcon_jax.report.thumbnails import sheet_uri
from gensupcon_jax.report.values import ending, short

SCATTER_POINTS = 1500  # t-SNE of more points takes too long
MAP_SIDE = 640
_MARGIN = 28
_TILE = 32  # pixels of the pictures that appear over the points


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
    # Where every class has its own color, the sheet of views uses the same one.
    places = {int(index): int(index) if len(names) <= NAMED_CLASSES else place for place, index in enumerate(shown)}
    drawn = map_points(points, labels[kept], places)
    return {
        "points": [point | _about(data, names, int(kept[point["row"]])) for point in drawn],
        "cluster_names": _cluster_names(drawn, labels[kept], places, names),
        "side": MAP_SIDE,
        "sheet": _sheet(data, kept),
        "legend": [_legend_entry(names[index], place, labels[kept] == index) for index, place in places.items()],
        "method": method,
        "count": len(kept),
        "total": len(labels),
        "classes": len(np.unique(labels)),
        "things": label_things(data),
        "radius": 5 if len(kept) <= 600 else 3.6,
    }


def _about(data: ReportData, names: Sequence[str], number: int) -> dict[str, Any]:
    """What the page says about a point: class, prediction where it is wrong, and file."""
    assert data.test_labels is not None
    label, test = int(data.test_labels[number]), data.splits.get("test")
    predicted = None if data.test_predictions is None else int(data.test_predictions[number])
    file = test.title_of(number) if test else f"image {number}"
    mistake = "" if predicted in (None, label) else f", predicted {short(names[predicted])}"
    return {"text": f"{short(names[label])}{mistake}", "file": ending(file), "wrong": bool(mistake)}


def _sheet(data: ReportData, kept: Int[np.ndarray, " point"]) -> dict[str, Any] | None:
    """The pictures of all points on one sheet."""
    test = data.splits.get("test")
    if test is None:
        return None
    uri, columns, tile = sheet_uri(test.images_fn(kept), _TILE)
    return {"uri": uri, "columns": columns, "tile": tile}


def _legend_entry(name: str, place: int, members: Bool[np.ndarray, " point"]) -> dict[str, Any]:
    return {
        "name": short(name),
        "style": class_style(place),
        "shape": class_shape(place),
        "count": int(members.sum()),
    }


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
        perplexity, rounds = min(30.0, (count - 1) / 3), 750 if count <= 600 else 500
        model = TSNE(init="pca", perplexity=perplexity, max_iter=rounds, random_state=0)
        return model.fit_transform(units.astype(np.float32)), "t-SNE"


def map_points(
    points: Float[np.ndarray, "point 2"], labels: Integer[np.ndarray, " point"], places: dict[int, int]
) -> list[dict[str, Any]]:
    """Position, shape and color of each point in the square of MAP_SIDE, gray ones first so that they lie below."""
    low, high = points.min(0), points.max(0)
    scale = (MAP_SIDE - 2 * _MARGIN) / max(float((high - low).max()), 1e-9)
    placed = MAP_SIDE / 2 + scale * (points - (low + high) / 2)
    order = sorted(range(len(points)), key=lambda row: int(labels[row]) in places)
    drawn = []
    for row in order:
        place = places.get(int(labels[row]))
        drawn.append(
            {
                "row": row,
                "x": round(float(placed[row, 0]), 1),
                "y": round(float(placed[row, 1]), 1),
                "shape": "dot" if place is None else class_shape(place),
                "style": "others" if place is None else class_style(place),
            }
        )
    return drawn


def _cluster_names(
    drawn: Sequence[dict[str, Any]],
    labels: Integer[np.ndarray, " point"],
    places: dict[int, int],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """The name of each colored class at its medoid."""
    spots = {each["row"]: (each["x"], each["y"]) for each in drawn}
    clusters = {index: np.array([spots[row] for row in np.flatnonzero(labels == index)]) for index in places}
    medoids = {index: _medoid(cluster) for index, cluster in clusters.items() if len(cluster)}
    return [
        {"name": short(names[index], 16), "x": float(spot[0]), "y": float(spot[1])} for index, spot in medoids.items()
    ]


def _medoid(points: Float[np.ndarray, "point 2"]) -> np.ndarray:
    """The point with the smallest sum of distances to the others; unlike the mean, it is never between two clusters."""
    return points[np.linalg.norm(points[:, None] - points[None], axis=-1).sum(1).argmin()]
