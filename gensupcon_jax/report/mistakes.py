"""Mistakes as pictures: the wrong predictions of test images, the most confident first."""

from typing import Any

import numpy as np
from jaxtyping import Int

from gensupcon_jax.report.data import PREDICTORS, ReportData, class_names
from gensupcon_jax.report.thumbnails import pictures_of
from gensupcon_jax.report.values import ending, short

_SHOWN = 24


def mistakes_section(data: ReportData) -> dict[str, Any] | str:
    """The pictures, or why they are not shown."""
    labels, predictions, test = data.test_labels, data.test_predictions, data.splits.get("test")
    if labels is None or predictions is None or not len(labels):
        return "The run has no test predictions."
    if test is None:
        return "The run has no test images at hand."
    order = ordered_mistakes(data)
    names, shown = class_names(data), order[:_SHOWN].tolist()
    pictures = pictures_of(test, shown)
    confidences = data.test_confidences
    return {
        "predictor": PREDICTORS[data.predictor],
        "count": len(order),
        "total": len(labels),
        "ranked": confidences is not None,
        "pictures": [
            {
                "picture": pictures[number],
                "name": test.title_of(number),
                "file": ending(test.title_of(number)),
                "label": short(names[labels[number]]),
                "prediction": short(names[predictions[number]]),
                "percent": None if confidences is None else f"{100 * confidences[number]:.0f}",
            }
            for number in shown
        ],
    }


def ordered_mistakes(data: ReportData) -> Int[np.ndarray, " mistake"]:
    """Numbers of the test images with a wrong prediction: by confidence, the highest first, where it is known."""
    assert data.test_labels is not None and data.test_predictions is not None
    wrong = np.flatnonzero(data.test_labels != data.test_predictions)
    if data.test_confidences is None:
        return wrong
    return wrong[np.argsort(-data.test_confidences[wrong], kind="stable")]
