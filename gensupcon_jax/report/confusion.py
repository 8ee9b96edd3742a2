"""The confusion matrix of the test predictions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from gensupcon_jax.report.colors import NAMED_CLASSES
from gensupcon_jax.report.data import PREDICTORS, ReportData, class_names
from gensupcon_jax.report.heat import heat_uri
from gensupcon_jax.report.values import short


def confusion_section(data: ReportData) -> dict[str, Any] | str:
    """The matrix and its most frequent mistakes, or why they are not shown."""
    if data.test_labels is None or data.test_predictions is None or not len(data.test_labels):
        return "The run has no test predictions."
    names = class_names(data)
    counts = confusion_counts(data.test_labels, data.test_predictions, len(names))
    small = len(names) <= NAMED_CLASSES
    wrong = int(counts.sum() - np.trace(counts))
    block = math.ceil(len(names) / 200)
    return {
        "predictor": PREDICTORS[data.predictor],
        "rows": _cells(counts, names) if small else [],
        "names": [short(name, 12) for name in names] if small else [],
        "picture": "" if small else _blocked(counts, block),
        "pairs": confused_pairs(counts, names, 8 if small else 9),
        "small": small,
        "classes": len(names),
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


def _cells(counts: Int[np.ndarray, "class class"], names: Sequence[str]) -> list[dict[str, Any]]:
    """The matrix as rows of a table: counts, and how strong each is drawn (0..100)."""
    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    # With the square root, one mistake in a hundred is still visible.
    strength = np.round(100 * np.sqrt(counts / totals)).astype(int)
    return [
        {
            "name": short(name),
            "cells": [
                {
                    "count": int(count),
                    "strength": int(strength[row, column]),
                    "kind": "right" if row == column else "wrong",
                    "title": f"{short(name)} predicted as {short(names[column])}: {count}",
                }
                for column, count in enumerate(counts[row])
            ],
            "share": f"{100 * counts[row, row] / counts[row].sum():.0f} %" if counts[row].sum() else "",
        }
        for row, name in enumerate(names)
    ]


def _blocked(counts: Int[np.ndarray, "class class"], block: int) -> str:
    """The matrix as a picture, with `block` classes per cell where there are too many for the screen."""
    cells = math.ceil(len(counts) / block)
    padded = np.pad(counts, (0, cells * block - len(counts)))
    summed = padded.reshape(cells, block, cells, block).sum((1, 3))
    return heat_uri(np.sqrt(summed / np.maximum(summed.sum(1, keepdims=True), 1)), 0.0, 1.0)
