"""The table of classes: images, precision, recall and F1 of each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from gensupcon_jax.report.confusion import confusion_counts
from gensupcon_jax.report.data import PREDICTORS, ReportData, class_names
from gensupcon_jax.report.values import short

_LISTED = 20  # classes that the page shows at once; the others are one click away


class ClassScores(NamedTuple):
    """Scores of one class, 0..1; None where they are not defined: no image has, or no prediction names, the class."""

    images: int
    precision: float | None
    recall: float | None
    f1: float | None


def classes_section(data: ReportData) -> dict[str, Any] | str:
    """The table, or why it is not shown."""
    if data.test_labels is None or data.test_predictions is None or not len(data.test_labels):
        return "The run has no test predictions."
    names = class_names(data)
    scores = class_scores(confusion_counts(data.test_labels, data.test_predictions, len(names)))
    rows = [_row(name, score) for name, score in zip(names, scores, strict=True)]
    order = weakest_first(scores)
    return {
        "predictor": PREDICTORS[data.predictor],
        "rows": rows if len(rows) <= _LISTED else [rows[place] for place in order[:_LISTED]],
        "all_rows": rows if len(rows) > _LISTED else [],
        "mean": _row("mean of the classes", macro_average(scores)),
    }


def class_scores(counts: Int[np.ndarray, "class class"]) -> list[ClassScores]:
    """The scores of each class from the confusion counts (rows: true class)."""
    right, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    return [
        ClassScores(
            int(images),
            int(hits) / int(named) if named else None,
            int(hits) / int(images) if images else None,
            2 * int(hits) / int(images + named) if images + named else None,
        )
        for hits, images, named in zip(right, actual, predicted, strict=True)
    ]


def macro_average(scores: Sequence[ClassScores]) -> ClassScores:
    """The mean over the classes that have test images; a precision that is not defined counts as 0."""
    present = [score for score in scores if score.images]
    means = [float(np.mean([getattr(score, name) or 0.0 for score in present])) for name in ClassScores._fields[1:]]
    return ClassScores(sum(score.images for score in scores), *means)


def weakest_first(scores: Sequence[ClassScores]) -> list[int]:
    """The classes that have test images in order of F1, the lowest first."""
    present = [place for place, score in enumerate(scores) if score.images]
    return sorted(present, key=lambda place: scores[place].f1 or 0.0)


def _row(name: str, score: ClassScores) -> dict[str, Any]:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    return {
        "name": short(name),
        "images": f"{score.images:,}",
        "precision": percent(score.precision),
        "recall": percent(score.recall),
        "f1": percent(score.f1),
        "bar": round(100 * (score.f1 or 0.0)),
    }
