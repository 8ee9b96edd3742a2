"""Predictions against the folders that images lie in: accuracy, and precision, recall and F1 of each class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from gensupcon_jax.text import aligned, listed


class FolderScores(NamedTuple):
    """Scores of the images whose folder is a class; sentence: what cannot be scored, empty where all can.

    num_images: that are scored.  accuracy: in percent.  rows: (class, images, precision, recall, F1), the numbers in percent, NaN
    where they are not defined: precision of a class that is never predicted, recall of one without images.
    """

    num_images: int
    accuracy: float
    rows: list[tuple[str, int, float, float, float]]
    sentence: str


def folder_scores(
    folders: Sequence[str | None],
    classes: Int[np.ndarray, "image"],
    class_names: Sequence[str],
    grouping: str = "folder",
) -> FolderScores:
    """How well predicted classes agree with the folders, or with the labels of a list, as `grouping` says.

    classes: a number of `class_names` for each image.
    """
    from sklearn.metrics import precision_recall_fscore_support

    numbers = {name: number for number, name in enumerate(class_names)}
    scored = np.array([folder in numbers for folder in folders], bool)
    truth = np.array([numbers[folder] for folder in folders if folder in numbers], np.int64)
    predicted = classes[scored]
    sentence = _unknown(folders, class_names, grouping)
    if not len(truth):
        return FolderScores(0, np.nan, [], sentence)
    labels = np.union1d(truth, predicted)
    undefined: dict[str, Any] = {"zero_division": np.nan}
    columns: Any = precision_recall_fscore_support(truth, predicted, labels=labels, **undefined)
    rows = [
        (class_names[int(label)], int(images), 100 * float(precision), 100 * float(recall), 100 * float(f1))
        for label, precision, recall, f1, images in zip(labels, *columns, strict=True)
    ]
    return FolderScores(len(truth), 100 * float(np.mean(truth == predicted)), rows, sentence)


def _unknown(folders: Sequence[str | None], class_names: Sequence[str], grouping: str) -> str:
    """A sentence on folders or labels that are not classes; empty if there is none."""
    unknown = sorted({folder for folder in folders if folder is not None and folder not in class_names})
    if not unknown:
        return ""
    num_images = sum(folder in unknown for folder in folders)
    images = "1 image is" if num_images == 1 else f"{num_images} images are"
    what = f"{grouping}s are not classes" if len(unknown) > 1 else f"{grouping} is not a class"
    return (
        f"{len(unknown)} {what} of the source: {listed(unknown)}; {images} not scored "
        f"(its classes: {listed(class_names)})"
    )


def scores_text(scores: FolderScores) -> str:
    """Accuracy and the table of the classes, as text."""
    means = np.nanmean(np.array([row[2:] for row in scores.rows if row[1]]), axis=0)
    rows = [
        ("class", "images", "precision", "recall", "F1"),
        *((name, f"{images:,}", *map(_percent, numbers)) for name, images, *numbers in scores.rows),
        ("mean over classes", f"{scores.num_images:,}", *map(_percent, means)),
    ]
    return f"accuracy {scores.accuracy:.1f} % of {scores.num_images:,} images\n\n{aligned(rows)}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"
