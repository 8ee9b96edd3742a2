"""Section 4: the confusion matrix of the test predictions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from gensupcon_jax.report.data import PREDICTORS, ReportData, class_names
from gensupcon_jax.report.drawing import GRID, INK, NAMED_CLASSES, drawable_name, new_figure, png
from gensupcon_jax.report.values import short


def confusion_section(data: ReportData) -> dict[str, Any] | str:
    """The matrix and its most frequent mistakes, or why they are not shown."""
    if data.test_labels is None or data.test_predictions is None or not len(data.test_labels):
        return "The run has no test predictions."
    names = class_names(data)
    counts = confusion_counts(data.test_labels, data.test_predictions, len(names))
    drawn = [drawable_name(name, index) for index, name in enumerate(names)]
    small = len(names) <= NAMED_CLASSES
    wrong = int(counts.sum() - np.trace(counts))
    block = math.ceil(len(names) / 200)
    return {
        "predictor": PREDICTORS[data.predictor],
        "picture": _small_confusion_picture(counts, drawn) if small else _large_confusion_picture(counts, block),
        "pairs": confused_pairs(counts, names, 8 if small else 9),
        "small": small,
        "long": len(names) > 12,
        "block": block,
        "wrong": wrong,
        "total": int(counts.sum()),
        "accuracy": f"{100 * (1 - wrong / counts.sum()):.1f}",
    }


def confusion_counts(
    labels: Integer[np.ndarray, " test"], predictions: Integer[np.ndarray, " test"], classes: int
) -> Int[np.ndarray, "class class"]:
    """Number of images of each class (row) that were predicted as each class (column)."""
    return np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes**2).reshape(classes, classes)


def confused_pairs(counts: Int[np.ndarray, "class class"], names: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The most frequent mistakes, largest first."""
    mistakes = counts - np.diag(np.diag(counts))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(place), len(counts)) for place in order if mistakes.flat[place]]
    return [
        {
            "truth": short(names[truth]),
            "prediction": short(names[prediction]),
            "count": int(counts[truth, prediction]),
            "of": int(counts[truth].sum()),
        }
        for truth, prediction in pairs
    ]


def _small_confusion_picture(counts: Int[np.ndarray, "class class"], names: Sequence[str]) -> str:
    """Counts in cells, correct ones blue, mistakes orange, with the accuracy of each class at the right: PNG as a data URI."""
    classes = len(names)
    side = min(7.4, max(4.2, 2.0 + 0.42 * classes))
    figure = new_figure(side + 0.6, side)
    axes = figure.add_subplot()
    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    # With the square root, one mistake in a hundred is still visible.
    shade = np.sqrt(counts / totals)
    right = np.eye(classes, dtype=bool)
    axes.imshow(np.ma.masked_where(~right, shade), cmap="Blues", vmin=0, vmax=1.25)
    axes.imshow(np.ma.masked_where(right | (counts == 0), shade), cmap="Oranges", vmin=-0.15, vmax=0.9)
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = shade[row, column] > (0.75 if row == column else 0.55)
        color, size = "w" if dark else INK, 9 if classes <= 12 else 7.5
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=size, color=color)
    axes.set_xticks(range(classes), names, rotation=0 if max(map(len, names)) <= 2 else 90)
    axes.set_yticks(range(classes), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("true class")
    _cell_lines(axes, classes)
    shares = [f"{100 * counts[i, i] / counts[i].sum():.0f} %" if counts[i].sum() else "" for i in range(classes)]
    right_axis = axes.secondary_yaxis("right")
    right_axis.set_yticks(range(classes), shares, fontsize=9)
    right_axis.tick_params(length=0)
    right_axis.set_ylabel("accuracy", rotation=270, va="bottom")
    right_axis.spines["right"].set_visible(False)
    return png(figure)


def _cell_lines(axes: Any, classes: int) -> None:
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for line in axes.spines.values():
        line.set_visible(False)


def _large_confusion_picture(counts: Int[np.ndarray, "class class"], block: int) -> str:
    """The matrix as an image, with `block` classes per cell where there are too many for the screen: PNG as a data URI."""
    classes = len(counts)
    cells = math.ceil(classes / block)
    padded = np.pad(counts, (0, cells * block - classes))
    summed = padded.reshape(cells, block, cells, block).sum((1, 3))
    shade = np.sqrt(summed / np.maximum(summed.sum(1, keepdims=True), 1))
    figure = new_figure(6.4, 5.6)
    axes = figure.add_subplot()
    edges = (-0.5, cells * block - 0.5)
    image = axes.imshow(shade, cmap="YlOrBr", vmin=0, vmax=1, extent=(*edges, *edges[::-1]), interpolation="nearest")
    axes.set_xlabel("prediction (class number)")
    axes.set_ylabel("true class (class number)")
    shares = (0, 0.01, 0.1, 0.25, 0.5, 1)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, ticks=np.sqrt(shares))
    bar.set_ticklabels([f"{100 * share:g} %" for share in shares])
    bar.set_label("share of the true class", fontsize=9)
    bar.outline.set_visible(False)
    return png(figure)
